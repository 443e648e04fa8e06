`timescale 1ns / 1ps

// FIFO whose writer asks for a place (`reserve`, when there is `room`) before it knows the value,
// and writes it any number of clocks later: a pipeline between the two never has to stop.
// `q` is the oldest value while `valid`; `read` removes it.
module stream_fifo #(
    parameter WIDTH = 1,
    parameter DEPTH = 2
) (
    input clk,
    input rst,
    input reserve,
    output room,
    input write,
    input [WIDTH-1:0] data,
    input read,
    output valid,
    output [WIDTH-1:0] q
);

  localparam BITS = $clog2(DEPTH + 1);
  localparam LAST = DEPTH - 1;

  (* ram_style = "distributed" *)
  reg [WIDTH-1:0] memory[0:DEPTH-1];
  reg [BITS-1:0] head, tail, reserved, filled;

  assign room = reserved != DEPTH[BITS-1:0];
  assign valid = filled != 0;
  assign q = memory[head];

  always @(posedge clk) begin
    if (write) memory[tail] <= data;
    if (rst) begin
      head <= 0;
      tail <= 0;
      reserved <= 0;
      filled <= 0;
    end else begin
      if (read) head <= head == LAST[BITS-1:0] ? 0 : head + 1'b1;
      if (write) tail <= tail == LAST[BITS-1:0] ? 0 : tail + 1'b1;
      reserved <= reserved + {{(BITS - 1) {1'b0}}, reserve} - {{(BITS - 1) {1'b0}}, read};
      filled <= filled + {{(BITS - 1) {1'b0}}, write} - {{(BITS - 1) {1'b0}}, read};
    end
  end

endmodule
