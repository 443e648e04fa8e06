"""Converts ordinary QKeras models before and after `salt_hls.register()`, prints what differs.

A program of its own: the process of the tests may have registered already.
"""

from __future__ import annotations

import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import tensorflow as tf
from qkeras import QActivation, QBatchNormalization, QConv1D, QDense

import salt_hls
from salt_hls.hls.keras2_reader import read_keras2_models

BITS = "quantized_bits(6,1,alpha=1)"
KERNELS = {
    "bits": BITS,
    "binary": "binary(alpha=1)",
    "ternary": "ternary(alpha=1)",
    "po2": "quantized_po2(4)",
    "default_alpha": "quantized_bits(6,1)",
    "unbiased": BITS,  # hls4ml finds its "bias" here
}
L = tf.keras.layers
if not hasattr(np, "product"):  # hls4ml 1.3 writes powers of two with numpy 1 only
    np.product = np.prod


def models() -> dict[str, tf.keras.Model]:
    """By name; none has a layer of ours."""
    vector, jet = tf.keras.Input((6,), name="vector"), tf.keras.Input((6, 3), name="jet")
    made = {}
    for name, kernel in KERNELS.items():
        for x in (vector, jet):
            if x is jet and name == "default_alpha":
                continue  # hls4ml cannot convert that
            dense = QDense(4, kernel_quantizer=kernel, bias_quantizer=BITS, name=name)
            made[f"{name} of {x.name}"] = tf.keras.Model(x, dense(x))
    x = QConv1D(4, 3, kernel_quantizer=BITS, bias_quantizer=BITS, name="conv")(jet)
    x = L.GlobalMaxPooling1D(name="pool")(QActivation("quantized_relu(6,2)", name="relu")(x))
    x = QBatchNormalization(name="norm")(QDense(5, kernel_quantizer=BITS, name="head")(x))
    made["convolution"] = tf.keras.Model(jet, QActivation("ternary(alpha=1)", name="cut")(x))
    x = L.BatchNormalization(name="beta_gamma")(L.Dense(4, activation="relu", name="plain")(vector))
    x = L.Softmax(name="softmax")(L.Add(name="sum")([x, x]))
    made["not quantized"] = tf.keras.Model(vector, x)
    shared = QDense(6, kernel_quantizer=BITS, bias_quantizer=BITS, name="shared")
    made["shared"] = tf.keras.Model(vector, shared(shared(vector)))
    rng = np.random.default_rng(0)
    for model in made.values():
        for weight in model.weights:
            values = rng.normal(0, 0.7, weight.shape)
            weight.assign(np.abs(values) + 0.1 if "variance" in weight.name else values)
    return made


def converted(model: tf.keras.Model, granularity: str, io_type: str, folder: Path) -> Any:
    """The graph's nodes, types and weights, and the C++ with every constant: what it computes."""
    config = hls4ml.utils.config_from_keras_model(model, granularity=granularity, backend="Vitis")
    graph = hls4ml.converters.convert_from_keras_model(
        model, hls_config=config, backend="Vitis", io_type=io_type, output_dir=str(folder)
    )
    nodes = [
        (
            node.name,
            node.class_name,
            {name: str(kind.precision) for name, kind in node.types.items()},
            {weight.name: weight.data.tolist() for weight in node.get_weights()},
        )
        for node in graph.get_layers()
    ]
    shutil.rmtree(folder, ignore_errors=True)
    graph.write()
    sources = [*folder.glob("firmware/*.*"), *folder.glob("firmware/weights/*")]
    return nodes, {path.name: path.read_bytes() for path in sources}


def main(folder: Path) -> None:
    made = models()

    def everything() -> dict[Any, Any]:
        kinds = product(("name", "model"), ("io_parallel", "io_stream"))
        jobs = [
            (name, kind) for kind in kinds for name in made if kind[0] == "name" or "of" in name
        ]
        return {(name, kind): converted(made[name], *kind, folder) for name, kind in jobs}

    read_keras2_models()  # without it, hls4ml beside Keras 3 reads none of them
    before = everything()
    assert len({sources["myproject.cpp"] for _, sources in before.values()}) > 1
    salt_hls.register()
    salt_hls.register()
    after = everything()
    for key, value in before.items():
        if value != after[key]:
            sys.stdout.write(f"DIFFERS {key}\n")
    sys.stdout.write(f"COMPARED {len(before)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
