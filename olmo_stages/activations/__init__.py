"""The content-addressed store of activations, and extraction into it."""
