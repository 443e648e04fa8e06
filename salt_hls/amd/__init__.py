"""Driving Vitis HLS, Vivado HLS and Vivado, where they are installed."""
