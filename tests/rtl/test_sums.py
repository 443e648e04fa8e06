"""Sums as heaps of bits: the same values as alkaid's trees of adders, in fewer levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("alkaid")

from alkaid.trace import trace
from alkaid.types import CombLogic

from salt_hls.fixed import FixedType
from salt_hls.rtl.delays import LUT_NS, adder_ns
from salt_hls.rtl.operations import ADD, ADD_CONSTANT, SUBTRACT, SUM
from salt_hls.rtl.sums import ONES, TOTAL, Part, merge_sums
from salt_hls.rtl.tracer import symbols

TYPES = st.builds(
    FixedType,
    st.integers(2, 9),
    st.integers(-2, 5),
    st.booleans(),
    st.just("RND"),
    st.just("SAT"),
)


def run(logic: CombLogic, row: np.ndarray) -> list[int]:
    """Outputs of a program in steps of 2**-40, sums as their parts say, all else as alkaid does."""
    values: list[Any] = []
    for op in logic.ops:
        if op.opcode != SUM:
            values.append(logic.exec_op(op, np.array([*values], object), row))
            continue
        part = Part.read(op.data)
        words = [_word(part, word, logic, op.addr, values) for word in part.words]
        signed, integers, fractional = op.qint.kif
        width = signed + integers + fractional
        if part.kind == TOTAL:
            result = (sum(words) + part.constant) >> part.drop
        else:
            columns = [sum(word >> c & 1 for word in words) for c in range(width)]
            result = sum((n >> (part.kind - ONES) & 1) << c for c, n in enumerate(columns))
        result &= (1 << width) - 1
        if signed and result >> (width - 1):
            result -= 1 << width
        values.append(result * 2.0**-fractional)
    chosen = [values[i] if i >= 0 else 0.0 for i in logic.out_idxs]
    return [
        round((-v if negated else v) * 2.0 ** (shift + 40))
        for v, shift, negated in zip(chosen, logic.out_shifts, logic.out_negs, strict=True)
    ]


def _word(part: Part, word: Any, logic: CombLogic, addr: Any, values: list[Any]) -> int:
    total, place = 0, 0
    for piece in word:
        if piece.operand >= 0:
            index = addr[piece.operand]
            code = round(values[index] * 2.0 ** logic.ops[index].qint.kif[2])
            bits = (code >> piece.place & ((1 << piece.width) - 1)) ^ piece.mask
            total |= bits << place
        place += piece.width
    return total


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_sum_is_the_same(data: st.DataObject) -> None:
    """Weights of all signs and sizes, shared terms, constants, terms that come late, ties."""
    types = data.draw(st.lists(TYPES, min_size=2, max_size=14))
    inner = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = (len(types), inner)
    first = rng.integers(-9, 10, shape) * 2.0 ** rng.integers(-2, 3, shape)
    second = rng.integers(-9, 10, (inner + len(types), 2)) * 1.0
    narrow = data.draw(TYPES)
    x = symbols((len(types),), types)
    late = narrow.quantize(x @ first + 0.25)
    y = np.concatenate([late, x]) @ second + np.array([0.0, -1.5])
    outputs = FixedType(11, 7, True, "RND", "SAT").quantize(y)
    if all(value.low == value.high for value in np.asarray(outputs)):
        return
    logic = trace(x, outputs)
    merged = merge_sums(logic)
    corners = [[t.min for t in types], [t.max for t in types], [0.0] * len(types)]
    drawn = [[float(t.quantize(np.array(rng.normal(0, 2.0**t.int_bits)))) for t in types]
             for _ in range(12)]  # fmt: skip
    for row in np.array(corners + drawn) * 2.0 ** np.array(logic.inp_shifts):
        assert run(merged, row) == run(logic, row)


def test_a_sum_of_many_takes_few_levels() -> None:
    """16 bytes: 16, 8, 4, 3, 2 in four levels and an adder, against four adders."""
    types = [FixedType(8, 8)] * 16
    x = symbols((16,), types)
    logic = trace(x, np.array([np.sum(x)]))
    merged = merge_sums(logic)
    assert not {op.opcode for op in merged.ops} & {ADD, SUBTRACT, ADD_CONSTANT}
    assert merged.latency[1] <= 4 * LUT_NS + adder_ns(12)
    assert logic.latency[1] >= 4 * adder_ns(8)
    assert sum(op.cost for op in merged.ops) <= sum(op.cost for op in logic.ops)


def test_what_is_read_elsewhere_stays() -> None:
    x = symbols((4,), [FixedType(6, 6)] * 4)
    half = x[0] + x[1]
    logic = trace(x, np.array([half, half + x[2] + x[3]]))
    merged = merge_sums(logic)
    for row in np.array([[1.0, 2.0, 3.0, 4.0], [-32.0, -32.0, 31.0, -1.0]]):
        assert run(merged, row) == run(logic, row)
    assert [op.opcode for op in merged.ops].count(ADD) == 1
