"""Saved Keras models of ordinary QKeras parts: what can be built exactly is built."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from alkaid.trace import trace
from conftest import without_progress
from qkeras import (
    QActivation,
    QDense,
    binary,
    quantized_bits,
    quantized_po2,
    quantized_relu,
    ternary,
)

from salt_hls.check.compare import first_difference, flat, split_outputs
from salt_hls.check.diagnose import diagnose
from salt_hls.check.regression import golden_of
from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.firmware.bench import bench
from salt_hls.firmware.build import build_firmware, checked_firmware
from salt_hls.fixed import FixedType
from salt_hls.hls.convert import convert
from salt_hls.hls.lower import lower
from salt_hls.hls.names import top_name
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.models import tagger as tagger_module
from salt_hls.models.build import snap_weights
from salt_hls.models.tagger import hard_inputs, load_tagger, sample_inputs
from salt_hls.report.budget import load_budget
from salt_hls.rtl.build import Options, build_rtl, estimate
from salt_hls.rtl.design import design_of, execute
from salt_hls.rtl.tracer import HLS4MLTracer

L = tf.keras.layers
BUDGET = load_budget("template")
GRID = "quantized_bits(6,1,alpha=1)"
INPUT = "ap_fixed<7,3>"
Make = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("few_jets")


def quiet(text: str, done: int, total: int) -> None:
    pass


def dense(units: int, name: str, kernel: Any = GRID, bias: Any = GRID, **options: Any) -> Any:
    options.setdefault("kernel_initializer", "zeros")
    return QDense(units, kernel_quantizer=kernel, bias_quantizer=bias, name=name, **options)


def randomized(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def saved(folder: Path, model: tf.keras.Model, name: str = "mine.keras", **config: Any) -> Path:
    """The model's file, with a YAML beside it unless `inputs=None`."""
    path = folder / name
    randomized(model).save(path)
    config.setdefault("inputs", {"type": INPUT})
    if config["inputs"] is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    return path


# ---- models that are built


def particles() -> tf.keras.Model:
    """Maxima of what has no declared type, activations in dense layers, a sum of three, outputs."""
    given = tf.keras.Input((5, 3), name="input")
    x = dense(4, "relu", activation="relu")(given)
    y = dense(4, "bits", activation=quantized_bits(6, 2, alpha=1))(x)
    z = dense(4, "embed/a-b", activation=quantized_relu(4, 1))(y)
    three = L.Add(name="op")([x, y, z])
    pooled = L.GlobalMaxPooling1D(name="pool")(three)
    kept = L.GlobalMaxPooling1D(name="kept", keepdims=True)(dense(3, "embed_linear")(z))
    first = L.GlobalMaxPooling1D(name="first")(given)
    return tf.keras.Model(
        given,
        {"jet": dense(3, "jet")(pooled), "each": three, "kept": kept, "first": [first, y]},
    )


def weights() -> tf.keras.Model:
    """Every grid of weights; their sums alternate with activations that keep them narrow."""
    x = given = tf.keras.Input((4,), name="jets")
    quantizers = {
        "ternary": ternary(alpha=1),
        "threshold": ternary(alpha=1, threshold=0.6),
        "binary": binary(alpha=1),
        "zero_one": binary(use_01=True, alpha=1),
        "one_bit": quantized_bits(1, 0, alpha=1),
        "po2": quantized_po2(4),
        "po2_most": quantized_po2(4, max_value=0.5),
        "symmetric": quantized_bits(3, 0, symmetric=1, alpha=1),
    }
    for name, quantizer in quantizers.items():
        bias = {"bias": quantizer, "use_bias": name != "zero_one"}
        x = dense(4, name, quantizer, **bias)(x)
        x = QActivation(quantized_bits(7, 3, keep_negative=name != "po2"), name=f"{name}_q")(x)
    return tf.keras.Model(given, x)


