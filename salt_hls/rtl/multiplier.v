`timescale 1ns / 1ps

// Product of two variables in look-up tables: in place of alkaid's `multiplier`.
// The narrower factor b goes in pairs of bits; each pair's row a * (b1 b0) is one adder of gated
// terms (a look-up table per bit), rows are added two and two. Synthesis tools that know no better
// than a tree of compressors need about twice as much for `*`.
module multiplier #(
    parameter BW_INPUT0 = 32,
    parameter BW_INPUT1 = 32,
    parameter SIGNED0 = 0,
    parameter SIGNED1 = 0,
    parameter BW_OUT = 32
) (
    input [BW_INPUT0-1:0] in0,
    input [BW_INPUT1-1:0] in1,
    output [BW_OUT-1:0] out
);

  localparam SWAP = BW_INPUT0 < BW_INPUT1;
  localparam BW_A = SWAP ? BW_INPUT1 : BW_INPUT0;
  localparam BW_B = SWAP ? BW_INPUT0 : BW_INPUT1;
  localparam SIGNED_A = SWAP ? SIGNED1 : SIGNED0;
  localparam SIGNED_B = SWAP ? SIGNED0 : SIGNED1;
  localparam W = BW_A + (SIGNED_A ? 0 : 1);  // a as a signed number
  localparam QUADS = (BW_B + 3) / 4;

  wire signed [W-1:0] a;
  wire [4*QUADS-1:0] b;
  generate
    if (SWAP) begin : swapped
      assign a = SIGNED_A ? $signed(in1) : $signed({1'b0, in1});
      assign b = {{(4 * QUADS - BW_B) {1'b0}}, in0};
    end else begin : straight
      assign a = SIGNED_A ? $signed(in0) : $signed({1'b0, in0});
      assign b = {{(4 * QUADS - BW_B) {1'b0}}, in1};
    end
  endgenerate

  // verilator lint_off UNUSEDSIGNAL
  wire signed [W+4*QUADS-1:0] product;
  // verilator lint_on UNUSEDSIGNAL

  genvar i;
  generate
    for (i = 0; i < 2 * QUADS; i = i + 1) begin : rows
      wire signed [W+1:0] low = b[2*i] ? {{2{a[W-1]}}, a} : {(W + 2) {1'b0}};
      wire signed [W+1:0] high = b[2*i+1] ? {a[W-1], a, 1'b0} : {(W + 2) {1'b0}};
      wire signed [W+1:0] sum;
      // The top bit of a signed factor counts negative.
      if (SIGNED_B && 2 * i + 1 == BW_B - 1) begin : top_high
        assign sum = low - high;
      end else if (SIGNED_B && 2 * i == BW_B - 1) begin : top_low
        assign sum = -low;
      end else begin : positive
        assign sum = low + high;
      end
    end
    for (i = 0; i < QUADS; i = i + 1) begin : quads
      wire signed [W+1:0] upper = (rows[2*i].sum >>> 2) + rows[2*i+1].sum;
      wire signed [W+3:0] sum = {upper, rows[2*i].sum[1:0]};
      wire signed [W+3:0] total;  // what lies above the bits that are done
      if (i == 0) begin : first
        assign total = sum;
      end else begin : next
        assign total = (quads[i-1].total >>> 4) + sum;
      end
      assign product[4*i+:4] = total[3:0];
    end
    assign product[4*QUADS+:W] = quads[QUADS-1].total[W+3:4];
    if (BW_OUT <= W + 4 * QUADS) begin : cut
      assign out = product[BW_OUT-1:0];
    end else begin : extend
      assign out = {{(BW_OUT - W - 4 * QUADS) {product[W+4*QUADS-1]}}, product};
    end
  endgenerate

endmodule
