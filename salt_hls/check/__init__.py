"""Where bits are compared."""
