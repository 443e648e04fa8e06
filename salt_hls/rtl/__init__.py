"""hls4ml graph -> alkaid -> pipelined Verilog; Verilator simulation; Yosys synthesis."""
