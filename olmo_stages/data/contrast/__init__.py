"""The built-in contrast sets, written by this project."""
