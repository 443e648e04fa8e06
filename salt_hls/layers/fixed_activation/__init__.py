"""Activations with declared types."""
