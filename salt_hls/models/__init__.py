"""The Keras models of SAL-T, and their weights."""
