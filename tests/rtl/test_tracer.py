"""The replayed graph: symbolic arrays, golden arithmetic and C-simulation give the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import alkaid.converter
import numpy as np
import pytest
from alkaid.trace import trace

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.hls.reader import _STANDARD, read_graph
from salt_hls.rtl.tracer import HLS4MLTracer, symbols

from .graphs import INPUT, Q, convert, events, randomize, tagger

pytestmark = pytest.mark.filterwarnings("ignore:.*constraints.serialize:UserWarning")


def traced(graph: Any, values: np.ndarray) -> np.ndarray:
    """The traced program, run by alkaid's interpreter."""
    inputs, outputs = HLS4MLTracer(graph).trace()
    logic = trace(inputs, outputs, optimize=False)
    return logic.predict(values.reshape(len(values), -1))


def golden(graph: Any, values: np.ndarray) -> np.ndarray:
    *_, last = graph.run([values]).values()
    return last.reshape(len(values), -1)


def test_trace_of_a_tagger_equals_golden(tagger_graph: Graph) -> None:
    values = events((4, 3))
    assert np.array_equal(traced(tagger_graph, values), golden(tagger_graph, values))
    assert len(np.unique(golden(tagger_graph, values))) > 10


def test_trace_of_a_shallow_tagger_equals_golden(tmp_path: Path) -> None:
    graph, values = read_graph(convert(tagger(shallow=True), tmp_path)), events((4, 3))
    assert np.array_equal(traced(graph, values), golden(graph, values))
    assert len(np.unique(golden(graph, values))) > 10


def test_alkaid_finds_the_tracer_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        module, attr = "salt_hls.rtl.tracer", "HLS4MLTracer"

        @staticmethod
        def load() -> type:
            return HLS4MLTracer

    monkeypatch.setattr(alkaid.converter, "get_available_plugins", lambda: {"hls4ml": Entry})
    inputs, outputs = alkaid.converter.trace_model(convert(tagger(), tmp_path))
    assert inputs.shape == (12,) and outputs.shape == (3,)


def test_narrow_feature_types(tagger_graph: Graph) -> None:
    narrow = [FixedType.parse(f"ap_fixed<{w},4>") for w in (6, 7, 8)]
    inputs, _ = HLS4MLTracer(tagger_graph, feature_types=narrow).trace()
    assert [sum(v.kif) for v in np.asarray(inputs)[:3]] == [6, 7, 8]
    with pytest.raises(UserError, match="expected 3 types"):
        HLS4MLTracer(tagger_graph, feature_types=narrow[:2]).trace()
    with pytest.raises(UserError, match="does not fit"):
        HLS4MLTracer(tagger_graph, feature_types=[*narrow[:2], FixedType(9, 4)]).trace()


@pytest.mark.parametrize("choose", [np.maximum, np.minimum])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_larger_of_values_that_depend_on_each_other(choose: Any, sign: int) -> None:
    """a - (a - b) is known to have no sign; alkaid alone takes its highest bit for one."""
    x = symbols((2,), [FixedType.parse("ap_ufixed<4,4>")] * 2)
    values = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0)), axis=-1).reshape(-1, 2)

    def both(v: Any) -> tuple[Any, Any]:
        return v[..., :1], v[..., :1] - sign * v[..., 1:]

    for order in (slice(None), slice(None, None, -1)):
        logic = trace(x, choose(*both(x)[order]), optimize=False)
        assert np.array_equal(logic.predict(values), choose(*both(values)))


@pytest.mark.parametrize(
    ("equation", "shape"), [("...i,io->...o", (4, 3)), ("...ld,hl->...hd", (2, 3))]
)
@pytest.mark.parametrize("where", ["everywhere", "column", "row"])
def test_zero_weights(equation: str, shape: tuple[int, int], where: str) -> None:
    weights = np.random.default_rng(0).integers(-8, 8, shape) / 8.0
    weights[{"everywhere": ..., "column": np.s_[:, 1], "row": np.s_[1]}[where]] = 0
    x = symbols((3, 4), [INPUT] * 4)
    values = events((3, 4))
    logic = trace(x, np.einsum(equation, x, weights), optimize=False)
    expected = np.einsum(equation, values, weights).reshape(len(values), -1)
    assert np.array_equal(logic.predict(values.reshape(len(values), -1)), expected)


def _layers() -> Any:
    from tensorflow.keras import layers

    return layers


def _activated(x: Any, text: str, name: str) -> Any:
    from qkeras import QActivation

    return QActivation(text, name=name)(x)


def _dense(x: Any, width: int, name: str, kernel: str = Q) -> Any:
    from qkeras import QDense

    return QDense(width, kernel_quantizer=kernel, bias_quantizer=Q, name=name)(x)


