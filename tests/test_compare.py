"""Bit for bit: what counts as a difference, where it is, and that every batch counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from salt_hls.check import compare as compare_module
from salt_hls.check.compare import (
    EXAMPLES,
    compare,
    compare_all,
    first_difference,
    flat,
    split_outputs,
)
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph, Node
from salt_hls.graph.tensor import Tensor
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.report.records import BitAccuracy, Mismatch, Report

TYPE = FixedType.parse("ap_fixed<8,3>")
GOLDEN = "golden/csim"


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


def test_every_difference_counts() -> None:
    expected = np.zeros((6, 2, 3))
    got = expected.copy()
    got[1, 0, 2], got[4, 1, 1], got[4, 1, 2], got[5, 0, 0] = 0.25, -0.5, 1e-9, 1
    record = compare(GOLDEN, "x", expected, got, TYPE, first_event=100)
    assert record == BitAccuracy(
        pair=GOLDEN, layer="x", events=6, values=36, mismatches=4, max_lsb=32,
        examples=[
            Mismatch(event=101, index=[0, 2], expected=0, got=0.25),
            Mismatch(event=104, index=[1, 1], expected=0, got=-0.5),
            Mismatch(event=104, index=[1, 2], expected=0, got=1e-9),
        ],
    )  # fmt: skip
    assert compare(GOLDEN, "x", expected, got, TYPE).examples[0].event == 1
    assert compare(GOLDEN, "x", got, expected, TYPE).examples[1].expected == -0.5
    assert compare(GOLDEN, "x", got, expected, TYPE).max_lsb == 32
    same = compare(GOLDEN, "y", got, got, TYPE)
    assert same == BitAccuracy(
        pair=GOLDEN, layer="y", events=6, values=36, mismatches=0, max_lsb=0, examples=[]
    )


def test_the_first_layer_that_differs_is_told() -> None:
    expected = np.arange(8.0).reshape(2, 4)
    good = compare("keras/csim", "a", expected, expected, TYPE)
    got = expected.copy()
    got[1, 2:] = 6.5, -1
    bad = compare(GOLDEN, "b", expected, got, TYPE, first_event=10)
    worse = compare(GOLDEN, "c", expected, -expected, TYPE)
    assert first_difference([]) is None and first_difference([good, good]) is None
    assert first_difference([good, bad, worse]) == (
        "golden/csim: first difference in layer b: 2 of 8 values, up to 256 LSB; event 11 "
        "index [2]: expected 6, got 6.5"
    )


Play = Callable[..., tuple[list[BitAccuracy], Any, list[Any]]]


def node(name: str, kind: FixedType, of: str = "Dense", keras_layer: str = "") -> Node:
    output = Tensor(name, (2,), kind)
    return Node(name, of, None, (), (output,), True, keras_layer or name)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Compares a "graph" of two layers, the inputs and their doubles, three jets at a time.

    `keras` and `golden` change what these give, as functions of the first jet and the layers.
    """

    def run(
        jets: int,
        keras: Callable[[int, dict[str, Any]], None] = lambda first, layers: None,
        golden: Callable[[int, dict[str, Any]], None] = lambda first, layers: None,
    ) -> tuple[list[BitAccuracy], Any, list[Any]]:
        calls: list[Any] = []

        def layers(x: Any) -> dict[str, Any]:
            x = np.asarray(x, np.float64)
            return {"one": x.copy(), "two": 2 * x}

        def changed(change: Callable[[int, dict[str, Any]], None], x: Any) -> dict[str, Any]:
            values = layers(x)
            change(int(x[0, 0]), values)
            return values

        @contextmanager
        def pool(workers: int) -> Iterator[str]:
            yield f"pool of {workers}"

        def simulate(given: Any, x: Any, pool: Any, trace: bool, progress: Any) -> dict[str, Any]:
            assert given is csim
            calls.append((len(x), pool, trace))
            progress(len(x))
            return layers(x)

        class Net(Graph):
            def run(self, inputs: Any, observers: Any = None) -> dict[str, Any]:
                assert [x.dtype for x in inputs] == [np.float64]
                return changed(golden, inputs[0])

        csim = SimpleNamespace(outputs=["two"])
        nodes = (node("one", FixedType(8, 8)), node("two", FixedType(8, 7)))
        net = Net(nodes, (), (), "io_parallel")
        monkeypatch.setattr(compare_module, "BATCH", 3)
        monkeypatch.setattr(compare_module, "process_pool", pool)
        monkeypatch.setattr(compare_module, "run_csim", simulate)

        def keras_layers(model: Any, x: Any) -> dict[str, Any]:
            assert model == "model"
            return changed(keras, x)

        monkeypatch.setattr(compare_module, "keras_layers", keras_layers)
        inputs = np.repeat(np.arange(jets, dtype=np.float32)[:, None], 2, axis=1)
        records, outputs = compare_all("model", net, csim, inputs, 2, calls.append)
        return records, outputs, calls

    return run


