"""A quantized Keras model as the few layers that have exact firmware.

hls4ml reads QKeras' layers in many ways, not all of them exact. So a model is first rewritten: an
activation inside a dense layer becomes one of its own, any quantizer of activations a
`FixedActivation`, weights of any fixed grid `quantized_bits` that hold them, a sum of many a chain
of sums of two, what does nothing in inference nothing. The original stays what the firmware is
compared with, layer by layer.

Types are carried along: a layer without a declared one has the narrowest that holds every result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from qkeras import QDense

from salt_hls.errors import UserError
from salt_hls.fixed import FLOAT32_BITS, FixedType
from salt_hls.hls.names import identifier
from salt_hls.layers import KERAS_CLASSES
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.fixed_activation.operation import Function
from salt_hls.layers.keras_ops import quantizer_config, quantizer_of
from salt_hls.layers.types import activation_type, quantizer_text, weight_type

Layer = Any
"""A Keras layer."""

_SETTINGS = """
accum activation algorithm axis b bias bias_data bias_quantizer bitwidth class_name
config config_cpp depth dim e epsilon filt_height function_cpp height implementation include_header
index input inputs instructions iotype line_buffer_codegen merge n_partitions name namespace next
nonzeros op operation output outputs overrides p param perm precision quantizer result reuse
reuse_factor scale shift signed size skip slope strategy table target_cycles threshold trace trusted
type value w weight weight_data weight_quantizer weights width z
"""
"""Names that hls4ml gives to settings of layers."""


class Typed(NamedTuple):
    """A tensor of the lowered model and the type that holds its values."""

    tensor: Any
    type: FixedType


@dataclass(frozen=True)
class Lowered:
    """The rewritten model.

    By the name of each of its layers: the type of its output, the layer of the original model it
    comes from, and the layer whose very output it computes, if any.
    """

    model: tf.keras.Model
    types: Mapping[str, FixedType]
    origins: Mapping[str, str]
    sources: Mapping[str, str]


def lower(model: tf.keras.Model, input_type: FixedType) -> Lowered:
    """Rewrites a model that `check_model` passed, of one input on the grid `input_type`.

    Raises `UserError` for results that float32 cannot hold.
    """
    work = _Lowering({layer.name.lower() for layer in model.layers})
    given = tf.keras.Input(model.input_shape[1:], name=work.input_name(model.input_names[0]))
    values = {id(model.inputs[0]): Typed(given, input_type)}
    results = {}
    read = Counter(id(t) for layer in model.layers for t in _inputs(layer))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.InputLayer):
            continue
        kind = type(layer).__name__
        result = RULES[kind](work, layer, [values[id(t)] for t in _inputs(layer)])
        values[id(layer.output)] = result
        results[id(layer.output)] = layer.name
    outputs: list[Any] = []
    for output in model.outputs:
        result, name = values[id(output)], results.get(id(output), model.input_names[0])
        alone = read[id(output)] == 0 and id(result.tensor) not in map(id, outputs)
        if not alone or id(result.tensor) in work.views or result.tensor is given:
            result = work.fixed(name, "output", "linear", result.type, result)
        outputs.append(result.tensor)
    lowered = tf.keras.Model(given, outputs, name=model.name)
    return Lowered(lowered, work.types, work.origins, work.sources)


def _inputs(layer: Layer) -> list[Any]:
    return [] if isinstance(layer, tf.keras.layers.InputLayer) else tf.nest.flatten(layer.input)


@dataclass
class _Lowering:
    """The model while it is rewritten.

    names: of the original's layers. used: names given so far, both in lower case, as hls4ml looks
    at no case. views: tensors whose layer moves no values in hardware.
    """

    names: set[str]
    used: set[str] = field(default_factory=set)
    types: dict[str, FixedType] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    views: set[int] = field(default_factory=set)

    def input_name(self, name: str) -> str:
        """A C++ name of the top function's argument that nothing else has."""
        return name if name == "particles" else identifier(f"{name}_in")

    def add(
        self,
        layer: Layer,
        operands: Any,
        result: FixedType,
        origin: str,
        weights: Sequence[NDArray[Any]] = (),
        *,
        whole: bool = True,
    ) -> Typed:
        """Calls a new layer, made of the layer `origin`. whole: its output is that layer's."""
        tensor = layer(operands)
        if weights:
            layer.set_weights(list(weights))
        self.types[layer.name] = result
        self.origins[layer.name] = origin
        if whole:
            self.sources[layer.name] = origin
        return Typed(tensor, result)

    def name(self, layer: str, part: str = "") -> str:
        """A name for the whole of a layer, or for a part of it, that no other has in hls4ml."""
        name = identifier(f"{layer}_{part}" if part else layer)
        name = name if name[0].isalpha() else f"layer_{name}"
        # hls4ml names an activation of its own after each dense layer, and keeps tensors by their
        # layer's name among the settings of the layer.
        others = (
            {*_SETTINGS.split()}
            | self.used
            | (self.names if part else self.names - {layer.lower()})
        )
        while {name.lower(), f"{name}_linear".lower()} & others:
            name += "_"
        self.used.add(name.lower())
        return name

    def fixed(self, layer: str, part: str, function: Function, to: FixedType, x: Typed) -> Typed:
        """An activation of declared type whose output is that of a layer."""
        new = FixedActivation(function, str(to), name=self.name(layer, part))
        return self.add(new, x.tensor, to, layer)


