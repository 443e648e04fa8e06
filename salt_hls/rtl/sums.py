"""Sums of many terms without a carry chain for each: counters first, one adder in the end.

    a + b + c = (a ^ b ^ c) + 2 maj(a, b, c)          one look-up table for three bits of a column
    a + ... + f = ones + 2 twos + 4 fours             three look-up tables for six bits of a column

alkaid writes a sum as a tree of adders of two. Where nothing else reads the values inside, the tree
becomes one heap of bits: each column is counted down to two bits, those that are there first, first
(Dadda, Alta Frequenza 34:349, 1965), and one adder makes the result. A counter takes as many
look-up tables as it takes bits away, like an adder, but half a nanosecond whatever the width.
Constants (a bias, half a step that is added before a cut) and signs cost nothing: a signed term is
an unsigned one with its sign bit inverted, less a constant, and all constants together are a third,
known, operand of the adder.

In alkaid's programs these are operations 11, with `data` as `Part` has it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from alkaid.codegen.rtl.verilog import comb
from alkaid.types import CombLogic, Op, QInterval

from salt_hls.rtl.delays import CONSTANT_ADDER_NS, LUT_NS, adder_ns
from salt_hls.rtl.operations import (
    ADD,
    ADD_CONSTANT,
    SUBTRACT,
    SUM,
    own_delay,
    takes_no_time,
)

TOTAL, ONES, TWOS, FOURS = range(4)

TALLEST = (2, 3, 6, 12, 24, 48, 96, 192, 384, 768)
"""Height of the columns that so many levels of counters bring down to 2."""


class Bit(NamedTuple):
    """A bit of `value` of the program; `level`: of counters, from which on it is there."""

    value: int
    place: int
    inverted: bool
    level: int


Columns = defaultdict[int, list[Bit]]
Arrivals = defaultdict[int, Counter[int]]
"""How many bits are there from a level on, by level and column."""


class Slice(NamedTuple):
    """Bits place ... place + width - 1 of operand `operand`, inverted where `mask` has ones."""

    operand: int
    place: int
    width: int
    mask: int


@dataclass(frozen=True)
class Part:
    """One word that is made of words of bits: of a counter (`kind` ONES, TWOS, FOURS), or the sum.

    words: of the same width, lowest bit first, each of slices; operand -1 is zeros. constant: added
    by the adder. start: the adder's lowest bit. drop: bits of the sum that are not read.
    """

    kind: int
    words: tuple[tuple[Slice, ...], ...]
    constant: int = 0
    start: int = 0
    drop: int = 0

    def data(self) -> tuple[int, ...]:
        """As integers, for an operation of alkaid's."""
        numbers = [self.kind, self.constant, self.start, self.drop, len(self.words)]
        for word in self.words:
            numbers.append(len(word))
            for piece in word:
                numbers += piece
        return tuple(numbers)

    @staticmethod
    def read(data: Sequence[int]) -> Part:
        """The inverse of `data`."""
        numbers = iter(data)
        kind, constant, start, drop, count = (next(numbers) for _ in range(5))
        words = tuple(
            tuple(Slice(*(next(numbers) for _ in range(4))) for _ in range(next(numbers)))
            for _ in range(count)
        )
        return Part(kind, words, constant, start, drop)


def merge_sums(logic: CombLogic) -> CombLogic:
    """The program with trees of adders as heaps of bits; its outputs are the same, bit for bit."""
    return _Merger(logic).run()


Term = tuple[int, bool, int]
"""Index of a value, whether it is added, and the power of two that it is multiplied by."""


