"""Loading with its guards, sites, and the forward pass."""