def _range_type(layer: str, low: float, high: float, frac_bits: int) -> FixedType:
    """The narrowest type of so many fractional bits that holds [low, high]."""
    scale = 2.0**frac_bits
    signed = low < 0
    _check_float32(layer, "its result", max(high, -low), frac_bits)
    bits = max(int(high * scale).bit_length(), int(-low * scale - 1).bit_length() if signed else 1)
    return FixedType(bits + signed, bits + signed - frac_bits, signed)


def _check_float32(layer: str, what: str, largest: float, frac_bits: int) -> None:
    """Raises `UserError` when float32 leaves out multiples of 2**-frac_bits up to `largest`."""
    bits = math.ceil(math.log2(max(largest * 2.0**frac_bits, 1)))
    if bits > FLOAT32_BITS:
        raise UserError(
            f"layer {layer}: {what} needs {bits} bits, more than the {FLOAT32_BITS} that Keras' "
            "float32 computes exactly; use narrower types"
        )


# ---- dense layers


def _dense(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    (x,) = operands
    name = layer.name
    kernel, kernel_type = _grid_weight(layer, "kernel")
    weights, bias, bias_type = [kernel], np.zeros(layer.units), None
    if layer.use_bias:
        bias, bias_type = _grid_weight(layer, "bias")
        weights.append(bias)
    fraction = x.type.frac_bits + kernel_type.frac_bits
    if bias_type:
        fraction = max(fraction, bias_type.frac_bits)
    ends = np.array([x.type.min, x.type.max])
    products = ends[:, None, None] * kernel  # (2, inputs, outputs)
    # Whatever the order of the additions, no partial sum is larger.
    largest = np.abs(products).max(axis=0).sum(axis=0) + np.abs(bias)
    _check_float32(name, "its sum", largest.max(), fraction)
    low = np.min(products.min(axis=0).sum(axis=0) + bias)
    high = np.max(products.max(axis=0).sum(axis=0) + bias)
    result = _range_type(name, min(low, 0.0), max(high, 0.0), fraction)
    plain = _is_identity(layer.activation)
    new = QDense(
        layer.units,
        use_bias=layer.use_bias,
        kernel_initializer="zeros",
        kernel_quantizer=_quantized_bits(kernel_type),
        bias_quantizer=_quantized_bits(bias_type) if bias_type else None,
        name=work.name(name, "" if plain else "dense"),
    )
    y = work.add(new, x.tensor, result, name, weights, whole=plain)
    return y if plain else _activate(work, layer, layer.activation, y)


def _quantized_bits(fixed_type: FixedType) -> str:
    return f"quantized_bits({fixed_type.width},{fixed_type.int_bits - 1},alpha=1)"


def _grid_weight(layer: Layer, which: str) -> tuple[NDArray[np.float64], FixedType]:
    """A weight as the forward pass uses it, and a signed type of its grid."""
    quantizer = quantizer_of(layer, which)
    config = quantizer_config(quantizer)
    values = np.asarray(quantizer(tf.convert_to_tensor(getattr(layer, which))), np.float64)
    found = None
    if config["class_name"] == "quantized_bits" and config["config"]["bits"] > 1:
        declared = weight_type(config, layer.name, which)
        unsigned = not declared.signed
        found = FixedType(declared.width + unsigned, declared.int_bits + unsigned)
    if found is None or not found.contains(values):
        found = _type_of(values)
    if found is None:
        raise UserError(
            f"layer {layer.name}: {which} quantizer {quantizer_text(config)} gives values that are "
            f"on no grid of {FLOAT32_BITS} bits"
        )
    return values, found


def _type_of(values: NDArray[np.float64]) -> FixedType | None:
    """The narrowest signed type that holds the values, if one of `FLOAT32_BITS` does."""
    size = np.abs(values).max()
    if not size or not np.isfinite(size):
        return FixedType(2, 1) if size == 0 else None
    int_bits = max(1, math.floor(math.log2(size)) + 2)
    for width in range(2, FLOAT32_BITS + 1):
        if (narrow := FixedType(width, int_bits)).contains(values):
            return narrow
    return None


# ---- activations


def _is_identity(function: Any) -> bool:
    return function is None or function == "linear" or getattr(function, "__name__", "") == "linear"


def _activation(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    function = getattr(layer, "quantizer", layer.activation)  # QActivation has both
    return operands[0] if _is_identity(function) else _activate(work, layer, function, operands[0])


def _relu(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    return _activate(work, layer, tf.nn.relu, operands[0])


def _activate(work: _Lowering, layer: Layer, function: Any, x: Typed) -> Typed:
    """Relu or a quantizer, as the whole or the end of a layer."""
    if getattr(function, "__name__", "") == "relu":
        to = _range_type(layer.name, 0.0, max(x.type.max, 0.0), x.type.frac_bits)
        return work.fixed(layer.name, "", "relu", to, x)
    to = activation_type(quantizer_config(function), layer.name)
    # QKeras returns x + (q(x) - x), whose difference must be exact too.
    fraction = max(to.frac_bits, x.type.frac_bits)
    _check_float32(layer.name, "its rounding", max(x.type.max, -x.type.min, to.max), fraction)
    relu = type(function).__name__ == "quantized_relu"
    return work.fixed(layer.name, "", "relu" if relu else "linear", to, x)


# ---- everything else


def _ours(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    """A layer of salt_hls, copied."""
    copy = type(layer).from_config({**layer.get_config(), "name": work.name(layer.name)})
    result = layer.operation().output_type
    tensors = [x.tensor for x in operands]
    given = tensors if len(tensors) > 1 else tensors[0]
    return work.add(copy, given, result, layer.name, layer.get_weights())


def _identity(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    return operands[0]


def _merged_type(layer: Layer, kind: str, a: FixedType, b: FixedType) -> FixedType:
    fraction = max(a.frac_bits, b.frac_bits)
    if kind == "Multiply":
        ends = [x * y for x, y in product((a.min, a.max), (b.min, b.max))]
        return _range_type(layer.name, min(ends), max(ends), a.frac_bits + b.frac_bits)
    low, high = {
        "Add": (a.min + b.min, a.max + b.max),
        "Subtract": (a.min - b.max, a.max - b.min),
        "Maximum": (max(a.min, b.min), max(a.max, b.max)),
        "Minimum": (min(a.min, b.min), min(a.max, b.max)),
        "Concatenate": (min(a.min, b.min), max(a.max, b.max)),
    }[kind]
    return _range_type(layer.name, low, high, fraction)


def _merge(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    """A chain of layers of two operands, of which the last has the layer's name."""
    kind = type(layer).__name__
    shapes = [tuple(x.tensor.shape[1:]) for x in operands]
    if kind != "Concatenate" and len(set(shapes)) > 1:
        raise UserError(
            f"layer {layer.name}: {kind} of shapes {', '.join(map(str, shapes))}; give equal shapes"
        )
    options = {"axis": layer.axis} if kind == "Concatenate" else {}
    total, *rest = operands
    for k, other in enumerate(rest, 1):
        last = k == len(rest)
        new = type(layer)(name=work.name(layer.name, "" if last else f"{k}"), **options)
        to = _merged_type(layer, kind, total.type, other.type)
        tensors = [total.tensor, other.tensor]
        total = work.add(new, tensors, to, layer.name, whole=last)
    return total


def _maximum(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    """A maximum keeps the type of its argument."""
    (x,) = operands
    pool = tf.keras.layers.GlobalMaxPooling1D(name=work.name(layer.name))
    y = work.add(pool, x.tensor, x.type, layer.name)
    return _view(work, layer, "keepdims", y) if layer.keepdims else y


def _reshape(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    return _view(work, layer, "", operands[0])


def _view(work: _Lowering, layer: Layer, part: str, x: Typed) -> Typed:
    """The same values in another shape; nothing happens in hardware."""
    new = tf.keras.layers.Reshape(layer.output_shape[1:], name=work.name(layer.name, part))
    y = work.add(new, x.tensor, x.type, layer.name, whole=False)
    work.views.add(id(y.tensor))
    return y


def _permute(work: _Lowering, layer: Layer, operands: list[Typed]) -> Typed:
    (x,) = operands
    new = tf.keras.layers.Permute(layer.dims, name=work.name(layer.name))
    return work.add(new, x.tensor, x.type, layer.name)


Rule = Callable[[_Lowering, Layer, list[Typed]], Typed]

RULES: dict[str, Rule] = {
    "QDense": _dense,
    **dict.fromkeys(KERAS_CLASSES, _ours),
    "QActivation": _activation,
    "Activation": _activation,
    "ReLU": _relu,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Concatenate"), _merge),
    "GlobalMaxPooling1D": _maximum,
    **dict.fromkeys(("Flatten", "Reshape"), _reshape),
    "Permute": _permute,
    **dict.fromkeys(
        (
            "Dropout",
            "SpatialDropout1D",
            "GaussianNoise",
            "GaussianDropout",
            "ActivityRegularization",
        ),
        _identity,
    ),
}
"""By class of Keras layer: how it is rewritten. The input needs no rule."""
