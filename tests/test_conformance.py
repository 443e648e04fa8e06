"""Keras, golden arithmetic and C-simulation give the same bits, for every layer, case and type."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from streaming import assert_loops_are_processes, log_streams

import salt_hls
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.hls.reader import read_graph
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.layers import KERAS_CLASSES, STEMS
from salt_hls.layers.cases import Case
from salt_hls.rtl.design import design_of, execute
from salt_hls.rtl.project import generate
from salt_hls.rtl.stream_project import generate_stream
from salt_hls.rtl.verilator import simulate, simulate_stream

CLASS_OF = dict(zip(STEMS, KERAS_CLASSES, strict=True))
EVENTS = 60


def cases_of(stem: str, particles_per_clock: int | None = None) -> tuple[Case, ...]:
    """Those of a layer; of a number of particles per clock those that can be streamed."""
    cases: tuple[Case, ...] = import_module(f"salt_hls.layers.{stem}.cases").CASES
    return tuple(case for case in cases if case.streams or not particles_per_clock)


def keras_layer(stem: str, case: Case, name: str) -> tf.keras.layers.Layer:
    return getattr(import_module(f"salt_hls.layers.{stem}.keras"), CLASS_OF[stem])(
        **case.layer, name=name
    )


def model_of(stem: str, cases: list[Case], seed: int = 0) -> tf.keras.Model:
    """All cases side by side: one model, one compilation."""
    inputs, outputs = [], []
    for i, case in enumerate(cases):
        x = [tf.keras.Input(shape, name=f"x{i}_{j}") for j, (shape, _) in enumerate(case.inputs)]
        inputs += x
        outputs.append(keras_layer(stem, case, f"y{i}")(x if len(x) > 1 else x[0]))
    model = tf.keras.Model(inputs, outputs)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        # Beyond the range of every weight type, so that clipping is seen.
        weight.assign(rng.normal(0, 0.7, weight.shape))
    for i, case in enumerate(cases):
        for name, values in case.weights.items():
            getattr(model.get_layer(f"y{i}"), name).assign(values)
    return model


def inputs_of(cases: list[Case], seed: int = 0) -> list[np.ndarray]:
    """Zeros, extremes, ties and random values on each input's grid."""
    arrays = []
    for i, case in enumerate(cases):
        for j, (shape, text) in enumerate(case.inputs):
            rows = shape if len(shape) > 1 else (1, *shape)
            types = (FixedType.parse(text),) * rows[-1]
            x = adversarial_inputs(rows[0], types, seed=seed + 10 * i + j)
            arrays.append(x[:EVENTS].reshape(-1, *shape))
    return arrays


def golden_outputs(model: tf.keras.Model, cases: list[Case], x: list[np.ndarray]) -> list[Any]:
    outputs, position = [], 0
    for i, case in enumerate(cases):
        layer = model.get_layer(f"y{i}")
        mine = [a.astype(np.float64) for a in x[position : position + len(case.inputs)]]
        position += len(case.inputs)
        outputs.append(layer.operation()(*mine))
    return outputs


def as_list(y: Any) -> list[np.ndarray]:
    return [np.asarray(a) for a in (y if isinstance(y, list) else [y])]


