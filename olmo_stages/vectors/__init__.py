"""Trait vectors: how they are found, and whether they are the same vector in another stage."""
