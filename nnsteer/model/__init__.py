"""A model, and programs on it."""