def assert_same(name: str, cases: list[Case], a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for case, left, right in zip(cases, a, b, strict=True):
        right = right.reshape(left.shape)
        where = np.argwhere(left != right)
        assert not len(where), (
            f"{name}, case {case.name!r}: {len(where)} of {left.size} values differ, first at "
            f"{where[0]}: {left[tuple(where[0])]} and {right[tuple(where[0])]}"
        )


def converted(
    model: tf.keras.Model, cases: list[Case], folder: Path, particles_per_clock: int | None
) -> Any:
    """hls4ml's graph: io_stream of so many particles per clock, or io_parallel for `None`."""
    salt_hls.register()
    config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
    types = [FixedType.parse(text) for case in cases for _, text in case.inputs]
    names = [t.name.split(":")[0] for t in model.inputs]
    for name, fixed_type in zip(names, types, strict=True):
        config["LayerName"][name]["Precision"]["result"] = str(fixed_type)
    graph = hls4ml.converters.convert_from_keras_model(
        model,
        hls_config=config,
        backend="Vitis",
        io_type="io_stream" if particles_per_clock else "io_parallel",
        output_dir=str(folder),
        write_weights_txt=False,
    )
    if particles_per_clock:
        salt_hls.stream(graph, particles_per_clock)
    return graph


def csim_outputs(
    model: tf.keras.Model,
    cases: list[Case],
    x: list[np.ndarray],
    folder: Path,
    particles_per_clock: int | None,
) -> tuple[list[np.ndarray], Any]:
    """The outputs of C-simulation; its streams are read and written as the loops say."""
    graph = converted(model, cases, folder, particles_per_clock)
    types = [FixedType.parse(text) for case in cases for _, text in case.inputs]
    graph.write()
    log = log_streams(folder / "firmware/ap_types")
    script = folder / "build_lib.sh"
    script.write_text(script.read_text().replace("-O3", "-O0"))  # halves the time it takes
    graph._compile()
    arrays = []
    for array, fixed_type, variable in zip(x, types, graph.get_input_variables(), strict=True):
        # What a partly filled transfer holds beyond the particles must not matter.
        flat = np.full((len(array), variable.size()), fixed_type.max, array.dtype)
        flat[:, : array[0].size] = array.reshape(len(array), -1)
        arrays.append(flat)
    # hls4ml's own: that of a streamed graph fills the transfers itself.
    predict = type(graph).predict
    outputs = as_list(predict(graph, arrays if len(arrays) > 1 else arrays[0]))
    if particles_per_clock:
        assert_loops_are_processes(graph, log.read_text().splitlines())
    shapes = [variable.shape for variable in graph.get_output_variables()]
    return [
        y.reshape(len(x[0]), -1)[:, : np.prod(shape)]
        for y, shape in zip(outputs, shapes, strict=True)
    ], graph


@pytest.mark.parametrize("particles_per_clock", [None, 1])
@pytest.mark.parametrize("stem", STEMS)
def test_every_case(stem: str, particles_per_clock: int | None, tmp_path: Path) -> None:
    cases = list(cases_of(stem, particles_per_clock))
    model, x = model_of(stem, cases), inputs_of(cases)
    keras = as_list(model(x))
    for case, y in zip(cases, keras, strict=True):
        if y[0].size > 1:
            assert np.unique(y).size > 2, f"case {case.name!r} is constant: it checks nothing"
    assert_same("keras/golden", cases, keras, golden_outputs(model, cases, x))
    simulated, graph = csim_outputs(model, cases, x, tmp_path, particles_per_clock)
    assert_same("golden/csim", cases, keras, simulated)
    replayed = read_graph(graph).run([a.astype(np.float64) for a in x])
    assert_same("csim/replay", cases, simulated, [replayed[f"y{i}"] for i in range(len(cases))])


def fixed_types(
    signed: bool | None = None, widths: tuple[int, int] = (3, 9)
) -> st.SearchStrategy[str]:
    sign = st.booleans() if signed is None else st.just(signed)
    return st.builds(
        lambda w, i, s, r, o: str(FixedType(w, i, s, r, o)),
        st.integers(*widths),
        st.integers(0, 5),
        sign,
        st.sampled_from(("TRN", "RND", "RND_CONV")),
        st.sampled_from(("WRAP", "SAT", "SAT_SYM")),
    )


UNSIGNED = ("exp", "sum", "reciprocal", "attention")


@st.composite
def retyped(draw: st.DrawFn, case: Case) -> Case:
    """The case with every type drawn anew, of the kinds the layer allows."""
    layer = dict(case.layer)
    for key in layer:
        if key.endswith("_type"):
            layer[key] = draw(fixed_types())
            if layer.get("elements"):
                layer[key] = str(
                    replace(FixedType.parse(layer[key]), rounding="RND", overflow="SAT")
                )
        elif key.endswith("_quantizer"):
            bits, integer = draw(st.integers(2, 7)), draw(st.integers(0, 2))
            layer[key] = f"quantized_bits({bits},{integer},alpha=1)"
        elif key == "types":
            layer[key] = {
                key: draw(fixed_types(signed=False if key in UNSIGNED else None))
                for key in layer["types"]
            }
    inputs = tuple((shape, draw(fixed_types())) for shape, _ in case.inputs)
    return replace(case, layer=layer, inputs=inputs)


def buildable(stem: str, case: Case) -> bool:
    """Whether the layer accepts these types (softmax needs room for its sum)."""
    try:
        layer = keras_layer(stem, case, "y")
        shapes = [tf.TensorShape((None, *shape)) for shape, _ in case.inputs]
        layer.build(shapes if len(shapes) > 1 else shapes[0])
    except UserError:
        return False
    return True


QUIET = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failing example is small as it is; shrinking takes minutes
)


@pytest.mark.parametrize("stem", STEMS)
def test_any_types_keras_and_golden(stem: str) -> None:
    @settings(QUIET, max_examples=25)
    @given(st.data(), st.integers(0, 1000))
    def check(data: st.DataObject, seed: int) -> None:
        case = data.draw(st.sampled_from(cases_of(stem)).flatmap(retyped))
        assume(buildable(stem, case))
        model, x = model_of(stem, [case], seed), inputs_of([case], seed)
        assert_same("keras/golden", [case], as_list(model(x)), golden_outputs(model, [case], x))

    check()