def _conv(x: Any, name: str, **options: Any) -> Any:
    from qkeras import QConv1D

    return QConv1D(3, 3, kernel_quantizer=Q, bias_quantizer=Q, name=name, **options)(x)


def _two(x: Any, join: Any) -> Any:
    return join([_dense(x, 3, f"{join.name}_left"), _dense(x, 3, f"{join.name}_right")])


KERAS: dict[str, Callable[[Any, str], Any]] = {
    "relu": lambda x, name: _activated(_dense(x, 3, f"{name}_dense"), "quantized_relu(5,2)", name),
    "linear": lambda x, name: _activated(
        _dense(x, 3, f"{name}_dense"), "quantized_bits(5,2,alpha=1)", name
    ),
    "alpha": lambda x, name: _dense(
        _layers().Flatten(name=f"{name}_flat")(x), 3, name, "quantized_bits(4,0,alpha=0.5)"
    ),
    "flatten": lambda x, name: _dense(_layers().Flatten(name=name)(x), 2, f"{name}_dense"),
    "reshape": lambda x, name: _dense(_layers().Reshape((2, 6), name=name)(x), 3, f"{name}_dense"),
    "permute": lambda x, name: _layers().Permute((2, 1), name=name)(x),
    "max": lambda x, name: _layers().MaxPooling1D(2, name=name)(x),
    "max_stride": lambda x, name: _layers().MaxPooling1D(2, strides=1, name=name)(x),
    "mean": lambda x, name: _layers().AveragePooling1D(2, name=name)(x),
    "global_max": lambda x, name: _layers().GlobalMaxPooling1D(name=name)(x),
    "conv": lambda x, name: _conv(x, name),
    "conv_same": lambda x, name: _conv(x, name, padding="same"),
    "conv_stride": lambda x, name: _conv(x, name, strides=2),
    "batchnorm": lambda x, name: _layers().BatchNormalization(name=name)(x),
    "add": lambda x, name: _two(x, _layers().Add(name=name)),
    "subtract": lambda x, name: _two(x, _layers().Subtract(name=name)),
    "multiply": lambda x, name: _two(x, _layers().Multiply(name=name)),
    "average": lambda x, name: _two(x, _layers().Average(name=name)),
    "maximum": lambda x, name: _two(x, _layers().Maximum(name=name)),
    "minimum": lambda x, name: _two(x, _layers().Minimum(name=name)),
    "concatenate": lambda x, name: _two(x, _layers().Concatenate(name=name)),
    "concatenate_rows": lambda x, name: _two(x, _layers().Concatenate(axis=1, name=name)),
}
"""Every standard layer, by the name that its last layer gets; one project holds them all."""


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Their graph, and what its C-simulation gives for some jets, by name."""
    import tensorflow as tf

    given = tf.keras.Input((4, 3), name="particles")
    model = tf.keras.Model(given, [make(given, name) for name, make in KERAS.items()])
    randomize(model)
    folder = tmp_path_factory.mktemp("standard") / "project"
    graph = convert(model, folder)
    graph.write()
    script = folder / "build_lib.sh"
    assert "-O3" in script.read_text()
    script.write_text(script.read_text().replace("-O3", "-O0"))
    graph._compile()
    values = np.ascontiguousarray(events((4, 3)), np.float32)
    return graph, dict(zip(graph.outputs, graph.predict(values), strict=True))


def test_standard_layers_equal_csim(standard: Any) -> None:
    graph, simulated = standard
    results = read_graph(graph).run([events((4, 3))])
    for name, values in simulated.items():
        got = results[name]
        assert np.array_equal(values.reshape(got.shape), got), name
        assert len(np.unique(got)) > 5, name
    assert len(simulated) == len(KERAS)


def test_symbols_of_standard_layers_equal_csim(standard: Any) -> None:
    graph, simulated = standard
    expected = [values.reshape(len(values), -1) for values in simulated.values()]
    assert np.array_equal(traced(graph, events((4, 3))), np.hstack(expected))


def test_every_standard_layer_is_tested(standard: Any) -> None:
    graph, _ = standard
    used = {node.class_name for node in graph.get_layers()}
    assert _STANDARD.keys() - used == {"Clone"}  # of io_stream, see test_streams.py


@pytest.mark.parametrize("name", ["softmax", "tanh"])
def test_layers_without_exact_arithmetic_are_refused(name: str, tmp_path: Path) -> None:
    import tensorflow as tf

    given = tf.keras.Input((4, 3), name="particles")
    model = tf.keras.Model(given, tf.keras.layers.Activation(name, name="act")(given))
    graph = convert(model, tmp_path / "project")
    with pytest.raises(UserError, match=r"layer act: .* has no exact arithmetic here"):
        HLS4MLTracer(graph).trace()
