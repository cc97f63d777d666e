"""Measures of how alike two representations of the same examples are, and their inference."""
