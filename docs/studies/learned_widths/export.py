"""From a trained member to a model of the project: its YAML and its weights.

Run: .venv/bin/python docs/studies/learned_widths/export.py n32.npz 5 FOLDER/NAME.yaml
The declared type of an activation is the narrowest that holds all its elements; weights are set to
their grids. `make firmware MODEL=FOLDER/NAME.yaml` builds firmware from both files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from limits import (
    ACTIVATIONS,
    FRACTION_MIN,
    HEADS,
    INTEGER_MIN,
    PARTITIONS,
    WEIGHT_FRACTION,
    WEIGHT_MAX,
    is_width,
)
from numpy.typing import NDArray

from salt_hls.config import MODELS, ModelConfig
from salt_hls.models.build import build_model
from salt_hls.models.weights import save_weights

Member = dict[str, NDArray[np.float32]]

BLOCK = "block1_"
LAYERS = {
    "inputs_fixed": "x",
    "embed_relu": "embed",
    f"{BLOCK}query_fixed": "query",
    f"{BLOCK}query_filter_fixed": "query_filter",
    f"{BLOCK}key_projection_fixed": "key_projection",
    f"{BLOCK}key_fixed": "key",
    f"{BLOCK}value_projection_fixed": "value_projection",
    f"{BLOCK}value_fixed": "value",
    f"{BLOCK}attention_fixed": "attention",
    f"{BLOCK}tanh1_input_fixed": "tanh1_input",
    f"{BLOCK}tanh1_fixed": "tanh1_output",
    f"{BLOCK}ff1_relu": "feed_forward",
    "head_relu": "head",
}
"""Layers with widths of elements: the activation of each."""

UNTOUCHED = {"pool_fixed"}
"""Its type is that of tanh_output, so every pooled value passes as it is."""


def widths(member: Member, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Integer and fraction bits of each element, as `model.Learned` rounds them."""
    limits = ACTIVATIONS[name]
    integer = member[f"is:{name}"] + member[f"im:{name}"]
    fraction = member[f"fs:{name}"] + member[f"fm:{name}"]
    return (
        np.rint(np.clip(integer, INTEGER_MIN, limits.integer)),
        np.rint(np.clip(fraction, FRACTION_MIN, limits.fraction)),
    )


def container(member: Member, name: str) -> str:
    """The type that holds every element with bits."""
    integer, fraction = widths(member, name)
    live = integer + fraction > 0
    most = fraction[live].max(initial=1)
    whole = max(integer[live].max(initial=0), 1 - most)
    sign = int(ACTIVATIONS[name].signed)
    letter = "" if sign else "u"
    return f"ap_{letter}fixed<{int(whole + most) + sign},{int(whole) + sign},RND,SAT>"


def on_grid(member: Member, name: str) -> NDArray[np.float32]:
    """A weight as `model.Learned` quantizes it."""
    scale = 2.0 ** np.rint(member[f"f:{name}"])
    high = WEIGHT_MAX - 2.0**-WEIGHT_FRACTION
    clipped = np.clip(member[name], -WEIGHT_MAX, high)
    return np.clip(np.rint(clipped * scale) / scale, -WEIGHT_MAX, high).astype(np.float32)


def yaml_of(member: Member) -> dict[str, Any]:
    """What `ModelConfig` reads."""
    types = {name: container(member, name) for name in ACTIVATIONS if name != "x"}
    particles, width = member["im:embed"].shape
    return {
        "particles": particles,
        "partitions": PARTITIONS,
        "width": width,
        "heads": HEADS,
        "feed_forward": member["ff1.kernel"].shape[1],
        "filter_heights": [1, 3, 5],
        "project_first": True,
        "convolution": "queries",
        "softmax": {"stable": False, "normalize": "context"},
        "block": "parallel",
        "head": "mlp",
        "inputs": yaml.safe_load((MODELS / "salt_p4.yaml").read_text())["inputs"],
        "types": {
            "weights": {"default": "ap_fixed<8,2>"},
            "biases": "ap_fixed<8,2>",
            "embed": types["embed"],
            "query": types["query"],
            "query_filter": types["query_filter"],
            "key_projection": types["key_projection"],
            "key": types["key"],
            "value_projection": types["value_projection"],
            "value": types["value"],
            "attention": {
                "logits": "ap_fixed<6,2,RND,SAT>",
                "exp": "ap_ufixed<6,3,RND,SAT>",
                "sum": "ap_ufixed<8,5>",
                "reciprocal": "ap_ufixed<8,1,RND,SAT>",
                "context": types["context"],
                "output": types["attention"],
            },
            "tanh1_input": types["tanh1_input"],
            "tanh_output": types["tanh1_output"],
            "feed_forward": types["feed_forward"],
            "head": types["head"],
            "output": "ap_fixed<12,5,RND,SAT>",
        },
        "widths": {"weights": "weight", "activations": "element"},
    }


def layer_weights(member: Member) -> dict[str, list[NDArray[np.float32]]]:
    """Of each Keras layer, in its order: kernel and bias, or alpha and beta."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for name in sorted(member, key=lambda n: n.endswith((".bias", ".beta"))):
        if is_width(name):
            continue
        layer = name.split(".")[0]
        outside = layer in ("embed", "head", "classes")
        value = member[name] if layer == "tanh1" else on_grid(member, name)
        found.setdefault(layer if outside else BLOCK + layer, []).append(value)
    return found


def export(member: Member, path: Path) -> None:
    """Writes the YAML to `path`, the weights beside it.

    Raises `ValueError` when a layer's weights would stay those it was built with.
    """
    path.write_text(yaml.safe_dump(yaml_of(member), sort_keys=False))
    model = build_model(ModelConfig.load(path), quantized=True)
    weights = layer_weights(member)
    for name, activation in LAYERS.items():
        shape = model.get_layer(name).integer_bits.shape
        weights[name] = [np.broadcast_to(w, shape) for w in widths(member, activation)]
    left = {layer.name for layer in model.layers if layer.weights} - weights.keys()
    if left - UNTOUCHED:
        raise ValueError(f"no weights for {', '.join(sorted(left - UNTOUCHED))}")
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    save_weights(model, path.with_suffix(".weights.h5"))


def main() -> None:
    """One member."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="npz that train.py or refine.py wrote")
    parser.add_argument("member", type=int, help="counted from 0")
    parser.add_argument("path", type=Path, help="YAML to write")
    a = parser.parse_args()
    file = np.load(a.trained)
    export({n: file[n][a.member] for n in file.files if not n.startswith("_")}, a.path)
    sys.stdout.write(f"wrote {a.path} and {a.path.with_suffix('.weights.h5')}\n")


if __name__ == "__main__":
    main()
