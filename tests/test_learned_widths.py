"""Widths that are learned: quantizer, predicted cost, training to a target, faults."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import yaml
from numpy.typing import NDArray
from qkeras import QDense, quantized_bits

from salt_hls.cli.commands import _epochs
from salt_hls.config import MODELS, LearnedPhase, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.jets.dataset import JetSet
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.head_dense.keras import HeadDense
from salt_hls.layers.head_filter.operation import padding
from salt_hls.layers.learned_bits import LearnedBits
from salt_hls.models.build import LearnedBuilder, build_model, load_keras_model, snap_weights
from salt_hls.models.tagger import load_tagger
from salt_hls.models.weights import copy_weights, load_weights, save_weights
from salt_hls.training import learned as training
from salt_hls.training.cost import LUTS, constant_bits, own_bits, predicted_luts, width_maps
from salt_hls.training.learned import Point, learn, require_reachable, stage_of, total_lut
from salt_hls.training.run import Result, train_model
from salt_hls.training.train import Place, Samples, measure, predict, train

Make = Callable[..., Path]

SMALL = {"particles": 6, "partitions": 2, "width": 4, "heads": 2, "feed_forward": 4}
WIDTHS = {"weights": "weight", "activations": "element"}
PHASE = {"batch": 100, "epochs": 1, "patience": 1, "learning_rate": 0.01}
TARGET = 20_000
TRAINING = {
    "float_phases": [PHASE],
    "learned": {
        "target_lut": TARGET,
        "learning_rate": 0.2,
        "phases": [{"batch": 100, "epochs": 2}, {"batch": 150, "epochs": 1}],
    },
}
LEARNED = {"widths": WIDTHS, "training": TRAINING, "explore": None}
SHALLOW = {"block": "parallel", "head": "linear", "filter_heights": []}
"""Few layers, for trainings."""
CONTAINER = FixedType(6, 2, True, "RND_CONV", "SAT")


def silent(step: Place) -> None:
    pass


@pytest.fixture
def config(small_model: Make) -> ModelConfig:
    return load_yaml(small_model(weights=False, **LEARNED), ModelConfig)


def sample(config: ModelConfig) -> Samples:
    return Samples.of(JetSet.read(MODELS / "sample.h5", slice(0, 300)), config)


@pytest.fixture
def shallow(small_model: Make) -> ModelConfig:
    return load_yaml(small_model(weights=False, **LEARNED, **SHALLOW), ModelConfig)


@pytest.fixture
def data(config: ModelConfig) -> Samples:
    return sample(config)


def randomized(model: tf.keras.Model, seed: int = 1) -> tf.keras.Model:
    """With random weights, and widths from none to those of the declared types."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name.split(":")[0].endswith("_bits"):
            weight.assign(weight - rng.uniform(0, 5, weight.shape))
        else:
            weight.assign(weight + rng.normal(0, 0.4, weight.shape))
    return model


# ---- the quantizer


def by_hand(w: float, fraction_bits: float) -> float:
    """A weight in ap_fixed<6,2>, from the definition."""
    f = min(round(fraction_bits), 4)
    if f <= -1:
        return 0.0
    code = round(min(max(w, -2.0), 2.0 - 2.0**-f) * 2**f)  # Python rounds half to even
    return code / 2**f


def test_weights_are_on_their_own_grids_inside_the_type() -> None:
    values = [0.25, 0.75, -0.25, 1.25, 0.03125, 0.09375, -1.999, 5.0, -5.0, 0.0, 0.4, -2.0, 1.5]
    fractions = [-7.0, -1.0, -0.6, -0.4, 0.0, 1.0, 2.2, 3.0, 4.0, 9.0]
    w, f = (a.ravel() for a in np.meshgrid(values, fractions))
    quantizer = LearnedBits(6, 1)
    got = quantizer.quantized(tf.constant(w, tf.float32), tf.constant(f, tf.float32)).numpy()
    assert got.tolist() == [by_hand(*pair) for pair in zip(w, f, strict=True)]
    assert CONTAINER.contains(got) and len(set(got)) > 12
    assert not got[f <= -0.6].any(), "without bits they are pruned, also the least"
    assert quantizer.min() == CONTAINER.min and quantizer.max() == CONTAINER.max