def mlp() -> tf.keras.Model:
    """The classic: a Sequential of vectors, quantizers as texts, no declared output type."""
    q = "quantized_bits(6,0,alpha=1)"
    return tf.keras.Sequential(
        [
            tf.keras.Input((16,)),
            dense(8, "fc1", q, q),
            QActivation("quantized_relu(6)", name="relu1"),
            L.Dropout(0.2, name="drop"),
            dense(6, "fc2", q, q, activation="relu"),
            L.ReLU(name="again"),
            L.Activation("linear", name="nothing"),
            dense(5, "axis", q, q),
        ]
    )


def merges() -> tf.keras.Model:
    """Every merge, of many, of values that depend on each other; other shapes of the values."""
    given = tf.keras.Input((4, 3), name="x")
    a, b = (QActivation(quantized_relu(4, 2), name=f"{n}_q")(dense(3, n)(given)) for n in "ab")
    less = L.Subtract(name="less")([a, b])
    both = [
        L.Maximum(name="max")([a, less, b]),
        L.Minimum(name="min")([less, b]),
        L.Multiply(name="times")([a, b]),
        L.Add(name="twice")([a, a]),
    ]
    joined = L.Concatenate(name="joined")(both)
    rows = L.Permute((2, 1), name="perm")(L.Concatenate(axis=1, name="rows")([less, b]))
    vector = L.Flatten(name="vector")(less)
    square = L.Reshape((6, 2), name="square")(vector)
    return tf.keras.Model(
        given, [joined, dense(2, "of_rows")(rows), rows, dense(2, "of_vector")(vector), square]
    )


def smallest() -> tf.keras.Model:
    """One particle of one feature; outputs that are the input, or one another."""
    given = tf.keras.Input((1, 1), name="main")
    x = L.Activation("relu", name="alone")(given)
    same = L.Dropout(0.5, name="same")(x)
    return tf.keras.Model(given, (given, x, same, dense(1, "one")(given)))


