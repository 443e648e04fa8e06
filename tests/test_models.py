"""Models: parity with the published SAL-T, variants, float and quantized from one YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
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
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    return ModelConfig.model_validate({**content, **changes})


VARIANTS = {
    "SAL-T": {},
    "projection after the key matrix": {"project_first": False},
    "shared projections": {"share_projections": True},
    "Linformer": {"keys": "dense", "values": "dense", "filter_heights": []},
    "full attention": {"attention": "full", "filter_heights": [], "partitions": 16},
    "two blocks": {"blocks": 2},
    "p does not divide N": {"partitions": 3},
    "binary": {"classes": 1},
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


def test_gradients_reach_every_weight() -> None:
    model = build_model(variant(), quantized=True)
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


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00", "particles"])
def test_no_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        load_yaml(path, ModelConfig)
