"""hls4ml conversion, project writing and C-simulation: all that touches hls4ml's internals."""
