"""From a Keras model to an HLS project: what knows hls4ml."""
