"""Models: parity with the published SAL-T, variants, float and quantized from one YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from pydantic import ValidationError
from streaming import SHALLOW, shipped

from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.layers.conv_attention.operation import type_names
from salt_hls.layers.head_filter.keras import HeadFilter
from salt_hls.models.build import build_model, import_sal_t4hep, snap_weights
from salt_hls.system.paths import CHECKOUT

HERE = Path(__file__).parent
PARITY = sorted((HERE / "parity").glob("*.npz")) + sorted(
    (CHECKOUT.parent / "shared" / "parity").glob("*.npz")
)


@pytest.mark.parametrize("path", PARITY, ids=[f"{p.parent.parent.name}/{p.stem}" for p in PARITY])
@pytest.mark.parametrize("prefix", ["", "w_"])
def test_published_model(path: Path, prefix: str) -> None:
    data = np.load(path)
    weights = {prefix + k[2:]: data[k] for k in data.files if k.startswith("w_")}
    config = {k[4:]: data[k] for k in data.files if k.startswith("cfg_")}
    model = import_sal_t4hep(weights, config)
    logits = model(data["x"]).numpy()
    truth = data["ref64_logits"]
    assert np.abs(logits - truth).max() <= 1e-5 * np.abs(truth).max()
    layer = model.get_layer("block1_attention")
    query, key, _ = tf.keras.Model(model.input, layer.input)(data["x"])
    attention = layer.attention(query, key).numpy()
    assert np.abs(attention - data["o_attn_weights"]).max() <= 1e-5
    assert np.abs(attention - 1 / attention.shape[-1]).max() > 0.01


def test_parity_needs_the_filters() -> None:
    """The check sees the convolution: with one filter scaled, parity is gone."""
    data = np.load(HERE / "parity" / "lin_N16_p4_E1F1_share0_conv1.npz")
    weights = {k: data[k] for k in data.files if k.startswith("w_")}
    config = {k[4:]: data[k] for k in data.files if k.startswith("cfg_")}
    weights["w_conv0_kernel"] = weights["w_conv0_kernel"] * 1.01
    logits = import_sal_t4hep(weights, config)(data["x"]).numpy()
    truth = data["ref64_logits"]
    assert np.abs(logits - truth).max() > 1e-5 * np.abs(truth).max()


def test_import_names_what_does_not_fit() -> None:
    data = np.load(HERE / "parity" / "lin_N16_p4_E1F1_share0_conv1.npz")
    weights = {k: data[k] for k in data.files if k.startswith("w_")}
    config = {k[4:]: data[k] for k in data.files if k.startswith("cfg_")}
    weights["w_head_kernel"] = weights["w_head_kernel"][:3]
    with pytest.raises(UserError, match="head"):
        import_sal_t4hep(weights, config)


def variant(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({**shipped(), **changes})


VARIANTS = {
    "SAL-T": {},
    "projection after the key matrix": {"project_first": False},
    "shared projections": {"share_projections": True},
    "Linformer": {"keys": "dense", "values": "dense", "filter_heights": []},
    "full attention": {"attention": "full", "filter_heights": [], "partitions": 16},
    "two blocks": {"blocks": 2},
    "p does not divide N": {"partitions": 3},
    "binary": {"classes": 1},
    "separable filters": {"convolution": "separable"},
    "filtered queries": {"convolution": "queries"},
    "normalized after the context": {"softmax": {"normalize": "context"}},
    "exp of the logits themselves": {"softmax": {"stable": False, "scale": "table"}},
    "parallel block": {"block": "parallel"},
    "linear head": {"head": "linear"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_float_and_quantized_share_weights(changes: dict[str, Any]) -> None:
    config = variant(**changes)
    if config.attention == "full":
        types = config.types.model_dump(mode="json")
        types["attention"]["sum"] = "ap_ufixed<10,5>"
        config = variant(**changes, types=types)
    float_model, quantized = build_model(config, False), build_model(config, True)
    quantized.set_weights(float_model.get_weights())
    x = np.random.default_rng(1).integers(-64, 64, (4, 16, 3)).astype(np.float32) / 16
    assert float_model(x).shape == quantized(x).shape == (4, config.classes)
    before = quantized(x).numpy()
    assert not np.array_equal(before, float_model(x).numpy())
    snap_weights(quantized)
    assert np.array_equal(quantized(x).numpy(), before)


@pytest.mark.parametrize("changes", [{}, SHALLOW], ids=["SAL-T", "shallow"])
def test_gradients_reach_every_weight(changes: dict[str, Any]) -> None:
    model = build_model(variant(**changes), quantized=True)
    x = np.random.default_rng(1).integers(-64, 64, (32, 16, 3)).astype(np.float32) / 16
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x)[:, 0] ** 2)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None and np.all(np.isfinite(gradient)), variable.name
        assert np.any(gradient), f"{variable.name} never learns"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"partitions": 17}, "partitions: must be at most particles"),
        ({"particels": 16}, "unknown key 'particels'"),
        ({"inputs": None}, "inputs"),
        ({"width": 18}, "multiple of heads"),
        ({"types": {}}, "types.weights"),
        ({"attention": "full"}, "no convolution"),
        ({"share_projections": True, "project_first": False}, "project_first"),
        (
            {"convolution": "separable", "filter_heights": []},
            "convolution: separable needs filters",
        ),
        (
            {"convolution": "queries"},
            "types.query_filter: the key is missing; convolution: queries",
        ),
        ({"convolution": True}, "convolution: Input should be 'kernel', 'separable' or 'queries'"),
        ({"softmax": {"normalize": "context"}}, "types.attention.context: the key is missing"),
        ({"softmax": {"normalise": "context"}}, "unknown key 'softmax.normalise'"),
        ({"softmax": {"scale": 0.5}}, "softmax.scale: Input should be 'logits' or 'table'"),
        ({"block": "both"}, "block: Input should be 'sequential' or 'parallel'"),
        ({"head": 2}, "head: Input should be 'mlp' or 'linear'"),
    ],
)
def test_configuration_errors_are_one_line(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    with pytest.raises(UserError) as error:
        load_yaml(path, ModelConfig)
    assert says in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("attention.conv", "a convolution needs it"),
        ("attention.attention", "softmax.normalize: weights needs it"),
        ("tanh2_input", "block: sequential needs it"),
        ("head", "head: mlp needs it"),
    ],
)
def test_types_that_a_model_needs(path: str, says: str) -> None:
    """Missing, they are an error; a model without their tensors does without them."""
    content = shipped()
    *outer, key = path.split(".")
    types = content["types"]
    for name in outer:
        types = types[name]
    del types[key]
    with pytest.raises(ValidationError, match=f"types.{path}: the key is missing; {says}"):
        ModelConfig.model_validate(content)
    build_model(ModelConfig.model_validate({**content, **SHALLOW}), quantized=True)


WIDE = {
    "logits": "ap_fixed<16,3,RND,SAT>", "conv": "ap_fixed<16,3,RND,SAT>",
    "exp": "ap_ufixed<23,6,RND,SAT>", "sum": "ap_ufixed<16,8,RND,SAT>",
    "reciprocal": "ap_ufixed<22,10,RND,SAT>", "attention": "ap_ufixed<20,1,RND,SAT>",
    "context": "ap_fixed<24,10,RND,SAT>", "output": "ap_fixed<20,4,RND,SAT>",
}  # fmt: skip


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("normalize", ["weights", "context"])
@pytest.mark.parametrize("scale", ["logits", "table"])
def test_wide_types_give_the_float_attention(stable: bool, normalize: Any, scale: Any) -> None:
    rng = np.random.default_rng(0)
    tensors = [rng.integers(-8, 9, (20, rows, 6)).astype(np.float32) / 8 for rows in (7, 4, 4)]
    names = type_names(True, normalize)
    layers = [
        ConvAttention(
            2, (1, 3), types=types, kernel_quantizer=quantizer,
            stable=stable, normalize=normalize, scale=scale,
        )
        for quantizer, types in (
            (None, None), ("quantized_bits(6,0,alpha=1)", {name: WIDE[name] for name in names})
        )
    ]  # fmt: skip
    outputs = []
    for layer in layers:
        layer.build([tensor.shape for tensor in tensors])
        layer.kernel.assign((np.arange(12) - 5).reshape(3, 4) / 32)
        outputs.append(layer(tensors).numpy())
    exact, quantized = outputs
    assert np.ptp(exact) > 1 and np.abs(exact - quantized).max() < 0.01
    plain = ConvAttention(2, (1, 3))
    plain.build([tensor.shape for tensor in tensors])
    plain.kernel.assign(layers[0].kernel)
    # The scale alone is another function: depth 3 is no power of four.
    assert (np.abs(plain(tensors) - exact).max() < 1e-5) == (scale == "logits")


@pytest.mark.parametrize(("rows", "partitions", "height"), [(7, 4, 5), (6, 3, 4), (2, 2, 5)])
def test_a_kernel_of_rank_one_is_two_filters(rows: int, partitions: int, height: int) -> None:
    """Of the queries and of the keys, at every edge."""
    rng = np.random.default_rng(0)
    shapes = [(3, n, 6) for n in (rows, partitions, partitions)]
    query, key, value = (tf.constant(rng.normal(size=s), tf.float32) for s in shapes)
    along_particles, along_partitions = rng.normal(size=height), rng.normal(size=partitions)
    whole = ConvAttention(2, (height,))
    whole.build(shapes)
    whole.kernel.assign(np.outer(along_particles, along_partitions))
    filtered = []
    for x, kernel in ((query, along_particles), (key, along_partitions)):
        layer = HeadFilter(2, (len(kernel),))
        layer.build(x.shape)
        layer.kernel.assign(np.tile(kernel, (2, 1)))
        filtered.append(layer(x))
    expected, got = whole([query, key, value]), ConvAttention(2, ())([*filtered, value])
    assert np.abs(got - expected).max() < 1e-4 and np.ptp(expected) > 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConvAttention(2, (), normalize="after", name="a"), "normalize must be weights or"),
        (lambda: ConvAttention(2, (), scale="both", name="a"), "scale must be logits or table"),
        (lambda: HeadFilter(2, (), name="a"), "heights must be 1 or more, got"),
        (lambda: HeadFilter(2, (3, 0), name="a"), "heights must be 1 or more, got"),
        (lambda: HeadFilter(2, (3,), name="a")(tf.zeros((1, 4, 3))), "3 columns do not divide"),
    ],
)
def test_wrong_options_of_a_layer(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"layer a: {says}"):
        make()


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00", "particles"])
def test_no_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        load_yaml(path, ModelConfig)
