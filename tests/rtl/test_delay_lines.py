"""Which registers only delay, and what they count as."""

from __future__ import annotations

import pytest
from alkaid.types import CombLogic, Op, QInterval

from salt_hls.rtl.delay_lines import LONGEST, SHORTEST, Moved, delay_lines

NIBBLE = QInterval(-8.0, 7.0, 1.0)


def given(k: int, kind: QInterval = NIBBLE) -> Op:
    return Op((), -1, (k,), kind, 0.0, 0.0)


def stage(ops: list[Op], outputs: list[int]) -> CombLogic:
    inputs = 1 + max(op.data[0] for op in ops if op.opcode == -1)
    count = len(outputs)
    return CombLogic(
        (inputs, count), [0] * inputs, outputs, [0] * count, [False] * count, ops, 1, 1
    )


PASS = stage([given(0)], [0])
INVERT = stage([given(0), Op((0,), 9, (0,), NIBBLE, 0.0, 0.0)], [1])


def totals(moved: list[Moved]) -> tuple[int, int]:
    return sum(m.ff for m in moved), sum(m.srl for m in moved)


@pytest.mark.parametrize(
    ("stages", "ff", "srl"),
    [
        (SHORTEST - 2, 0, 0),
        (SHORTEST - 1, SHORTEST, 1),
        (LONGEST - 1, LONGEST, 1),
        # What is left over after a full one is too short to be another.
        (LONGEST, LONGEST, 1),
        (LONGEST + SHORTEST - 1, LONGEST + SHORTEST, 2),
        (2 * LONGEST - 1, 2 * LONGEST, 2),
    ],
)
def test_a_look_up_table_delays_a_bit_for_so_many_clocks(stages: int, ff: int, srl: int) -> None:
    moved = delay_lines([PASS] * stages)
    assert len(moved) == stages + 1
    assert totals(moved) == (4 * ff, 4 * srl)
    if srl:
        assert moved[0] == Moved(4, 4)  # counted where it begins


def test_what_is_computed_or_read_is_no_delay() -> None:
    assert totals(delay_lines([INVERT] * 8)) == (0, 0)
    # Three registers before the inverter, of which its input is the last, and three after it.
    both = delay_lines([PASS, PASS, INVERT, PASS, PASS])
    assert totals(both) == (24, 8) and [m.srl for m in both] == [4, 0, 0, 4, 0, 0]
    # Read in the middle: the two halves are too short.
    read = stage([given(0), Op((0,), 9, (0,), NIBBLE, 0.0, 0.0)], [0, 1])
    assert totals(delay_lines([PASS, read, PASS])) == (0, 0)
    # Sent to two registers, each of which begins a delay of its own.
    twice = stage([given(0)], [0, 0])
    assert totals(delay_lines([twice, *[stage([given(0), given(1)], [0, 1])] * 2])) == (24, 8)
    # Values that change their places are still delayed.
    swap = stage([given(0), given(1)], [1, 0])
    assert totals(delay_lines([swap, swap, swap])) == (32, 8)


def test_single_bits_are_followed() -> None:
    """The low two bits of a value go on as a value of their own, while its top bit is read."""
    low = Op((0,), 3, (0,), QInterval(0.0, 3.0, 1.0), 0.0, 0.0)
    top = Op((0,), 3, (0,), QInterval(0.0, 8.0, 8.0), 0.0, 0.0)
    used = Op((2,), 9, (0,), QInterval(0.0, 8.0, 8.0), 0.0, 0.0)
    cut = stage([given(0), low, top, used], [1, 3])
    kinds = [QInterval(0.0, 3.0, 1.0), QInterval(0.0, 8.0, 8.0)]
    on = stage([given(k, kind) for k, kind in enumerate(kinds)], [0, 1])
    moved = delay_lines([PASS, cut, on])
    assert totals(moved) == (2 * 4, 2)
    # A sign that is repeated has more than one reader.
    wide = Op((0,), 3, (0,), QInterval(-32.0, 31.0, 1.0), 0.0, 0.0)
    extended = stage([given(0), wide], [1])
    assert totals(delay_lines([PASS, PASS, extended])) == (3 * 4 + 3, 3 + 1)
