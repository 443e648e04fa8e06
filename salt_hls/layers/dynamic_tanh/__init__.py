"""Dynamic tanh as a table."""
