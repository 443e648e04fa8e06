`timescale 1ns / 1ps

// One word of the count of six rows: bit WEIGHT of how many bits of each column are set.
module counter #(
    parameter WIDTH = 8,
    parameter WEIGHT = 0
) (
    input [WIDTH-1:0] a,
    input [WIDTH-1:0] b,
    input [WIDTH-1:0] c,
    input [WIDTH-1:0] d,
    input [WIDTH-1:0] e,
    input [WIDTH-1:0] f,
    output [WIDTH-1:0] out
);
  wire [WIDTH-1:0] low0 = a ^ b ^ c;
  wire [WIDTH-1:0] low1 = d ^ e ^ f;
  wire [WIDTH-1:0] high0 = (a & b) | (c & (a | b));
  wire [WIDTH-1:0] high1 = (d & e) | (f & (d | e));
  wire [WIDTH-1:0] carry = low0 & low1;
  generate
    if (WEIGHT == 0) begin : ones
      assign out = low0 ^ low1;
    end else if (WEIGHT == 1) begin : twos
      assign out = high0 ^ high1 ^ carry;
    end else begin : fours
      assign out = (high0 & high1) | (carry & (high0 | high1));
    end
  endgenerate
endmodule

// a + b + KNOWN in one carry chain, from bit DROP on. Below bit START there is only one of them.
module total #(
    parameter WIDTH = 8,
    parameter START = 0,
    parameter DROP = 0,
    parameter [WIDTH-1:0] KNOWN = 0
) (
    input [WIDTH-1:0] a,
    input [WIDTH-1:0] b,
    output [WIDTH-DROP-1:0] out
);
  wire [WIDTH-1:0] sum;
  wire [WIDTH-1:0] ones = a ^ b ^ KNOWN;
  wire [WIDTH-1:0] twos = ((a & b) | (KNOWN & (a | b))) << 1;
  generate
    if (START > 0) begin : alone
      assign sum[START-1:0] = a[START-1:0] | b[START-1:0] | KNOWN[START-1:0];
    end
    if (START < WIDTH) begin : chain
      if (KNOWN == 0) begin : plain
        assign sum[WIDTH-1:START] = a[WIDTH-1:START] + b[WIDTH-1:START];
      end else begin : with_known
        assign sum[WIDTH-1:START] = ones[WIDTH-1:START] + twos[WIDTH-1:START];
      end
    end
  endgenerate
  assign out = sum[WIDTH-1:DROP];
endmodule
