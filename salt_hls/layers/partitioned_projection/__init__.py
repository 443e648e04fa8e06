"""Projection of N particles to p rows."""