@pytest.mark.parametrize("particles_per_clock", [None, 3])
@pytest.mark.parametrize("stem", STEMS)
def test_any_types_golden_and_csim(
    stem: str, particles_per_clock: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(QUIET, max_examples=1)
    @given(
        st.tuples(*(retyped(c) for c in cases_of(stem, particles_per_clock))),
        st.integers(0, 1000),
    )
    def check(drawn: tuple[Case, ...], seed: int) -> None:
        cases = [case for case in drawn if buildable(stem, case)]
        assume(cases)
        model, x = model_of(stem, cases, seed), inputs_of(cases, seed)
        folder = tmp_path_factory.mktemp(stem)
        simulated, _ = csim_outputs(model, cases, x, folder, particles_per_clock)
        assert_same("golden/csim", cases, golden_outputs(model, cases, x), simulated)

    check()


# ---- RTL, of layers of one input over particles; attention is in the taggers of tests/rtl


def over_particles(stem: str, particles_per_clock: int | None = None) -> list[Case]:
    return [
        case
        for case in cases_of(stem, particles_per_clock)
        if [len(shape) for shape, _ in case.inputs] == [2]
    ]


IN_RTL = [stem for stem in STEMS if over_particles(stem)]


def pooled(stem: str, case: Case) -> tuple[tf.keras.Model, np.ndarray, np.ndarray]:
    """The layer and a maximum over its rows, with inputs and what must come out."""
    inner, (x,) = model_of(stem, [case]), inputs_of([case])
    pool = tf.keras.layers.GlobalMaxPooling1D(name="pool")
    (golden,) = golden_outputs(inner, [case], [x])
    return tf.keras.Model(inner.inputs, pool(inner.outputs[0])), x, golden.max(axis=1)


@pytest.mark.parametrize("particles_per_clock", [1, 3])
@pytest.mark.parametrize("stem", IN_RTL)
def test_units_of_every_case(stem: str, particles_per_clock: int, tmp_path: Path) -> None:
    for case in over_particles(stem, particles_per_clock):
        model, x, expected = pooled(stem, case)
        jets, particles, columns = x.shape
        lanes = min(particles_per_clock, particles)
        design = design_of(read_graph(converted(model, [case], tmp_path, lanes)))
        steps = design.units[0].steps
        # What the last transfer holds beyond the particles must not matter.
        whole = np.full((jets, steps * lanes, columns), FixedType.parse(case.inputs[0][1]).max)
        whole[:, :particles] = x
        found = execute(design, whole.reshape(jets, steps, -1))
        assert_same("golden/units", [case], [expected], [found])


@pytest.mark.slow
@pytest.mark.parametrize("particles_per_clock", [None, 1, 3])
@pytest.mark.parametrize("stem", IN_RTL)
def test_verilog(stem: str, particles_per_clock: int | None, tmp_path: Path) -> None:
    case = over_particles(stem)[0]
    model, x, expected = pooled(stem, case)
    graph = read_graph(converted(model, [case], tmp_path / "project", particles_per_clock))
    write = generate_stream if particles_per_clock else generate
    project = write(graph, tmp_path / "rtl", clock_ns=5)
    if particles_per_clock:
        runs = simulate_stream(project, x, tmp_path / "cache", gaps=(0, 50))
    else:
        runs = [simulate(project, x, tmp_path / "cache")]
    for run in runs:
        assert_same("golden/RTL", [case], [expected], [run.outputs])


@pytest.mark.parametrize("stem", STEMS)
def test_saved_and_loaded(stem: str, tmp_path: Path) -> None:
    cases = list(cases_of(stem))
    model, x = model_of(stem, cases), inputs_of(cases)
    before = as_list(model(x))
    for suffix in ("keras", "h5"):
        path = tmp_path / f"model.{suffix}"
        model.save(path)
        again = tf.keras.models.load_model(path, custom_objects=qkeras_objects())
        assert_same(suffix, cases, before, as_list(again(x)))


def qkeras_objects() -> dict[str, Any]:
    from qkeras.utils import _add_supported_quantized_objects

    objects: dict[str, Any] = {}
    _add_supported_quantized_objects(objects)
    return objects


@pytest.mark.parametrize("stem", STEMS)
def test_one_lsb_is_seen(stem: str) -> None:
    """The check itself: one value off by one LSB fails it."""
    case = cases_of(stem)[0]
    model, x = model_of(stem, [case]), inputs_of([case])
    text = (case.layer.get("types") or {}).get("output") or case.layer["output_type"]
    golden = golden_outputs(model, [case], x)
    wrong = golden[0].copy()
    wrong.flat[wrong.size // 2] += FixedType.parse(text).lsb
    with pytest.raises(AssertionError, match="1 of"):
        assert_same("check", [case], golden, [wrong])
