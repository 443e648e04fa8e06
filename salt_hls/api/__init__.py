"""What Python users call; `salt_hls` has the names."""