def test_it_begins_as_quantized_bits_of_the_type() -> None:
    w = tf.Variable(np.linspace(-3, 3, 777).astype(np.float32))
    quantizer = LearnedBits(6, 1)
    assert np.array_equal(quantizer(w), quantized_bits(6, 1, alpha=1)(w))
    assert quantizer.trainable_variables[0].shape == w.shape


def test_gradients_are_those_of_the_formulas() -> None:
    w = tf.constant([0.3, -0.7, 1.26, 0.1, 1.9, -1.9], tf.float32)
    f = tf.constant([1.0, 2.3, 3.0, 0.0, -3.0, 4.0], tf.float32)
    quantizer = LearnedBits(6, 1)
    with tf.GradientTape() as tape:
        tape.watch([w, f])
        q = quantizer.quantized(w, f)
    upstream = tf.constant([1.0, 2.0, -3.0, 4.0, 5.0, 6.0])
    by_w, by_f = tape.gradient(q, [w, f], output_gradients=upstream)
    assert np.array_equal(by_w, upstream)
    np.testing.assert_allclose(by_f, math.log(2) * (w - q) * upstream, rtol=1e-6)
    # By differences: q = w + r 2^-f with r, what rounding adds in steps, held.
    added, used, step = (q - w) * 2.0 ** tf.round(f), tf.round(f), 1e-2
    slope = added * (2.0 ** -(used + step) - 2.0 ** -(used - step)) / (2 * step)
    kept = f.numpy() > -1  # of what is pruned nothing is rounded
    np.testing.assert_allclose(by_f[kept], (slope * upstream)[kept], rtol=1e-3)


def _layers(quantizer: Callable[[], Any]) -> tf.keras.Model:
    """A QDense and a layer of ours."""
    x = tf.keras.Input((4, 6))
    biases = "quantized_bits(6,1,alpha=1)"
    y = QDense(4, kernel_quantizer=quantizer(), bias_quantizer=biases, name="dense")(x)
    heads = HeadDense(2, 3, kernel_quantizer=quantizer(), output_type="ap_fixed<9,5>", name="heads")
    return tf.keras.Model(x, heads(y))


