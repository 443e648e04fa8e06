"""The operations of alkaid's programs: their codes, and how long each takes."""

from __future__ import annotations

from alkaid.types import CombLogic, Op

from salt_hls.rtl.delays import CONSTANT_ADDER_NS

NEGATE, INPUT, ADD, SUBTRACT, CUT, ADD_CONSTANT, CONSTANT = -2, -1, 0, 1, 3, 4, 5
MUX, MULTIPLY, SUM = 6, 7, 11


def own_delay(logic: CombLogic, op: Op) -> float:
    """Delay of one operation of a program, in nanoseconds.

    alkaid counts none for adding a constant, which is a carry chain too; a choice between two
    constants is wires.
    """
    if op.opcode == MUX and all(logic.ops[j].opcode == CONSTANT for j in op.addr[:2]):
        return 0.0
    ready = max((logic.ops[i].latency for i in op.addr), default=op.latency)
    constant = CONSTANT_ADDER_NS if op.opcode == ADD_CONSTANT else 0.0
    return float(op.latency - ready) + constant


def takes_no_time(logic: CombLogic, op: Op) -> bool:
    """Whether it is a multiplexer that the look-up table of its reader has: a row of a product."""
    return op.opcode == MUX and own_delay(logic, op) == 0
