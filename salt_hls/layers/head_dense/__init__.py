"""Dense layer with one matrix per head."""
