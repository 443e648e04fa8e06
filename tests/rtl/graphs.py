"""Small hls4ml graphs for the RTL tests."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType

INPUT = FixedType.parse("ap_fixed<8,4>")
LINEAR = "ap_fixed<6,3,RND,SAT>"
Q = "quantized_bits(4,0,alpha=1)"


def events(shape: tuple[int, ...], count: int = 60, seed: int = 0) -> NDArray[np.float64]:
    """Random values over the whole input grid, after the corners of it."""
    codes = np.random.default_rng(seed).integers(-128, 128, (count, *shape))
    codes[:4] = np.array([0, -128, 127, 1]).reshape(4, *[1] * len(shape))
    return np.asarray(codes * INPUT.lsb)


def convert(model: Any, folder: Path, backend: str = "Vitis", io_type: str = "io_parallel") -> Any:
    """hls4ml graph of a Keras model, its input on the grid INPUT."""
    import hls4ml

    import salt_hls

    salt_hls.register()
    with warnings.catch_warnings():  # QKeras' own
        warnings.simplefilter("ignore")
        config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend=backend)
        for name in model.input_names:
            config["LayerName"][name]["Precision"]["result"] = str(INPUT)
        for layer in config["LayerName"].values():
            layer["Trace"] = True
        return hls4ml.converters.convert_from_keras_model(
            model, hls_config=config, backend=backend, io_type=io_type, output_dir=str(folder)
        )


def randomize(model: Any, seed: int = 0) -> None:
    """Weights of some size in every layer; exact zeros among them."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.shape.num_elements() == 1:  # slope and offset of a tanh
            continue
        values = np.clip(rng.normal(size=variable.shape) * 0.4, -0.9, 0.9)
        variable.assign(np.where(rng.random(variable.shape) < 0.3, 0, values))


def tagger(particles: int = 4, shallow: bool = False) -> Any:
    """A SAL-T of the smallest size that has every one of its layers; or one of separable filters,
    exp of the logits themselves, and normalization after the context."""
    import tensorflow as tf
    from qkeras import QDense

    from salt_hls.layers.conv_attention.keras import ConvAttention
    from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
    from salt_hls.layers.fixed_activation.keras import FixedActivation
    from salt_hls.layers.head_dense.keras import HeadDense
    from salt_hls.layers.head_filter.keras import HeadFilter
    from salt_hls.layers.partitioned_projection.keras import PartitionedProjection

    def dense(width: int, name: str, kind: str = LINEAR, relu: bool = False) -> Any:
        layer = QDense(width, kernel_quantizer=Q, bias_quantizer=Q, name=name)
        function = FixedActivation("relu" if relu else "linear", kind, name=f"{name}_fixed")
        return lambda x: function(layer(x))

    x = given = tf.keras.Input((particles, 3), name="particles")
    x = hidden = dense(4, "embed", "ap_ufixed<5,2,RND,SAT>", relu=True)(x)
    query = dense(4, "query")(x)
    keys = []
    for name in "kv":
        y = PartitionedProjection(
            2, 2, broadcast=True, kernel_quantizer=Q, output_type=LINEAR, name=f"{name}_projection"
        )(x)
        keys.append(
            HeadDense(2, 2, kernel_quantizer=Q, output_type=LINEAR, name=f"{name}_dense")(y)
        )
    types = {key: "ap_ufixed<5,1,RND,SAT>" for key in ("exp", "reciprocal", "attention")}
    types |= {key: LINEAR for key in ("logits", "conv", "output")} | {"sum": "ap_ufixed<6,2>"}
    if shallow:
        query, keys[0] = (
            HeadFilter(2, (height,), Q, LINEAR, name=f"{name}_filter")(y)
            for name, height, y in (("query", 3, query), ("key", 2, keys[0]))
        )
        types["context"] = types.pop("conv")
        del types["attention"]
        attention = ConvAttention(
            2, (), types=types, stable=False, normalize="context", scale="table", name="attention"
        )
    else:
        attention = ConvAttention(2, (1, 3), Q, types, name="attention")
    x = attention([query, *keys])
    x = tf.keras.layers.Add(name="residual")([hidden, dense(4, "out")(x)])
    x = DynamicTanh(LINEAR, "ap_fixed<5,1,RND,SAT>", name="tanh")(x)
    x = tf.keras.layers.GlobalMaxPooling1D(name="pool")(x)
    model = tf.keras.Model(given, dense(3, "classes", "ap_fixed<8,4,RND_CONV,SAT>")(x))
    randomize(model)
    return model
