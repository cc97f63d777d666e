"""The analyses, one file each; they never import one another."""
