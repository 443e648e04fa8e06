"""Every layer's values in Keras, in the golden arithmetic and in C-simulation, compared exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.hls.csim import Csim, run_csim
from salt_hls.report.records import BitAccuracy, Mismatch
from salt_hls.system.processes import process_pool

EXAMPLES = 3
BATCH = 1000
"""Jets compared at a time; bounds the memory."""

Layers = dict[str, NDArray[np.float64]]


def compare_all(
    model: tf.keras.Model,
    graph: Graph,
    csim: Csim,
    inputs: NDArray[np.float32],
    workers: int,
    progress: Callable[[int], None],
) -> tuple[list[BitAccuracy], NDArray[np.float64]]:
    """Bit accuracy of every layer, keras/csim and golden/csim, and the csim outputs.

    inputs: (events, ...) on the input grid. The outputs (events, values) are those of all of the
    model's outputs, one after the other. A layer of the Keras model that became several in the
    graph is compared where its output is; its other parts have no partner in Keras.
    """
    nodes = {node.name: node for node in graph.nodes}
    records: dict[tuple[str, str], BitAccuracy] = {}
    outputs = []
    with process_pool(workers) as pool:
        for first in range(0, len(inputs), BATCH):
            part = inputs[first : first + BATCH]
            simulated = run_csim(csim, part, pool, trace=True, progress=progress)
            outputs.append(flat([simulated[name] for name in csim.outputs]))
            keras = keras_layers(model, part)
            golden = graph.run([part.astype(np.float64)])
            for name, got in simulated.items():
                node = nodes[name]
                pairs = {"golden/csim": golden[name]}
                if (of_keras := keras.get(node.keras_layer)) is not None:
                    if node.kind == "GlobalPooling1D":  # with keepdims
                        of_keras = of_keras.reshape(got.shape)
                    pairs["keras/csim"] = of_keras
                for pair, expected in pairs.items():
                    new = compare(pair, name, expected, got, node.output.type, first)
                    known = records.get((pair, name))
                    records[pair, name] = new if known is None else _merged(known, new)
    by_pair = sorted(records.items(), key=lambda record: record[0][0] != "keras/csim")
    return [record for _, record in by_pair], np.concatenate(outputs)


def flat(outputs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The outputs (events, *shape) of a model as (events, values), one after the other."""
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


def split_outputs(graph: Graph, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The inverse of `flat`: the outputs (events, *shape) of a graph, in order."""
    parts = np.split(values, np.cumsum([tensor.size for tensor in graph.outputs])[:-1], axis=1)
    pairs = zip(parts, graph.outputs, strict=True)
    return [part.reshape(-1, *tensor.shape) for part, tensor in pairs]


def keras_layers(model: tf.keras.Model, inputs: NDArray[np.float32]) -> Layers:
    """Output of every layer of the Keras model, by name."""
    probe = tf.keras.Model(model.inputs, {layer.name: layer.output for layer in model.layers})
    outputs = probe(tf.constant(inputs), training=False)
    return {name: value.numpy().astype(np.float64) for name, value in outputs.items()}


def compare(
    pair: str,
    layer: str,
    expected: NDArray[np.float64],
    got: NDArray[np.float64],
    fixed_type: FixedType,
    first_event: int = 0,
) -> BitAccuracy:
    """Counts the values that differ at all; differences are in steps of the layer's type.

    What is not a finite number differs, by the whole range of the type. Raises `UserError` when
    the shapes are not the same.
    """
    if expected.shape != got.shape:
        raise UserError(
            f"{pair}: layer {layer}: shapes differ, expected {expected.shape}, got {got.shape}"
        )
    differs = (expected != got) | ~np.isfinite(expected)
    where = np.argwhere(differs)
    examples = [
        Mismatch(
            event=first_event + int(place[0]),
            index=[int(i) for i in place[1:]],
            expected=_finite(expected[tuple(place)]),
            got=_finite(got[tuple(place)]),
        )
        for place in where[:EXAMPLES]
    ]
    with np.errstate(invalid="ignore"):
        apart = np.abs(expected[differs] - got[differs])
    apart[~np.isfinite(apart)] = fixed_type.max - fixed_type.min
    return BitAccuracy(
        pair=pair,
        layer=layer,
        events=len(expected),
        values=expected.size,
        mismatches=len(where),
        max_lsb=float(apart.max(initial=0) / fixed_type.lsb),
        examples=examples,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _merged(a: BitAccuracy, b: BitAccuracy) -> BitAccuracy:
    return BitAccuracy(
        pair=a.pair,
        layer=a.layer,
        events=a.events + b.events,
        values=a.values + b.values,
        mismatches=a.mismatches + b.mismatches,
        max_lsb=max(a.max_lsb, b.max_lsb),
        examples=[*a.examples, *b.examples][:EXAMPLES],
    )


def first_difference(records: list[BitAccuracy]) -> str | None:
    """One line about the first layer that differs, or `None` when every bit agrees."""
    for record in records:
        if record.mismatches:
            example = record.examples[0]
            expected, got = (
                "no finite number" if value is None else f"{value:g}"
                for value in (example.expected, example.got)
            )
            return (
                f"{record.pair}: first difference in layer {record.layer}: {record.mismatches} of "
                f"{record.values} values, up to {record.max_lsb:g} LSB; event {example.event} "
                f"index {example.index}: expected {expected}, got {got}"
            )
    return None
