"""Registers that only delay, counted as the shift registers that a synthesis tool makes of them.

Pipeline stages are synthesized one by one, so no tool sees a delay of several stages here: bits
that pass stages untouched are found in the pipeline itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alkaid.types import CombLogic

from salt_hls.rtl.operations import CUT, INPUT

SHORTEST = 3
"""Clocks from which a delay is made a shift register: Vivado's default (`-shreg_min_size`). A table
in place of two registers would be no gain."""

LONGEST = 32
"""Clocks that one look-up table delays a bit (SRLC32E)."""

Bit = tuple[int, int]
"""A value's place among those of a register, and the place of the bit in it."""


@dataclass
class Moved:
    """Of the registers at one place of a pipeline: those inside shift registers, which take `srl`
    look-up tables where they begin."""

    ff: int = 0
    srl: int = 0


def delay_lines(stages: Sequence[CombLogic]) -> list[Moved]:
    """For the registers before the first of these stages and after each of them.

    Part of a delay line is a bit that nothing but the next register reads.
    """
    moved = [Moved() for _ in range(len(stages) + 1)]
    lengths = {bit: 1 for bit in _input_bits(stages[0])}
    for place, logic in enumerate(stages):
        sources, passed = _wires(logic)
        after = {
            bit: lengths[source] + 1 if source in passed else 1 for bit, source in sources.items()
        }
        for bit, length in lengths.items():
            if bit not in passed:
                _count(moved, place, length)
        lengths = after
    for length in lengths.values():
        _count(moved, len(stages), length)
    return moved


def _count(moved: list[Moved], last: int, length: int) -> None:
    """Makes a delay line of so many registers, which ends at `last`, shift registers."""
    first = last - length + 1
    while length >= SHORTEST:
        part = min(length, LONGEST)
        moved[first].srl += 1
        for place in range(first, first + part):
            moved[place].ff += 1
        first, length = first + part, length - part


def _input_bits(logic: CombLogic) -> list[Bit]:
    return [(k, i) for k, kind in enumerate(logic.inp_qint) for i in range(sum(map(int, kind.kif)))]


def _wires(logic: CombLogic) -> tuple[dict[Bit, Bit | None], set[Bit]]:
    """The input bit that every output bit is, if it is one, and those that only become such."""
    wires: list[list[Bit | None]] = []
    uses: Counter[Bit] = Counter()
    for op in logic.ops:
        width = sum(map(int, op.qint.kif))
        if op.opcode == INPUT:
            wires.append([(op.data[0], i) for i in range(width)])
        elif op.opcode == CUT:
            source = wires[op.addr[0]]
            low = logic.ops[op.addr[0]].qint.kif.fractional - op.data[0] - op.qint.kif.fractional
            # Bits above the source's repeat its sign.
            top = len(source) - 1
            wires.append([source[min(low + i, top)] if source else None for i in range(width)])
        else:
            uses.update(bit for i in op.addr for bit in wires[i] if bit)
            wires.append([None] * width)
    sources: dict[Bit, Bit | None] = {}
    for k, i in enumerate(logic.out_idxs):
        if i >= 0:
            sources |= {(k, j): bit for j, bit in enumerate(wires[i])}
    taken = Counter(bit for bit in sources.values() if bit)
    return sources, {bit for bit, count in taken.items() if count == 1 and not uses[bit]}
