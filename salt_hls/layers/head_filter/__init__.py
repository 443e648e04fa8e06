"""A filter along the rows, one for each head."""