def test_all_jets_of_all_batches_are_compared(play: Play) -> None:
    records, outputs, calls = play(8)
    assert [(r.pair, r.layer) for r in records] == [
        ("keras/csim", "one"), ("keras/csim", "two"), (GOLDEN, "one"), (GOLDEN, "two"),
    ]  # fmt: skip
    assert all((r.events, r.values, r.mismatches, r.max_lsb) == (8, 16, 0, 0) for r in records)
    assert np.array_equal(outputs, 2.0 * np.arange(8)[:, None] * np.ones((1, 2)))
    assert calls == [
        (3, "pool of 2", True), 3, (3, "pool of 2", True), 3,
        (2, "pool of 2", True), 2,
    ]  # fmt: skip


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_difference_in_any_batch_is_reported(batch: int, play: Play) -> None:
    def wrong(first: int, layers: dict[str, Any]) -> None:
        if first == 3 * batch:
            layers["two"][1, 0] += 1.5

    for pair, records in (
        ("keras/csim", play(8, keras=wrong)[0]),
        (GOLDEN, play(8, wrong, wrong)[0]),
    ):
        record = next(r for r in records if (r.pair, r.layer) == (pair, "two"))
        assert (record.mismatches, record.events, record.max_lsb) == (1, 8, 3)
        assert [(e.event, e.index) for e in record.examples] == [(3 * batch + 1, [0])]
        assert all(r.mismatches == 0 for r in records if r.layer == "one")


def test_batches_are_merged(play: Play) -> None:
    """The largest difference of all, the sum of the counts, and the first examples."""

    def wrong(first: int, layers: dict[str, Any]) -> None:
        layers["one"][:2] -= {0: 1.0, 3: 5.0, 6: 2.0}[first]

    records, _, _ = play(8, golden=wrong)
    assert [r.mismatches for r in records] == [0, 0, 12, 0]
    record = records[2]
    assert (record.events, record.values, record.max_lsb) == (8, 16, 5)
    assert [(e.event, e.index[0]) for e in record.examples] == [(0, 0), (0, 1), (1, 0)]
    assert len(record.examples) == EXAMPLES


