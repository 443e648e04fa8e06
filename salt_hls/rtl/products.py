"""Products of two variables as rows of multiples, in place of alkaid's multiplications.

One factor goes in pairs of bits. A row is 0, a, 2a or 3a (for the top pair of a signed factor 0, a,
-2a or -a), and is added to the rows before it: the sum so far, a or 2a, 3a and the two bits are six
inputs, so one look-up table and a carry chain select a row and add it (two partial products at
a time, as Walters, Computers 5(4):20, 2016, does with Booth's digits). n by n bits take some
n (n + 2) / 2 tables, with 3a and -a made once for all products of a. The rows are operations of the
program, so registers may stand between them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from alkaid.types import CombLogic, Op, QInterval

from salt_hls.rtl.delays import LUT_NS, adder_ns
from salt_hls.rtl.operations import ADD, CONSTANT, CUT, MULTIPLY, MUX, NEGATE, SUBTRACT

TABLE = Path(__file__).with_name("products.json")
"""What products cost by width, as `python -m salt_hls.rtl.product_table` measures it."""


class Factor(NamedTuple):
    """Bits of a factor, sign included."""

    width: int
    signed: bool


def factor(interval: QInterval) -> Factor:
    """That of a value in an interval."""
    kind = interval.kif
    return Factor(sum(map(int, kind)), bool(kind.signed))


@cache
def lut_counts() -> dict[tuple[Factor, Factor], int]:
    """Look-up tables of a product by its factors: that of the multiples, and that of the bits."""
    rows = json.loads(TABLE.read_text())["products"] if TABLE.exists() else []
    return {(Factor(r["a"], r["a_signed"]), Factor(r["b"], r["b_signed"])): r["lut"] for r in rows}


def is_multiple(op: Op) -> bool:
    """Whether an operation is 3a or -a."""
    if op.opcode == ADD:
        return tuple(op.data) == (1,) and len(set(op.addr)) == 1
    return bool(op.opcode == NEGATE)


def expand_products(logic: CombLogic) -> CombLogic:
    """The program with every product of two variables as rows; all its values stay the same."""
    program = Program()
    places: list[int] = []
    for op in logic.ops:
        addr = [places[i] for i in op.addr]
        if op.opcode == MULTIPLY:
            x, y = addr
            places.append(program.product(x, y, op.qint))
        else:
            ready = max((logic.ops[i].latency for i in op.addr), default=0.0)
            places.append(
                program.add(addr, op.opcode, op.data, op.qint, op.latency - ready, op.cost)
            )
    outputs = [places[i] if i >= 0 else i for i in logic.out_idxs]
    return logic._replace(ops=program.ops, out_idxs=outputs)


def _rows(bits: int, signed: bool) -> list[tuple[int, int]]:
    """First bit and number of bits of every row: pairs, and the odd bit.

    That is the lowest, or the sign, which then is subtracted.
    """
    if bits % 2 == 0:
        return [(j, 2) for j in range(0, bits, 2)]
    if signed and bits > 1:
        return [*_rows(bits - 1, False), (bits - 1, 1)]
    return [(0, 1), *((j, 2) for j in range(1, bits, 2))]


class Program:
    """A growing list of operations."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.multiples: dict[tuple[int, int], int] = {}
        self._bits: dict[tuple[int, int], int] = {}
        self._zero: int | None = None

    def add(
        self,
        addr: list[int],
        opcode: int,
        data: tuple[int, ...],
        interval: QInterval,
        ns: float,
        cost: float = 0.0,
    ) -> int:
        """Place of a new operation that takes so long from its last operand."""
        ready = max((self.ops[i].latency for i in addr), default=0.0)
        self.ops.append(Op(tuple(addr), opcode, data, interval, ready + ns, cost))
        return len(self.ops) - 1

    def product(self, x: int, y: int, interval: QInterval) -> int:
        """Place of x * y."""
        a, b = self._roles(x, y)
        low, high, step = self.ops[a].qint
        bits, signed = factor(self.ops[b].qint)
        # The one table that a row's multiplexers are takes its time where nothing is added.
        rows = _rows(bits, signed)
        total = self._row(a, b, *rows[0])
        first = self.ops[total]
        width = factor(first.qint).width
        self.ops[total] = first._replace(latency=first.latency + LUT_NS, cost=float(width))
        parts = [total]
        for j, size in rows[1:]:
            row = self._row(a, b, j, size)
            last = signed and j + size == bits
            # What the bits so far can be, times the ends of the other factor.
            count = 2 ** (j + size)
            least, most = (-count // 2, count // 2 - 1) if last else (0, count - 1)
            ends = [end * times for end in (low, high) for times in (least, most)]
            partial = QInterval(min(0.0, *ends), max(0.0, *ends), step)
            width = factor(partial).width - j
            opcode = SUBTRACT if last and size == 1 else ADD
            total = self.add([total, row], opcode, (j,), partial, adder_ns(width), float(width))
            parts.append(total)
        counted = lut_counts().get((factor(self.ops[a].qint), factor(self.ops[b].qint)))
        if counted is not None:
            share = counted / sum(self.ops[i].cost for i in parts)
            for i in parts:
                self.ops[i] = self.ops[i]._replace(cost=self.ops[i].cost * share)
        return self.add([total], CUT, (-int(self.ops[b].qint.kif.fractional),), interval, 0.0)

    def _roles(self, x: int, y: int) -> tuple[int, int]:
        """The factor of the multiples, and that of the bits: the one with fewer rows.

        Of equals the earlier one has the multiples, which are ready then when the other comes.
        """

        def order(place: int) -> tuple[int, float]:
            op = self.ops[place]
            return (factor(op.qint).width + 1) // 2, -op.latency

        return (x, y) if order(x) >= order(y) else (y, x)

    def _row(self, a: int, b: int, j: int, size: int) -> int:
        """The multiple of a that so many bits of b, from bit j on, select."""
        bits, signed = factor(self.ops[b].qint)
        if size == 1:
            # A sign is subtracted; where there is nothing to subtract it from, -a is added.
            only = self._multiple(a, -1) if signed and bits == 1 else a
            return self._either(self._bit(b, j), only, self.zero, 0)
        low = self._either(self._bit(b, j), a, self.zero, 0)
        if signed and j == bits - 2:
            negative = self._multiple(a, -1)
            high = self._either(self._bit(b, j), negative, negative, 1)
        else:
            high = self._either(self._bit(b, j), self._multiple(a, 3), a, 1)
        return self._either(self._bit(b, j + 1), high, low, 0)

    @property
    def zero(self) -> int:
        """The constant 0."""
        if self._zero is None:
            self._zero = self.add([], CONSTANT, (0,), QInterval(0.0, 0.0, 1.0), 0.0)
        return self._zero

    def _multiple(self, a: int, k: int) -> int:
        """3a or -a, of which there is one for all products of a."""
        if (a, k) not in self.multiples:
            low, high, step = self.ops[a].qint
            interval = QInterval(min(k * low, k * high), max(k * low, k * high), step)
            width = factor(interval).width
            opcode, addr, data = (ADD, [a, a], (1,)) if k == 3 else (NEGATE, [a], ())
            self.multiples[a, k] = self.add(
                addr, opcode, data, interval, adder_ns(width), float(width)
            )
        return self.multiples[a, k]

    def _bit(self, b: int, j: int) -> int:
        """Bit j of b, as a value of one bit."""
        if (b, j) not in self._bits:
            weight = 2.0 ** (j - self.ops[b].qint.kif.fractional)
            self._bits[b, j] = self.add([b], CUT, (0,), QInterval(0.0, weight, weight), 0.0)
        return self._bits[b, j]

    def _either(self, bit: int, yes: int, no: int, shift: int) -> int:
        """`yes` if the bit is set, else `no` * 2^shift; no time, for a reader's table has it."""
        first, second = self.ops[yes].qint, self.ops[no].qint
        scale = 2.0**shift
        interval = QInterval(
            min(first.min, second.min * scale), max(first.max, second.max * scale), first.step
        )
        return self.add([yes, no, bit], MUX, (shift,), interval, 0.0)
