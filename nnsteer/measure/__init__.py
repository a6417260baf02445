"""Texts and logits to numbers."""