def test_layers_that_are_others_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name, with a shape kept by keepdims, with no partner; several outputs."""

    nodes = (
        node("part", TYPE),
        node("whole", TYPE, keras_layer="layer"),
        node("pool", TYPE, "GlobalPooling1D"),
    )
    csim: Any = SimpleNamespace(outputs=["pool", "whole"])
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    wide = np.asarray(x, np.float64)
    simulated = {"part": wide, "whole": -wide[:, :2], "pool": wide}
    off = simulated["whole"] + TYPE.lsb
    stand_ins = {
        "process_pool": lambda workers: nullcontext(),
        "run_csim": lambda *_, **__: simulated,
        "keras_layers": lambda model, inputs: {"layer": off, "pool": wide.reshape(4, 1, 3)},
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(compare_module, name, stand_in)
    monkeypatch.setattr(Graph, "run", lambda graph, inputs: simulated)
    graph = Graph(nodes, (), (), "io_parallel")
    records, outputs = compare_all("model", graph, csim, x, 1, lambda done: None)
    assert [(r.pair, r.layer, r.mismatches) for r in records] == [
        ("keras/csim", "whole", 8), ("keras/csim", "pool", 0),
        (GOLDEN, "part", 0), (GOLDEN, "whole", 0), (GOLDEN, "pool", 0),
    ]  # fmt: skip
    assert np.array_equal(outputs, np.hstack([wide, -wide[:, :2]]))


def test_outputs_one_after_the_other() -> None:
    parts = [np.arange(24.0).reshape(4, 3, 2), np.arange(4.0).reshape(4, 1), np.ones((4, 5))]
    values = flat(parts)
    assert values.shape == (4, 12) and values[1].tolist() == [*range(6, 12), 1, *[1] * 5]
    outputs = tuple(Tensor(str(i), part.shape[1:], TYPE) for i, part in enumerate(parts))
    again = split_outputs(Graph((), (), outputs, "io_parallel"), values)
    assert all(np.array_equal(a, b) for a, b in zip(again, parts, strict=True))


def test_every_keras_layer_is_asked_for_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for TensorFlow, which does not survive the fork of a mutation run."""

    class Model:
        def __init__(self, given: Any, outputs: dict[str, Any]) -> None:
            assert given in ("x", ["x"])
            self.outputs = outputs

        def __call__(self, x: Any, training: bool) -> dict[str, Any]:
            assert training is False
            return {
                name: SimpleNamespace(numpy=lambda factor=factor: factor * x)
                for name, factor in self.outputs.items()
            }

    def constant(values: Any) -> Any:
        assert values.dtype == np.float32
        return values

    layers = [SimpleNamespace(name="a", output=1), SimpleNamespace(name="b", output=2)]
    keras = SimpleNamespace(keras=SimpleNamespace(Model=Model), constant=constant)
    monkeypatch.setattr(compare_module, "tf", keras)
    model: Any = SimpleNamespace(input="x", inputs=["x"], layers=layers)
    found = compare_module.keras_layers(model, np.float32([[0.1], [3]]))
    assert list(found) == ["a", "b"] and found["b"].dtype == np.float64
    assert np.array_equal(found["b"], 2 * found["a"])


def test_adversarial_inputs() -> None:
    types = (FixedType(4, 2, signed=False), FixedType(5, 3), FixedType(3, 0))
    x = adversarial_inputs(6, types)
    assert x.shape == (157, 6, 3) and x.dtype == np.float32
    assert all(t.contains(x[..., i]) for i, t in enumerate(types))
    low, high = np.array([t.min for t in types]), np.array([t.max for t in types])
    zero, least, most, alternating, other, alone, steps = x[:7]
    assert not zero.any() and np.all(least == low) and np.all(most == high)
    assert np.all(alternating[::2] == low) and np.all(alternating[1::2] == high)
    assert np.all(other[::2] == high) and np.all(other[1::2] == low)
    assert np.all(alone[0] == high) and not alone[1:].any()
    assert np.all(steps == [t.lsb for t in types])
    assert np.all(x[7:27] == x[7:27, :1]) and len(np.unique(x[7:27], axis=0)) > 15
    assert np.all(x[27:127].std(axis=1).max(axis=-1) > 0)
    assert not x[127:, 3:].any() and np.all(x[127:, :3].any(axis=(0, 2)))
    for i, t in enumerate(types):  # the whole grid, its ends too
        grid = np.arange(t.min, t.max + t.lsb, t.lsb)
        assert np.array_equal(np.unique(x[27:127, :, i]), grid)
    assert np.array_equal(x, adversarial_inputs(6, types))
    assert not np.array_equal(x, adversarial_inputs(6, types, seed=1))
