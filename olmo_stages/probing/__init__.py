"""What the probe analysis is made of."""