@pytest.mark.parametrize("make", [particles, weights, mlp, merges, smallest])
def test_built_exactly(
    make: Callable[[], tf.keras.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras, golden and C-simulation at every layer; the computation of the RTL."""
    monkeypatch.setattr(tagger_module, "DRAWN", 300)
    path = saved(tmp_path, make(), "mine.h5" if make is mlp else "mine.keras")
    report = build_firmware(str(path), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
    assert first_difference(report.bit_accuracy) is None
    tagger = load_tagger(str(path))
    shape = tagger.shape
    assert (report.n_particles, report.n_partitions, report.physics) == (
        shape[0] if len(shape) == 2 else None,
        None,
        None,
    )
    compared = {record.layer for record in report.bit_accuracy if record.pair == "keras/csim"}
    moved = (L.InputLayer, L.Dropout, L.Flatten, L.Reshape)
    expected = [
        layer
        for layer in tagger.quantized.layers
        if not isinstance(layer, moved) and layer.name != "nothing"
    ]
    ends = lower(tagger.quantized, FixedType.parse(INPUT)).sources
    assert {layer.name for layer in expected} <= {ends[name] for name in compared}
    assert all(r.events == 300 + 157 for r in report.bit_accuracy)

    folder = tmp_path / "build" / "mine"
    simulated = np.load(folder / "csim" / "simulated.npz")
    graph = convert(tagger.quantized, FixedType.parse(INPUT), "mine", tmp_path / "again").graph
    keras = tf.nest.flatten(tagger.quantized(simulated["inputs"]))
    parts = split_outputs(graph, simulated["outputs"])
    for part, wanted in zip(parts, keras, strict=True):
        assert np.array_equal(part, wanted) and np.unique(part).size > 2
    logic = trace(*HLS4MLTracer(graph, feature_types=tagger.feature_types).trace(), optimize=False)
    rtl = logic.predict(simulated["inputs"].reshape(457, -1).astype(np.float64))
    assert np.array_equal(rtl, simulated["outputs"])
    if make is particles:
        assert_testbench_passes(folder / "firmware", top_name("mine"), tmp_path / "testbench")


def assert_testbench_passes(project: Path, top: str, program: Path) -> None:
    """As the vendor's tools run it, on every output."""
    sources = [f"{top}_test.cpp", f"firmware/{top}.cpp"]
    flags = ["-std=c++0x", "-w", "-Ifirmware/ap_types"]
    subprocess.run(["g++", *flags, *sources, "-o", program], cwd=project, check=True)
    done = subprocess.run([program], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " 0 of " in done.stdout


def two_headed() -> tf.keras.Model:
    x = given = tf.keras.Input((6,), name="features")
    x = QActivation(quantized_relu(5, 1), name="hidden_relu")(dense(5, "hidden")(x))
    return tf.keras.Model(given, {"mass": dense(1, "mass")(x), "logits": dense(4, "logits")(x)})


@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
def test_rtl_figures_and_budget_of_an_mlp(
    io_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagger_module, "DRAWN", 100)
    model = two_headed()
    if io_type == "io_stream":
        model = tf.keras.Model(model.inputs, model.get_layer("logits").output)
    path = saved(tmp_path, model, firmware={"clock_ns": 3, "io_type": io_type})
    made = checked_firmware(str(path), None, tmp_path / "build", BUDGET, 1, quiet)
    said: list[str] = []
    report = estimate(made, Options(), BUDGET, said.append)
    assert report.synthesis[0].lut and report.clock_ns == 3
    if io_type == "io_stream":  # its units; their Verilog is simulated in tests/rtl
        outputs = execute(design_of(made.graph), made.inputs[:, None].astype(float))
        assert np.array_equal(outputs, made.outputs)
        assert report.synthesis[0].ii_cycles == 1 and report.io_type == io_type
        return
    _, seen, report = build_rtl(
        made, Options(), BUDGET, tmp_path / "cache", 2, lambda what, *_: said.append(what)
    )
    bits = {r.layer: r for r in report.bit_accuracy if r.pair == "csim/rtl"}
    assert set(bits) == {"mass", "logits"}
    assert all(r.events == 257 and not r.mismatches for r in bits.values())
    assert seen.ii_cycles == 1 and report.budget is not None
    assert "<html" in (made.folder / "report.html").read_text()


@pytest.mark.slow
def test_golden_and_bench_of_an_mlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagger_module, "DRAWN", 500)
    path = saved(tmp_path, two_headed())
    made = checked_firmware(str(path), "Vivado", tmp_path / "build", BUDGET, 2, quiet)
    inputs, labels = sample_inputs(made.tagger)
    assert labels is None and FixedType.parse(INPUT).contains(inputs.astype(float))
    assert {inputs.min(), inputs.max()} == {-4, 4 - 2**-4}, "the whole grid"
    found = golden_of(made)
    keras = tf.nest.flatten(made.tagger.quantized(inputs))
    steps = [tensor.type.lsb for tensor in made.graph.outputs]
    wanted = flat([np.asarray(y, float) / step for y, step in zip(keras, steps, strict=True)])
    assert np.array_equal(found.logits, wanted)
    assert set(found.digests) == {"mine.keras", "mine.yaml"}
    measured = bench(str(path), tmp_path / "bench.json", quiet)
    assert measured["jets"] == 500 and measured["model"] == "mine"


# ---- how they are rewritten


def lowered_types(model: tf.keras.Model, given: str = INPUT) -> dict[str, str]:
    snap_weights(randomized(model))
    low = lower(model, FixedType.parse(given))
    return {name: str(kind) for name, kind in low.types.items()}


def test_types_without_a_declaration_are_the_narrowest() -> None:
    given = tf.keras.Input((2,), name="x")
    layer = dense(2, "sum")
    model = tf.keras.Model(given, L.Activation("relu", name="relu")(layer(given)))
    randomized(model)
    layer.kernel.assign([[1.0, 0.5], [-0.25, 0.0]])
    layer.bias.assign([0.75, 0.0])
    types = lower(model, FixedType.parse("ap_ufixed<2,2>")).types
    # 1 x - 1/4 y + 3/4 with x, y in 0 ... 3, on steps of 2^-4: 0 ... 3.75
    assert str(types["sum"]) == "ap_ufixed<6,2>" and str(types["relu"]) == "ap_ufixed<6,2>"


def test_a_sum_that_float32_cannot_hold_depends_on_the_weights() -> None:
    """The classic grid of 16 bits passes with weights of 6; not with all of them at their ends."""
    model = tf.keras.Sequential([tf.keras.Input((16,)), dense(2, "fc")])
    assert lowered_types(model, "ap_fixed<16,6>")
    layer = model.get_layer("fc")
    layer.kernel.assign(np.full((16, 2), 1.9375, np.float32))
    with pytest.raises(UserError, match=r"layer fc: its sum needs 25 bits.*24"):
        lower(model, FixedType.parse("ap_fixed<17,6>"))


def test_rounding_that_float32_cannot_hold() -> None:
    x = given = tf.keras.Input((2,), name="x")
    x = QActivation("quantized_bits(20,0,alpha=1)", name="fine")(x)
    with pytest.raises(UserError, match="layer fine: its rounding needs"):
        lowered_types(tf.keras.Model(given, x), "ap_fixed<12,10>")


@pytest.mark.parametrize(
    ("join", "says"),
    [
        (L.Concatenate(name="bad"), "layer bad: Concatenate has no io_stream form"),
        (L.Flatten(name="bad"), "layer bad: Reshape has no io_stream form"),
        (L.GlobalMaxPooling1D(keepdims=True, name="bad"), "layer bad: Reshape has no io_stream"),
    ],
)
def test_what_streams_cannot_do(join: Any, says: str, tmp_path: Path) -> None:
    given = tf.keras.Input((4, 3), name="x")
    y = dense(3, "y")(given)
    model = tf.keras.Model(given, join([y, given] if isinstance(join, L.Concatenate) else y))
    with pytest.raises(UserError) as error:
        convert(model, FixedType.parse(INPUT), "m", tmp_path / "p", io_type="io_stream")
    assert says in str(error.value) and "use io_type io_parallel" in str(error.value)


def test_merges_of_other_shapes_are_refused() -> None:
    given = tf.keras.Input((4, 3), name="x")
    row = L.GlobalMaxPooling1D(keepdims=True, name="row")(given)
    model = tf.keras.Model(given, L.Add(name="sum")([given, row]))
    with pytest.raises(UserError, match=r"layer sum: Add of shapes \(4, 3\), \(1, 3\)"):
        lowered_types(model)


@pytest.mark.parametrize("name", ["reuse_factor", "function_cpp", "weight_data", "axis", "int"])
def test_layers_called_like_settings_of_hls4ml(name: str, tmp_path: Path) -> None:
    given = tf.keras.Input((4, 3), name="input")
    x = L.Concatenate(name="joined")([dense(3, name)(given), given])
    model = randomized(tf.keras.Model(given, x))
    snap_weights(model)
    graph = convert(model, FixedType.parse(INPUT), "m", tmp_path / "p").graph
    values = np.random.default_rng(0).integers(-64, 64, (50, 4, 3)) / 16
    *_, last = graph.run([values]).values()
    assert np.array_equal(last, model(values.astype(np.float32)))


# ---- the input grid


def test_a_missing_grid_is_written_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "salt_hls")
    given = tf.keras.Input((8, 3), name="x")
    model = tf.keras.Model(given, dense(5, "y")(L.GlobalMaxPooling1D(name="pool")(given)))
    path = saved(tmp_path, model, inputs=None)
    tagger = load_tagger(str(path))
    beside = path.with_suffix(".yaml")
    salt_p4 = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).inputs
    assert tagger.config.inputs == salt_p4 and tagger.files == (path, beside)
    assert [r.getMessage() for r in caplog.records] == [
        f"{beside}: no input grid was given; written with salt_p4's input grid: check that the "
        "model was trained on it"
    ]
    caplog.clear()
    assert load_tagger(str(path)).config == tagger.config and not caplog.records

    vector = saved(tmp_path, mlp(), "vector.keras", inputs=None)
    assert load_tagger(str(vector)).feature_types == (FixedType(16, 6),) * 16
    assert "ap_fixed<16,6> for every input" in caplog.text
    assert yaml.safe_load(vector.with_suffix(".yaml").read_text()) == {
        "inputs": {"type": "ap_fixed<16,6>"}
    }


