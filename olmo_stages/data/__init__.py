"""Readers, built-in contrast sets, prompts, token spans and group splits."""