class _Merger:
    def __init__(self, logic: CombLogic) -> None:
        self.logic = logic
        self.ops: list[Op] = []
        self.own: list[float] = []
        self.ends: list[float] = []
        self.new: dict[int, int] = {}
        self.patterns: dict[Any, list[tuple[Op, float]]] = {}
        reads = Counter(j for op in logic.ops for j in op.addr)
        reads.update(j for j in logic.out_idxs if j >= 0)
        ops = logic.ops
        self.adders = {
            k
            for k, op in enumerate(ops)
            if op.opcode in (ADD, SUBTRACT, ADD_CONSTANT) and not self._selects(op)
        }
        self.inner = {
            j for k in self.adders for j in ops[k].addr if j in self.adders and reads[j] == 1
        }

    def _selects(self, op: Op) -> bool:
        """Whether an adder selects what it adds, in the same look-up tables: a row of a product."""
        return any(takes_no_time(self.logic, self.logic.ops[j]) for j in op.addr)

    def run(self) -> CombLogic:
        for k, op in enumerate(self.logic.ops):
            if k in self.inner:
                continue
            if k in self.adders:
                terms: list[Term] = []
                constants: list[tuple[int, int]] = []
                self._flatten(k, True, 0, terms, constants)
                if len(terms) > 2 or (len(terms) == 2 and constants):
                    self.new[k] = self.sum_of(op.qint, terms, constants)
                    continue
            moved = op._replace(addr=tuple(self.new[j] for j in op.addr))
            self.new[k] = self.append(moved, own_delay(self.logic, op))
        outputs = [self.new[j] if j >= 0 else j for j in self.logic.out_idxs]
        return self.logic._replace(ops=self.ops, out_idxs=outputs)

    def append(self, op: Op, own: float) -> int:
        end = max((self.ends[j] for j in op.addr), default=0.0) + own
        # alkaid's latencies leave out what adding a constant takes.
        counted = own - CONSTANT_ADDER_NS if op.opcode == ADD_CONSTANT else own
        latency = max((self.ops[j].latency for j in op.addr), default=0.0) + counted
        self.ops.append(op._replace(latency=latency))
        self.own.append(own)
        self.ends.append(end)
        return len(self.ops) - 1

    def _flatten(
        self,
        k: int,
        plus: bool,
        shift: int,
        terms: list[Term],
        constants: list[tuple[int, int]],
    ) -> None:
        """Terms and constants (integer, exponent of its step) of the tree at `k`."""
        op = self.logic.ops[k]
        if op.opcode == ADD_CONSTANT:
            number, fractional = op.data
            constants.append((number if plus else -number, shift - fractional))
            inputs = [(op.addr[0], plus, shift)]
        else:
            other = plus if op.opcode == ADD else not plus
            inputs = [(op.addr[0], plus, shift), (op.addr[1], other, shift + op.data[0])]
        for j, sign, place in inputs:
            if j in self.inner:
                self._flatten(j, sign, place, terms, constants)
            else:
                terms.append((self.new[j], sign, place))

    def sum_of(self, result: QInterval, terms: list[Term], constants: list[tuple[int, int]]) -> int:
        """Appends the sum; its place. Particles have the same sums: they are kept as patterns."""
        names = {index: number for number, index in enumerate(dict.fromkeys(t[0] for t in terms))}
        last = max(self.ends[index] for index in names)
        key = (
            result,
            tuple((names[index], plus, shift) for index, plus, shift in terms),
            tuple((self.ops[i].qint.kif, round(self.ends[i] - last, 3)) for i in names),
            tuple(constants),
        )
        if key not in self.patterns:
            start = len(self.ops)
            _Heap(self, result, terms, constants).build()
            local = {index: -1 - number for index, number in names.items()}
            self.patterns[key] = [
                (op._replace(addr=tuple(local.get(j, j - start) for j in op.addr)), own)
                for op, own in zip(self.ops[start:], self.own[start:], strict=True)
            ]
            return len(self.ops) - 1
        start, given = len(self.ops), [*names]
        for op, own in self.patterns[key]:
            addr = tuple(given[-1 - j] if j < 0 else start + j for j in op.addr)
            self.append(op._replace(addr=addr), own)
        return len(self.ops) - 1


