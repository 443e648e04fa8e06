"""Bit for bit: what counts as a difference, where it is, and that every batch counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salt_hls.errors import UserError
from salt_hls.firmware import compare as compare_module
from salt_hls.firmware.compare import BATCH, EXAMPLES, compare, first_difference
from salt_hls.fixed import FixedType
from salt_hls.reports.model import BitAccuracy, Report

TYPE = FixedType.parse("ap_fixed<8,3>")


def compared(expected: Any, got: Any, first_event: int = 0) -> BitAccuracy:
    return compare("golden/csim", "x", np.asarray(expected), np.asarray(got), TYPE, first_event)


def merged(wrong: dict[int, float], events: int) -> BitAccuracy:
    """Compared batch by batch; `wrong` has the differences of events, in LSB, in value 1 of 3."""
    expected = np.arange(events * 3).reshape(events, 3) % 7 * TYPE.lsb
    got = expected.copy()
    for event, steps in wrong.items():
        got[event, 1] += steps * TYPE.lsb
    parts = [
        compared(expected[first : first + 10], got[first : first + 10], first)
        for first in range(0, events, 10)
    ]
    record = parts[0]
    for part in parts[1:]:
        record = compare_module._merged(record, part)
    return record


@pytest.mark.parametrize("event", [0, 9, 10, 25, 34])
def test_a_difference_in_any_batch_counts(event: int) -> None:
    record = merged({event: -3}, 35)
    assert (record.events, record.values, record.mismatches, record.max_lsb) == (35, 105, 1, 3)
    (example,) = record.examples
    assert (example.event, example.index) == (event, [1])
    assert example.got == pytest.approx((example.expected or 0.0) - 3 * TYPE.lsb, abs=0)
    assert f"event {event} index [1]" in (first_difference([record]) or "")


def test_examples_are_the_first_and_the_largest_difference_is_of_all() -> None:
    record = merged({4: 1, 12: 2, 13: 1, 21: 7, 33: 1}, 35)
    assert (record.mismatches, record.max_lsb) == (5, 7)
    assert [e.event for e in record.examples] == [4, 12, 13] and EXAMPLES == 3
    same = merged({}, 35)
    assert (same.mismatches, same.max_lsb, same.examples) == (0, 0, [])
    assert first_difference([same]) is None
    assert "layer x: 5 of 105 values, up to 7 LSB" in (first_difference([same, record]) or "")


@pytest.mark.parametrize("event", [3, BATCH - 1, BATCH, 2 * BATCH + 4])
def test_all_layers_over_several_batches(event: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare_all` of a model of one value a jet, whose C-simulation is wrong in one event."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    import tensorflow as tf

    def simulate(_: object, part: np.ndarray, *__: object, **___: object) -> dict[str, np.ndarray]:
        return {"x": part + np.where(part == event * TYPE.lsb, TYPE.lsb, 0)}

    events = 2 * BATCH + 5
    inputs = (np.arange(events, dtype=np.float32) * TYPE.lsb)[:, None]
    x = tf.keras.Input((1,), name="x")
    node = SimpleNamespace(name="x", get_attr=lambda key, default=None: default)
    for name, stand_in in {
        "run_csim": simulate,
        "replay": lambda graph, parts: {"x": parts[0]},
        "output_type": lambda _: TYPE,
    }.items():
        monkeypatch.setattr(compare_module, name, stand_in)
    for pool in ("csim_pool", "process_pool"):
        monkeypatch.setattr(compare_module, pool, lambda _: nullcontext(), raising=False)
    graph, csim = SimpleNamespace(get_layers=lambda: [node]), SimpleNamespace(outputs=["x"])
    records, outputs = compare_module.compare_all(
        tf.keras.Model(x, x), graph, csim, inputs, 1, lambda _: None
    )
    assert outputs.shape == (events, 1)
    assert {r.pair for r in records} == {"keras/csim", "golden/csim"}
    for record in records:
        assert (record.events, record.values, record.mismatches) == (events, events, 1)
        assert [e.event for e in record.examples] == [event]


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (1, 1), (20,), (5, 4), (4, 5, 1)])
def test_shapes_are_compared(shape: tuple[int, ...]) -> None:
    """Also those that numpy would stretch to (4, 5)."""
    with pytest.raises(UserError, match=r"golden/csim: layer x: shapes differ, expected \(4, 5\)"):
        compared(np.zeros((4, 5)), np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_is_never_right(value: float) -> None:
    expected = np.zeros((4, 2))
    expected[2, 1] = value
    for pair in ((expected, np.zeros((4, 2))), (np.zeros((4, 2)), expected), (expected, expected)):
        record = compared(*pair)
        assert (record.mismatches, record.max_lsb) == (1, 255)  # the range of 8 bits
        assert "no finite number" in (first_difference([record]) or "")
        assert '"mismatches": 1' in Report(model="m", bit_accuracy=[record]).to_json()