def test_widths_are_trained_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    tf.keras.utils.set_random_seed(1)
    model = _layers(lambda: LearnedBits(6, 1))
    trained = [v.name.split("/")[-1] for v in model.trainable_variables]
    assert trained == [
        *("kernel:0", "bias:0", "kernel_fraction_bits:0"),
        *("kernel:0", "kernel_fraction_bits:0"),
    ]
    randomized(model)
    save_weights(model, tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert file["heads/kernel_fraction_bits"].shape == (2, 2, 3)
    fresh = _layers(lambda: LearnedBits(6, 1))
    load_weights(fresh, tmp_path / "w.h5")
    model.save(tmp_path / "model.h5")
    layer = HeadDense.from_config(model.get_layer("heads").get_config())
    assert layer.kernel_quantizer.get_config() == {"bits": 6, "integer": 1}
    for other in (fresh, load_keras_model(tmp_path / "model.h5")):
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
            assert np.array_equal(a, b)


def test_trained_weights_are_those_of_quantized_bits_once_they_are_snapped() -> None:
    tf.keras.utils.set_random_seed(1)
    model = randomized(_layers(lambda: LearnedBits(6, 1)))
    x = np.random.default_rng(1).integers(-8, 8, (5, 4, 6)).astype(np.float32) / 4
    before = model(x).numpy()
    snap_weights(model)
    once = model.get_weights()
    snap_weights(model)
    for a, b in zip(once, model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    plain = _layers(lambda: "quantized_bits(6,1,alpha=1)")
    copy_weights(model, plain)
    kernel = plain.get_layer("heads").kernel.numpy()
    assert CONTAINER.contains(kernel) and kernel.any() and not kernel.all()
    assert np.array_equal(model(x), before) and np.array_equal(plain(x), before)
    assert len(np.unique(before)) > 10


# ---- the cost


def _maps(model: tf.keras.Model, config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    return width_maps(model, training.feature_types(config))


def weight_bits(w: float) -> int:
    """From the first to the last 1."""
    digits = bin(round(abs(w) * 2**20))[2:].strip("0")
    return len(digits)


def table(b_in: int, b_out: int) -> float:
    return b_out * (2 ** (b_in - 6) if b_in > 6 else b_in / 6)


def counted(config: ModelConfig, model: tf.keras.Model) -> dict[str, float]:
    """LUTs of the layers of a small quantized model, counted product by product.

    What is behind a sum is left out, and so is the sum of a residual.
    """
    bits = {name: m for name, m in _maps(model, config).items() if "/" not in name}
    heads, partitions, particles = config.heads, config.partitions, config.particles
    depth = config.width // heads

    def kernel(name: str) -> NDArray[np.float64]:
        layer = model.get_layer(name)
        return layer._weight("kernel", layer.kernel.shape) if hasattr(layer, "_weight") else (
            np.asarray(layer.kernel_quantizer_internal(layer.kernel))
        )  # fmt: skip

    def dense(name: str, x: NDArray[Any]) -> float:
        w, x = kernel(name), x.reshape(-1, x.shape[-1])
        places = itertools.product(range(len(x)), *map(range, w.shape))
        return LUTS["constant"] * sum(x[n, i] * weight_bits(w[i, o]) for n, i, o in places)

    found = {}
    q, k, v = (bits[f"block1_{name}_fixed"] for name in ("query", "key", "value"))
    x = bits["embed_relu"]
    for name, source in (
        ("block1_query", x), ("block1_ff1", bits["block1_tanh1_fixed"]),
        ("block1_ff2", bits["block1_ff1_relu"]), ("head", bits["pool_fixed"]),
        ("classes", bits["head_relu"]),
    ):  # fmt: skip
        found[name] = dense(name, source)
    chunk = config.chunk
    for name in ("key", "value"):
        w = kernel(f"block1_{name}_projection")
        found[f"block1_{name}_projection"] = LUTS["constant"] * sum(
            x[c * chunk + t, d] * weight_bits(w[h, c, t])
            for h in range(heads)
            for c in range(partitions)
            for t in range(chunk)
            for d in range(config.width)
        )
        w, rows = kernel(f"block1_{name}"), bits[f"block1_{name}_projection_fixed"]
        found[f"block1_{name}"] = LUTS["constant"] * sum(
            rows[c, h * config.width + i] * weight_bits(w[h, i, o])
            for c in range(partitions)
            for h in range(heads)
            for i in range(config.width)
            for o in range(depth)
        )
    attention = model.get_layer("block1_attention")
    types = {name: kind.width for name, kind in attention.types.items()}
    w, total = kernel("block1_attention"), 0.0
    up, left = padding(w.shape[0])[0], padding(w.shape[1])[0]
    for h, n, c in itertools.product(range(heads), range(particles), range(partitions)):
        for d in range(h * depth, (h + 1) * depth):
            total += LUTS["variable"] * (q[n, d] * k[c, d] + types["attention"] * v[c, d])
        for a, j in np.ndindex(*w.shape):
            if 0 <= n + a - up < particles and 0 <= c + j - left < partitions:
                total += LUTS["constant"] * types["logits"] * weight_bits(w[a, j])
        total += LUTS["variable"] * types["exp"] * types["reciprocal"]
        total += LUTS["table"] * table(types["conv"], types["exp"])
        total += LUTS["sum"] * 0.65 * types["conv"]  # the difference
    rows = heads * particles
    total += rows * LUTS["sum"] * 0.65 * types["exp"] * (partitions - 1)
    total += rows * LUTS["maximum"] * types["conv"] * (partitions - 1)
    total += rows * LUTS["table"] * table(types["sum"], types["reciprocal"])
    found["block1_attention"] = total
    for name in ("block1_tanh1", "block1_tanh2"):
        pairs = zip(bits[f"{name}_input_fixed"].flat, bits[f"{name}_fixed"].flat, strict=True)
        found[name] = LUTS["table"] * sum(table(int(i), int(o)) for i, o in pairs)
    found["pool"] = 0.0
    for column in bits["block1_tanh2_fixed"].T:
        left_over = sorted(b for b in column if b)
        found["pool"] += LUTS["maximum"] * sum(left_over[1:])
    return found


def test_cost_is_that_of_a_count_by_hand(config: ModelConfig) -> None:
    model = randomized(build_model(config, quantized=True, builder=LearnedBuilder))
    snap_weights(model)
    features = [f.type for f in config.inputs.features]
    predicted = {name: float(lut) for name, lut in predicted_luts(model, features).items()}
    for name, lut in counted(config, model).items():
        assert predicted.pop(name) == pytest.approx(lut, rel=1e-5), name
        assert lut > 0, name
    assert set(predicted) == {"embed", "block1_output", "block1_residual1", "block1_residual2"}
    deployed = build_model(config, quantized=True)
    copy_weights(model, deployed)
    assert total_lut(deployed, config) == total_lut(model, config), "weights tell their bits"
    assert any((bits == 0).any() and bits.any() for bits in _maps(model, config).values())


def test_cost_of_narrow_inputs_and_residuals(config: ModelConfig) -> None:
    """One particle of one feature that is not pruned; sums take the bits of what they add."""
    model = build_model(config, quantized=True)
    for name in ("inputs_fixed", "block1_tanh1_input_fixed"):
        assert model.get_layer(name).integer_bits.shape[0] == 6
    for weight in model.get_layer("inputs_fixed").weights:
        weight.assign(tf.fill(weight.shape, -9.0))
    inputs = model.get_layer("inputs_fixed")
    bits = np.full((6, 3), -9.0)
    bits[2, 1] = 2
    inputs.set_weights([bits, bits])  # 2 + 2 bits and a sign
    embed = model.get_layer("embed")
    kernel = np.zeros((3, 4))
    kernel[1] = [0.75, 1.0, 0.0, -1.625]  # 2 + 1 + 0 + 4 bits
    embed.set_weights([kernel, np.zeros(4)])
    features = [f.type for f in config.inputs.features]
    luts = predicted_luts(model, features)
    assert float(luts["embed"]) == pytest.approx(LUTS["constant"] * 5 * 7)
    # Of what comes behind only that particle is left: the sums 0.75 x, x, 1.625 x, not negative.
    relu, query = model.get_layer("embed_relu"), model.get_layer("block1_query")
    kind = relu.output_type
    fraction, integer = np.array([2 + 2, 2, 2 + 3]), np.array([2, 2, 3])
    widths = np.minimum(fraction, kind.frac_bits) + np.minimum(integer, kind.int_bits)
    used = np.asarray(query.kernel_quantizer_internal(query.kernel))
    each = [sum(map(weight_bits, row)) for row in used]
    expected = LUTS["constant"] * np.dot(widths, np.array(each)[[0, 1, 3]])
    assert float(luts["block1_query"]) == pytest.approx(expected)


def test_cost_has_gradients_for_widths(config: ModelConfig) -> None:
    model = randomized(build_model(config, quantized=True, builder=LearnedBuilder))
    features = [f.type for f in config.inputs.features]
    relu, query = model.get_layer("embed_relu"), model.get_layer("block1_query")
    bits = relu.fraction_bits.numpy()
    bits[:2] = -9
    relu.fraction_bits.assign(bits)
    f, own = query.kernel_quantizer_internal.fraction_bits, relu.fraction_bits
    with tf.GradientTape() as tape:
        lut = predicted_luts(model, features)["block1_query"]
    by_weight, by_element = tape.gradient(lut, [f, own])
    maps = _maps(model, config)
    kernel, x = maps["block1_query/kernel"], maps["embed_relu"]
    by_row = np.where(kernel > 0, LUTS["constant"] * x.sum(axis=0)[:, None], 0)
    np.testing.assert_allclose(by_weight, by_row, rtol=1e-5)
    by_column = np.where(x > 0, LUTS["constant"] * kernel.sum(axis=1), 0)
    assert (by_element.numpy() != 0).any() and (x == 0).any()
    # No gradient where the input has fewer bits anyway.
    assert np.all(np.isclose(by_element, by_column, rtol=1e-5) | (by_element == 0))
    assert not by_element.numpy()[x == 0].any()


def test_shipped_models_have_a_prediction_near_what_was_measured() -> None:
    """1,040,307 and 502,305 LUTs of Yosys: README.md. No calibration, so within a quarter."""
    for name, measured in (("salt_p4", 1_040_307), ("salt_p4_n16", 502_305)):
        config = ModelConfig.load(name)
        model = build_model(config, quantized=True)
        load_weights(model, MODELS / f"{name}.weights.h5")
        assert total_lut(model, config) == pytest.approx(measured, rel=0.25)


# ---- the model


def test_a_model_with_widths_has_one_for_each_element_and_weight(config: ModelConfig) -> None:
    model = build_model(config, quantized=True, builder=LearnedBuilder)
    own = {x.name: x.integer_bits.shape for x in model.layers
           if isinstance(x, FixedActivation) and x.elements}  # fmt: skip
    n, d, p = config.particles, config.width, config.partitions
    assert own == {
        "inputs_fixed": (n, 3), "embed_relu": (n, d), "block1_query_fixed": (n, d),
        "block1_key_projection_fixed": (p, 2 * d), "block1_value_projection_fixed": (p, 2 * d),
        "block1_key_fixed": (p, d), "block1_value_fixed": (p, d), "block1_attention_fixed": (n, d),
        "block1_tanh1_input_fixed": (n, d), "block1_tanh1_fixed": (n, d), "block1_ff1_relu": (n, 4),
        "block1_tanh2_input_fixed": (n, d), "block1_tanh2_fixed": (n, d),
        "pool_fixed": (d,), "head_relu": (d,),
    }  # fmt: skip
    kernels = {x.name for x, _ in training.learned_kernels(model)}
    assert kernels == {
        "embed", "block1_query", "block1_key_projection", "block1_value_projection", "block1_key",
        "block1_value", "block1_attention", "block1_output", "block1_ff1", "block1_ff2", "head",
        "classes",
    }  # fmt: skip
    for what in ("weights", "activations"):
        changed = config.widths.model_copy(update={what: "tensor"})
        half = config.model_copy(update={"widths": changed})
        names = [v.name for v in build_model(half, True, builder=LearnedBuilder).weights]
        assert any("kernel_fraction" in name for name in names) == (what == "activations")
        assert any("integer_bits" in name for name in names) == (what == "weights")


@pytest.mark.usefixtures("eager")
def test_widths_of_the_declared_types_change_no_bit(config: ModelConfig, data: Samples) -> None:
    """Untouched widths are those of the types; filters and full attention have theirs as well."""
    tf.keras.utils.set_random_seed(1)
    changes: list[dict[str, Any]] = [  # a plain SAL-T is among the tests of training
        {"convolution": "separable", "project_first": False},
        {"attention": "full", "filter_heights": (), "block": "parallel", "head": "linear"},
    ]
    for change in changes:
        types = {**config.model_dump()["types"], "query_filter": "ap_fixed<8,4,RND,SAT>"}
        types["key_filter"] = types["query_filter"]
        changed = {**config.model_dump(), "types": types, **change}
        own = ModelConfig.model_validate(changed)
        plain = ModelConfig.model_validate({**changed, "widths": {}, "training": None})
        with_widths, without = (build_model(c, quantized=True) for c in (own, plain))
        copy_weights(randomized(without), with_widths)
        x = data.inputs[:50]
        assert np.array_equal(predict(with_widths, x), predict(without, x))
        assert len(with_widths.weights) > len(without.weights)
        assert total_lut(with_widths, own) <= total_lut(without, plain)


# ---- the training


@pytest.fixture(scope="module", autouse=True)
def dear() -> Iterator[None]:
    """A few steps are too few to find the price."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LEAST", 3.0)
        yield


@dataclass
class Whole:
    """An uninterrupted training."""

    folder: Path
    float_model: tf.keras.Model
    model: tf.keras.Model
    places: list[Place]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    config = ModelConfig.model_validate({**content, **SMALL, **LEARNED, **SHALLOW})
    data, places = sample(config), list[Place]()
    folder = tmp_path_factory.mktemp("whole")
    tf.config.run_functions_eagerly(True)
    tf.keras.utils.set_random_seed(1)
    float_model = build_model(config, quantized=False)
    float_model.get_layer("block1_tanh1").alpha.assign([0.25])  # not the same for all jets
    model = learn(config, float_model, data, data, folder, places.append)
    tf.config.run_functions_eagerly(False)
    return Whole(folder, float_model, model, places)


def history_in(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*_history.json")
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


@pytest.mark.usefixtures("eager")
def test_it_reaches_the_target_with_files_that_are_exact(
    shallow: ModelConfig, data: Samples, whole: Whole
) -> None:
    assert shallow.training is not None and shallow.training.learned is not None
    folder = whole.folder / stage_of(shallow.training.learned)
    history = history_in(whole.folder)
    first = total_lut(build_model(shallow, quantized=True), shallow)
    assert first > 1.1 * TARGET and TARGET / 2 < history[-1]["lut"] <= TARGET
    assert [row["phase"] for row in history] == [1, 1, 2]
    steps = {1: 3, 2: 3, 3: 2}
    expected = [(e, i + 1, steps[e]) for e in steps for i in range(steps[e])]
    assert [(p.epoch, p.step, p.steps) for p in whole.places] == expected
    luts = [p.lut for p in whole.places if p.lut is not None]
    assert len(luts) == 8 and luts[0] > 1.1 * TARGET > luts[-1]

    points = [Point(**row) for row in json.loads((folder / "front.json").read_text())]
    assert points and {p.file for p in points} == {p.name for p in folder.glob("*.h5")}
    assert not list(folder.glob("state*"))
    for point, better in itertools.pairwise(points):
        assert point.lut < better.lut and point.accuracy < better.accuracy
    again = build_model(shallow, quantized=True)
    for point in points:
        load_weights(again, folder / point.file)
        assert total_lut(again, shallow) == point.lut
        assert measure(again, data)[1] == point.accuracy
    best = max((p for p in points if p.lut <= TARGET), key=lambda p: p.accuracy)
    load_weights(again, folder / best.file)
    logits = predict(whole.model, data.inputs)
    assert np.array_equal(predict(again, data.inputs), logits) and len(np.unique(logits)) > 10
    snapped = whole.model.get_weights()
    snap_weights(whole.model)
    for a, b in zip(snapped, whole.model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    once_more = learn(shallow, whole.float_model, data, data, whole.folder, whole.places.append)
    assert len(whole.places) == 8, "a finished training is not done again"
    assert np.array_equal(predict(once_more, data.inputs), logits)


@pytest.mark.usefixtures("eager")
def test_attention_keeps_its_bits(config: ModelConfig) -> None:
    model = build_model(config, quantized=True, builder=LearnedBuilder)
    for variable in training._widths(model):
        variable.assign(tf.fill(variable.shape, -99.0))
    training._Bounds(model).keep()
    left = {x.name: own_bits(x).width.numpy() for x in training.element_layers(model)}
    assert {name for name, bits in left.items() if bits.any()} == {
        "embed_relu", "block1_query_fixed", "block1_key_fixed", "block1_value_fixed",
    }  # fmt: skip
    assert np.all(left["embed_relu"] == 2) and np.all(left["block1_query_fixed"] == 3), "and a sign"
    for layer, quantizer in training.learned_kernels(model):
        bits = constant_bits(layer).numpy()
        if layer.name.endswith(("projection", "attention")):
            reached = np.abs(layer.kernel.numpy()) > 2.0**-quantizer.most
            assert np.all(bits[reached] == 1) and reached.any(), layer.name
        else:
            assert not bits.any(), layer.name


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_an_interrupted_training_of_widths_ends_like_an_uninterrupted_one(
    shallow: ModelConfig, data: Samples, whole: Whole, tmp_path: Path
) -> None:
    stops = {(2, 2), (3, 1)}

    def stop(place: Place) -> None:
        if (place.epoch, place.step) in stops:
            stops.remove((place.epoch, place.step))
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            learn(shallow, whole.float_model, data, data, tmp_path, stop)
    parts = learn(shallow, whole.float_model, data, data, tmp_path, silent)
    histories = [history_in(folder) for folder in (whole.folder, tmp_path)]
    for a, b in zip(*histories, strict=True):
        for key in a.keys() - {"stage", "seconds"}:
            assert a[key] == pytest.approx(b[key], rel=1e-3)  # sums in threads of any order
    for a, b in zip(whole.model.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_train_model_to_another_target(small_model: Make, tmp_path: Path) -> None:
    learned = {"target_lut": 22_000, "learning_rate": 0.5, "phases": [{"batch": 60, "epochs": 1}]}
    protocol = {"float_phases": [PHASE], "learned": learned}
    path = small_model(weights=False, **{**LEARNED, **SHALLOW, "training": protocol})
    for split in ("train", "validation", "test"):
        JetSet.read(MODELS / "sample.h5", slice(0, 300)).write(tmp_path / f"data/{split}.h5")
    arguments = str(path), tmp_path / "data", tmp_path / "build", silent
    result = train_model(*arguments, target_lut=21_000)
    assert result.model == "small.lut21000" and result.predicted_lut is not None
    assert result.predicted_lut <= 21_000
    written = path.with_name("small.lut21000.metrics.json").read_text()
    assert Result.model_validate_json(written) == result
    tagger = load_tagger(str(path.with_name("small.lut21000.yaml")))
    assert tagger.float_model is not None and isinstance(tagger.config, ModelConfig)
    assert tagger.config.training is not None and tagger.config.training.learned is not None
    assert tagger.config.training.learned.target_lut == 21_000
    assert total_lut(tagger.quantized, tagger.config) == result.predicted_lut
    # Trainings to other targets share the float model, so it is not in a folder of this target.
    (state,) = (tmp_path / "build" / "train" / "small").glob("[!.]*")
    assert (state / "float.weights.h5").exists()
    (stage,) = state.glob("learned-*/")
    for name in ("curves.png", "widths.png"):
        assert (stage / name).stat().st_size > 5000


def test_progress_shows_predicted_luts_beside_the_loss() -> None:
    shown: list[str] = []
    step = _epochs(lambda what, *_: shown.append(what))
    step(Place("learned", 1, 2, 3, 9, 1, 5, 1.234567, 0.5, 123456.7))
    step(Place("float", 1, 2, 3, 9, 1, 5, 1.234567, 0.5))
    assert shown == [
        "learned phase 1/2 epoch 3/9, accuracy 0.5000, loss 1.2346, 123,457 LUT predicted",
        "float phase 1/2 epoch 3/9, accuracy 0.5000",
    ]


# ---- faults


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"widths": {}}, "training.learned: no widths to learn; give widths: {weights: weight"),
        (
            {"training": {"float_phases": [PHASE], "quantized_phases": [PHASE]}},
            "training.learned: the key is missing; widths are learned toward its target_lut",
        ),
        (
            {"training": {**TRAINING, "quantized_phases": [PHASE]}},
            "quantized_phases: learned trains the widths instead; leave quantized_phases out",
        ),
        ({"training": {"float_phases": [PHASE]}}, "quantized_phases: the key is missing"),
        ({"widths": {"weights": "bit"}}, "widths.weights: Input should be 'tensor' or 'weight'"),
        ({"widths": {"weight": "weight"}}, "unknown key 'widths.weight'; did you mean 'weights'?"),
        (
            {"training": {**TRAINING, "learned": {**TRAINING["learned"], "target_lut": 0}}},
            "training.learned.target_lut: Input should be greater than 0",
        ),
    ],
)
def test_faults_of_the_yaml(changes: dict[str, Any], says: str, small_model: Make) -> None:
    path = small_model(weights=False, **{**LEARNED, **changes})
    with pytest.raises(UserError) as error:
        load_yaml(path, ModelConfig)
    assert says in str(error.value) and "small.yaml" in str(error.value)


def test_elements_round_half_up_and_saturate(small_model: Make) -> None:
    types = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())["types"]
    path = small_model(weights=False, **LEARNED, types={**types, "query": "ap_fixed<8,4>"})
    with pytest.raises(UserError, match=r"types.query: widths.activations: element needs RND,SAT"):
        load_yaml(path, ModelConfig)


def test_a_target_that_cannot_be_reached(
    config: ModelConfig, data: Samples, tmp_path: Path, small_model: Make
) -> None:
    assert config.training is not None and config.training.learned is not None

    def aiming(target: int) -> ModelConfig:
        assert config.training is not None and config.training.learned is not None
        learned = config.training.learned.model_copy(update={"target_lut": target})
        protocol = config.training.model_copy(update={"learned": learned})
        return config.model_copy(update={"training": protocol})

    require_reachable(aiming(TARGET))
    with pytest.raises(UserError, match=r"target_lut: 900 is below the [\d,]+ LUT \(predicted\)"):
        require_reachable(aiming(900))
    path = small_model("uniform", weights=False, training={
        "float_phases": [PHASE], "quantized_phases": [PHASE]})  # fmt: skip
    with pytest.raises(UserError, match=r"uniform.yaml: --target-lut is for learned widths"):
        train_model(str(path), tmp_path, tmp_path, silent, target_lut=TARGET)
    with pytest.raises(UserError, match="widths: this training is of tensors of one width"):
        train(config, data, data, tmp_path, silent)


@pytest.mark.usefixtures("eager")
def test_a_training_that_ends_above_its_target_keeps_its_points(
    shallow: ModelConfig, data: Samples, tmp_path: Path
) -> None:
    assert shallow.training is not None and shallow.training.learned is not None
    phases = (LearnedPhase(batch=300, epochs=1),)
    changes = {"learning_rate": 1e-3, "phases": phases}
    learned = shallow.training.learned.model_copy(update=changes)
    protocol = shallow.training.model_copy(update={"learned": learned})
    slow = shallow.model_copy(update={"training": protocol})
    float_model = build_model(shallow, quantized=False)
    with pytest.raises(UserError, match=r"ended at [\d,]+ LUT \(predicted\), above the target of"):
        learn(slow, float_model, data, data, tmp_path, silent)
    (front,) = tmp_path.glob("learned-*/front.json")
    assert json.loads(front.read_text())


@pytest.mark.usefixtures("eager")
def test_widths_that_are_no_numbers(shallow: ModelConfig, data: Samples, tmp_path: Path) -> None:
    float_model = build_model(shallow, quantized=False)

    def spoil(place: Place) -> None:
        if place.epoch == 2:  # after its first step
            for weights in made:
                weights.assign(weights * np.nan)

    made: list[tf.Variable] = []
    keep = training._Bounds.keep

    def remember(bounds: training._Bounds) -> None:
        made[:] = [bounds.elements[0][0].fraction_bits]
        keep(bounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Bounds, "keep", remember)
        with pytest.raises(UserError, match=r"NaN or infinity in \S*fraction_bits\S*, in epoch 2"):
            learn(shallow, float_model, data, data, tmp_path, spoil)
    assert list(tmp_path.glob("learned-*/state.json")), "the last good epoch is kept"


def test_files_that_do_not_fit(config: ModelConfig, tmp_path: Path) -> None:
    plain = config.model_copy(update={"widths": type(config.widths)()})
    model, without = (build_model(c, quantized=True) for c in (config, plain))
    save_weights(without, tmp_path / "plain.h5")
    with pytest.raises(UserError, match="they are of a model without learned widths"):
        load_weights(model, tmp_path / "plain.h5")
    save_weights(model, tmp_path / "own.h5")
    with pytest.raises(UserError, match="they are of a model with learned widths"):
        load_weights(without, tmp_path / "own.h5")
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        file["embed_relu/fraction_bits"][0, 0] = np.nan
    with pytest.raises(UserError, match="layer embed_relu: weight fraction_bits holds NaN"):
        load_weights(model, tmp_path / "own.h5")
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        del file["embed_relu/fraction_bits"]
        file["embed_relu/fraction_bits"] = np.zeros((4, 6))
    with pytest.raises(UserError, match=r"embed_relu/fraction_bits: the model needs \(6, 4\)"):
        load_weights(model, tmp_path / "own.h5")