class _Heap:
    """Columns of bits, by exponent, below that of the result's highest bit."""

    def __init__(
        self,
        program: _Merger,
        result: QInterval,
        terms: Sequence[Term],
        constants: Sequence[tuple[int, int]],
    ) -> None:
        self.program, self.result = program, result
        signed, integers, fractional = result.kif
        self.end, self.drop_to = signed + integers, -fractional
        self.terms, self.constants = [*terms], [*constants]

    def build(self) -> None:
        """Appends counters and the adder, the sum last."""
        self._add_early_ones()
        ends = self.program.ends
        # Levels are counted such that the last terms are there just when one begins.
        last = max(ends[index] for index, _, _ in self.terms)
        first = min(ends[index] for index, _, _ in self.terms)
        first = last - LUT_NS * -int(-(last - first - 1e-6) // LUT_NS)
        columns: Columns = defaultdict(list)
        for index, plus, shift in self.terms:
            self._spread(index, plus, shift, first, columns)
        height = max(map(len, columns.values()))
        levels = next(n for n, tallest in enumerate(TALLEST) if height <= tallest)
        arriving: Arrivals = defaultdict(Counter)
        for c, bits in columns.items():
            for bit in bits:
                arriving[bit.level][c] += 1
        while (plan := self._plan(min(columns), arriving, levels)) is None:
            levels += 1
        for level, chosen in enumerate(plan):
            self._count(level, chosen, columns)
        self._total(columns)

    def _add_early_ones(self) -> None:
        """Terms that are one sum long before the last one is there become one."""
        ends = self.program.ends
        self.terms.sort(key=lambda term: ends[term[0]])
        if len(self.terms) < 3:
            return
        *early, (last, _, _) = self.terms
        ready = ends[early[-1][0]]
        if ends[last] - ready < adder_ns(self.end - self.drop_to) + LUT_NS * (len(early) - 2):
            return
        # Modulo the result's range, so that no more bits are made than are read.
        lowest = min(shift - self.program.ops[i].qint.kif[2] for i, _, shift in early)
        if lowest >= self.end:
            return
        word = QInterval(-(2.0 ** (self.end - 1)), 2.0 ** (self.end - 1) - 2.0**lowest, 2.0**lowest)
        self.terms = [(self.program.sum_of(word, early, []), True, 0), self.terms[-1]]

    def _spread(
        self,
        index: int,
        plus: bool,
        shift: int,
        first: float,
        columns: Columns,
    ) -> None:
        """Puts the bits of a term into their columns, and what signs add to the constants."""
        signed, integers, fractional = self.program.ops[index].qint.kif
        width, lowest = signed + integers + fractional, shift - fractional
        if not width:
            return
        level = max(0, -int(-(self.program.ends[index] - first - 1e-6) // LUT_NS))
        for place in range(width):
            top = signed and place == width - 1
            if lowest + place < self.end:
                columns[lowest + place].append(Bit(index, place, plus == bool(top), level))
        weight = 1 << (width - signed)
        if not plus:
            self.constants.append((1 - weight, lowest))
        elif signed:
            self.constants.append((-weight, lowest))

    def _plan(
        self, first: int, arriving: Arrivals, levels: int
    ) -> list[dict[int, list[int]]] | None:
        """Sizes of the counters, by level and column from `first`; `None` when so few levels do
        not do."""
        waiting = [arriving[0][c] for c in range(first, self.end)]
        plan = []
        for level in range(levels):
            allowed = TALLEST[min(levels - 1 - level, len(TALLEST) - 1)]
            later = arriving[level + 1]
            chosen: dict[int, list[int]] = {}
            twos = fours = more = 0  # what the columns below send here
            for c, now in enumerate(waiting):
                sizes = [6] * (now // 6) + [3] * (now % 6 >= 3)
                rest = now - sum(sizes)
                height = rest + later[first + c] + len(sizes) + twos + fours
                if height > allowed and sizes and sizes[-1] == 3 and rest:
                    sizes[-1], height = 3 + rest, height - rest
                elif height > allowed and rest == 2:
                    sizes, height = [*sizes, 2], height - 1
                if height > allowed:
                    return None
                waiting[c] = height
                twos, fours, more = len(sizes), more, sum(size > 3 for size in sizes)
                if sizes:
                    chosen[first + c] = sizes
            plan.append(chosen)
        for level, counts in arriving.items():
            if level > levels:
                for c, count in counts.items():
                    waiting[c - first] += count
        return plan if max(waiting) <= 2 else None

    def _count(self, level: int, chosen: dict[int, list[int]], columns: Columns) -> None:
        """Appends the counters of a level: what they count leaves the columns, their words join."""
        groups: defaultdict[tuple[int, int], dict[int, list[Bit]]] = defaultdict(dict)
        for c, sizes in chosen.items():
            bits = sorted(bit for bit in columns[c] if bit.level <= level)
            numbers: Counter[int] = Counter()
            for size in sizes:
                groups[size, numbers[size]][c], bits = bits[:size], bits[size:]
                numbers[size] += 1
            columns[c] = bits + [bit for bit in columns[c] if bit.level > level]
        for (size, _), inputs in groups.items():
            for run in _runs(inputs):
                for weight in range(3 if size > 3 else 2):
                    here = [c for c in run if c + weight < self.end]
                    if here:
                        index = self._counter([inputs[c] for c in here], weight, here[0])
                        for place, c in enumerate(here):
                            columns[c + weight].append(Bit(index, place, False, level + 1))

    def _counter(self, inputs: list[list[Bit]], weight: int, lowest: int) -> int:
        size, width = len(inputs[0]), len(inputs)
        addr, words = _words([[bits[row] for bits in inputs] for row in range(size)])
        low = 2.0 ** (lowest + weight)
        word = QInterval(0.0, low * (2.0**width - 1), low)
        # Two functions of the same five bits or fewer are one look-up table.
        cost = width * (0.5 if size == 2 or size == 3 else 1.0)
        data = Part(ONES + weight, words).data()
        return self.program.append(Op(addr, SUM, data, word, 0.0, cost), LUT_NS)

    def _total(self, columns: Columns) -> None:
        filled = [c for c, bits in columns.items() if bits and c < self.end]
        base = min([*filled, self.drop_to, *(exponent for _, exponent in self.constants)])
        constant = sum(number << (exponent - base) for number, exponent in self.constants)
        constant %= 1 << (self.end - base)
        starts = [c - base for c in filled if len(columns[c]) == 2]
        if constant:
            starts.append((constant & -constant).bit_length() - 1)
        width = self.end - base
        start = min(starts, default=width)
        rows = [
            [next(iter(columns.get(base + c, ())[row : row + 1]), None) for c in range(width)]
            for row in range(2)
        ]
        addr, words = _words(rows)
        chain = width - start
        data = Part(TOTAL, words, constant, start, self.drop_to - base).data()
        op = Op(addr, SUM, data, self.result, 0.0, float(chain))
        self.program.append(op, adder_ns(chain) if chain else 0.0)


def _runs(inputs: dict[int, list[Bit]]) -> Iterator[list[int]]:
    """Neighbouring columns."""
    run: list[int] = []
    for c in sorted(inputs):
        if run and c != run[-1] + 1:
            yield run
            run = []
        run.append(c)
    yield run


def _words(
    rows: Sequence[Sequence[Bit | None]],
) -> tuple[tuple[int, ...], tuple[tuple[Slice, ...], ...]]:
    """The values that rows of bits are of, and the rows as slices of them."""
    addr: dict[int, int] = {}
    words = []
    for row in rows:
        pieces: list[Slice] = []
        for bit in row:
            operand, place, inverted = -1, 0, 0
            if bit is not None:
                operand = addr.setdefault(bit.value, len(addr))
                place, inverted = bit.place, int(bit.inverted)
            if pieces:
                last = pieces[-1]
                follows = operand < 0 or place == last.place + last.width
                if operand == last.operand and follows:
                    mask = last.mask | inverted << last.width
                    pieces[-1] = last._replace(width=last.width + 1, mask=mask)
                    continue
            pieces.append(Slice(operand, place, 1, inverted))
        words.append(tuple(pieces))
    return tuple(addr), tuple(words)


def line(logic: CombLogic, number: int, wire: str, kifs: Any, widths: Any) -> str:
    """The Verilog of one operation 11; alkaid calls it with the wire that it declares."""
    op, out = logic.ops[number], f"v{number}[{widths[number] - 1}:0]"
    part = Part.read(op.data)
    words = [_verilog(word, op.addr) for word in part.words]
    width = sum(piece.width for piece in part.words[0])
    if part.kind == TOTAL:
        parameters = f"{width},{part.start},{part.drop},{width}'d{part.constant}"
        return f"{wire} total #({parameters}) op_{number} ({','.join(words)},{out});"
    words += [f"{width}'d0"] * (6 - len(words))
    return f"{wire} counter #({width},{part.kind - ONES}) op_{number} ({','.join(words)},{out});"


def _verilog(word: Sequence[Slice], addr: Sequence[int]) -> str:
    pieces = []
    for operand, place, width, mask in reversed(word):
        if operand < 0:
            pieces.append(f"{width}'d0")
            continue
        text = f"v{addr[operand]}[{place + width - 1}:{place}]"
        pieces.append(f"{text} ^ {width}'d{mask}" if mask else text)
    return f"{{{','.join(pieces)}}}"


comb.ternary_line = line  # alkaid's own writes sums of three; no others are made here