def test_a_grid_that_cannot_be_written(tmp_path: Path, full_disk: Any) -> None:
    path = saved(tmp_path, mlp(), inputs=None)
    with full_disk(10), pytest.raises(UserError) as error:
        load_tagger(str(path))
    assert str(error.value).startswith(f"{path.with_suffix('.yaml')}: cannot be written (File too")
    assert "inputs: {type: ap_fixed<16,6>}" in str(error.value)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".yaml"] == []


SALT_P4 = yaml.safe_load((MODELS / "salt_p4.yaml").read_text())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"inputs": {"type": INPUT, "scale": 2}}, "unknown key 'inputs.scale'"),
        ({"inputs": {"type": "ap_fixed<7>"}}, "inputs.type: type 'ap_fixed<7>'"),
        ({"inputs": {"type": INPUT}, "width": 3}, "unknown key 'width'"),
        ({"firmware": {"clock_ns": 3}}, "the key 'inputs' is missing"),
        ({"inputs": {"pt": SALT_P4["inputs"]["pt"]}}, "the key 'inputs.deta' is missing"),
        ({"inputs": SALT_P4["inputs"]}, "the model takes 16 values, not particles"),
        (SALT_P4, "the model takes 16 values, not particles"),
    ],
)
def test_faults_of_the_grid(content: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = saved(tmp_path, mlp())
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        load_tagger(str(path))
    assert str(error.value).startswith(str(path.with_suffix(".yaml")))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_particles_of_other_features_have_one_type(tmp_path: Path) -> None:
    given = tf.keras.Input((6, 4), name="x")
    model = tf.keras.Model(given, dense(2, "y")(given))
    path = saved(tmp_path, model, inputs=SALT_P4["inputs"])
    with pytest.raises(UserError, match="3 features, the model has 4 a particle; give one type"):
        load_tagger(str(path))
    path.with_suffix(".yaml").unlink()
    tagger = load_tagger(str(path))
    assert tagger.feature_types == (FixedType(16, 6),) * 4
    assert hard_inputs(tagger).shape[1:] == (6, 4) == sample_inputs(tagger)[0].shape[1:]


def test_a_whole_yaml_serves_for_its_grid_and_target(small_model: Make, tmp_path: Path) -> None:
    path = small_model(partitions=3, firmware={"clock_ns": 4.0})
    model = load_tagger(str(path)).quantized
    keras = path.with_suffix(".keras")
    model.save(keras)
    tagger = load_tagger(str(keras))
    config = load_yaml(path, ModelConfig)
    assert tagger.config.inputs == config.inputs and tagger.config.firmware.clock_ns == 4
    assert tagger.partitions == 3, "the model's own, not those of salt_p4"
    assert tagger.shape == (6, 3) and sample_inputs(tagger)[1] is not None


# ---- diagnose


@pytest.mark.slow
def test_diagnose_says_when_it_does_not_apply(tmp_path: Path) -> None:
    """As a user sees it: the warning about the grid, then the one line."""
    path = saved(tmp_path, mlp(), inputs=None)
    done = subprocess.run(
        [Path(sys.executable).with_name("salt-hls"), "diagnose", path, "--build", tmp_path / "b"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = without_progress(done.stderr)
    assert done.returncode == 1 and len(lines) == 2, done.stderr
    assert lines[0].startswith("salt-hls: warning:") and "check that the model" in lines[0]
    assert "diagnose is for taggers" in lines[1]


def test_diagnosis_of_a_saved_tagger(tmp_path: Path) -> None:
    given = tf.keras.Input((8, 3), name="x")
    hidden = FixedActivation("relu", "ap_ufixed<6,3,RND,SAT>", name="hidden")
    x = L.GlobalMaxPooling1D(name="pool")(hidden(dense(4, "embed")(given)))
    model = tf.keras.Model(given, {"logits": dense(5, "logits")(x)})
    path = saved(tmp_path, model, inputs=SALT_P4["inputs"])
    result = diagnose(str(path), tmp_path / "build", None, quiet)
    assert result.jets == 300 and not result.heads
    assert {"input.pt", "hidden.output"} <= {tensor.name for tensor in result.tensors}
    shuffled = next(o for o in result.orders if o.order == "shuffled")
    assert shuffled.difference == 0, "a maximum knows no order"
