"""Whether a Keras model can be built exactly: every layer is checked before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.hls.names import identifier
from salt_hls.layers import KERAS_CLASSES
from salt_hls.layers.keras_ops import quantizer_config, quantizer_of
from salt_hls.layers.types import (
    WEIGHT_QUANTIZERS,
    WEIGHTS,
    activation_type,
    check_quantizer,
    quantizer_text,
)

LOGITS = "end the model at its logits: the largest stays the largest"
FOLD = "fold it into the weights of the layer before it"
FLOAT = f"use QDense with kernel_quantizer and bias_quantizer {WEIGHTS}"
IDENTITY = "it does nothing in inference; remove it"

ADVICE = {
    "Softmax": LOGITS,
    "Dense": FLOAT,
    "BatchNormalization": FOLD,
    "QBatchNormalization": FOLD,
    "AlphaDropout": IDENTITY,
    "Masking": "padding takes part in sums and maxima here; remove it",
    "Functional": "give its layers to the outer model",
    "Sequential": "give its layers to the outer model",
    "TimeDistributed": "QDense is applied to every particle as it is; remove the wrapper",
}
"""By class of layer that has no exact firmware: what to do instead."""


def check_model(model: tf.keras.Model, known: Collection[str]) -> None:
    """Raises `UserError` for the first layer that cannot be built exactly, saying why.

    known: classes of layers that conversion knows.
    """
    if len(model.inputs) > 1:
        names = ", ".join(model.input_names)
        raise UserError(f"model {model.name}: it has the inputs {names}; one can be built")
    uses = Counter(node.layer.name for nodes in model._nodes_by_depth.values() for node in nodes)
    seen: dict[str, str] = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind not in known:
            advice = ADVICE.get(kind) or f"supported layers are {', '.join(sorted(known))}"
            raise UserError(f"layer {layer.name}: {kind} cannot be built exactly; {advice}")
        if uses[layer.name] > 1:
            raise UserError(
                f"layer {layer.name}: it is used {_times(uses[layer.name])}, which cannot be "
                "built; give each use a layer of its own"
            )
        _check_name(layer.name, seen)
        _check_tensors(layer)
        if kind in CHECKS:
            CHECKS[kind](layer)


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _check_name(name: str, seen: dict[str, str]) -> None:
    """Names become C++ names, and hls4ml finds a layer's settings whatever the case."""
    key = identifier(name).lower()
    if not key:
        raise UserError(f"layer {name!r}: the name must have a letter or digit a-z, 0-9; rename it")
    if other := seen.get(key):
        raise UserError(f"layer {name}: in C++ it has the same name as layer {other}; rename one")
    seen[key] = name


def _check_tensors(layer: tf.keras.layers.Layer) -> None:
    if layer.compute_dtype != "float32" or layer.dtype != "float32":
        raise UserError(
            f"layer {layer.name}: computes in {layer.compute_dtype}; only float32 is compared "
            "exactly: build the model with dtype float32"
        )
    for tensor in tf.nest.flatten(layer.output):
        shape = tuple(tensor.shape[1:])
        if not shape or not all(shape):
            raise UserError(
                f"layer {layer.name}: its output has the shape {shape}; every dimension must be "
                "a number above 0"
            )


def _ours(layer: tf.keras.layers.Layer) -> None:
    """Our layers: the operation checks the declared types."""
    layer.operation()


def _dense(layer: tf.keras.layers.Layer) -> None:
    for position in ("kernel", "bias") if layer.use_bias else ("kernel",):
        quantizer = quantizer_of(layer, position)
        if quantizer is None:
            raise UserError(
                f"layer {layer.name}: no {position}_quantizer, so its {position} is a float; "
                f"give {WEIGHTS}" + (" or use_bias=False" if position == "bias" else "")
            )
        config = quantizer_config(quantizer)
        check_quantizer(config, layer.name, position, WEIGHT_QUANTIZERS, WEIGHTS)
        if not config["config"].get("keep_negative", 1):
            raise UserError(
                f"layer {layer.name}: {position} quantizer {quantizer_text(config)} is unsigned, "
                "which cannot be built in QDense; leave keep_negative out"
            )
    _activation(layer)


def _activation(layer: tf.keras.layers.Layer) -> None:
    """The activation of a QDense, QActivation or Activation."""
    function = getattr(layer, "quantizer", None) or layer.activation
    if function is None:
        return
    if hasattr(function, "get_config"):
        activation_type(quantizer_config(function), layer.name)
        return
    name = getattr(function, "__name__", str(function))
    if name not in ("linear", "relu"):
        advice = {
            "softmax": LOGITS,
            "sigmoid": "end the model at its logits: above 0 is above one half",
            "tanh": "use DynamicTanh",
        }.get(name, "use relu or FixedActivation")
        raise UserError(f"layer {layer.name}: activation {name} cannot be built exactly; {advice}")


def _relu(layer: tf.keras.layers.Layer) -> None:
    for key, right in (("max_value", None), ("negative_slope", 0), ("threshold", 0)):
        if getattr(layer, key) != right:
            raise UserError(
                f"layer {layer.name}: ReLU with {key} {getattr(layer, key)} cannot be built "
                f"exactly; leave {key} out"
            )


def _channels_last(layer: tf.keras.layers.Layer) -> None:
    if layer.data_format != "channels_last":
        raise UserError(f"layer {layer.name}: data_format must be channels_last")


CHECKS: Mapping[str, Callable[[tf.keras.layers.Layer], None]] = {
    **dict.fromkeys(KERAS_CLASSES, _ours),
    "QDense": _dense,
    "QActivation": _activation,
    "Activation": _activation,
    "ReLU": _relu,
    "GlobalMaxPooling1D": _channels_last,
}
"""By class of layer: what must hold beyond what is checked of every layer."""
