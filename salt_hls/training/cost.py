"""What a model would cost as unrolled hardware, in LUTs, predicted from its widths.

Every particle has its own arithmetic, as in firmware that takes a jet a clock. A product of bits
costs what `LUTS` says; the sums behind products are in its price. Where widths are learned the
prediction has gradients: widths are rounded straight-through. The formulas are those of "effective
bit operations" (C. Sun et al., arXiv 2405.00645), but for tables, whose cost is that of LUT6s:

constant times variable    b_x b_w, over every product; b_w from the first to the last 1 of w
variable times variable    b_a b_b
sum of values              0.65 (sum of widths - the smallest)
maximum                    sum of widths - the smallest
table of b_in bits         b_out 2^(b_in - 6) above 6 bits, b_out b_in / 6 below

What has no bits costs nothing. A prediction is no measurement: `salt-hls synth` measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from qkeras import QDense

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.head_dense.keras import HeadDense
from salt_hls.layers.head_filter.keras import HeadFilter
from salt_hls.layers.head_filter.operation import padding
from salt_hls.layers.keras_ops import quantizer_of
from salt_hls.layers.learned_bits import LearnedBits
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection

LUTS = {"constant": 0.9, "variable": 1.0, "sum": 1.0, "maximum": 1.0, "table": 1.0}
"""LUTs for a unit of each formula. Published designs, placed and routed, have 0.66 to 0.91 for a
bit of products without attention, 1.1 to 1.3 with it (arXiv 2405.00645 and 2510.24784); not yet
calibrated on our own."""

NONE = -99.0
"""Integer and fraction bits of what is always 0."""


@dataclass(frozen=True)
class Bits:
    """Of every element of a tensor: integer bits without the sign, fraction bits, sign (0 or 1).

    Tensors of the tensor's shape, without the batch.
    """

    integer: tf.Tensor
    fraction: tf.Tensor
    sign: tf.Tensor

    @staticmethod
    def of(kind: FixedType, shape: Sequence[int]) -> Bits:
        """All elements of one type."""
        numbers = kind.int_bits - kind.signed, kind.frac_bits, kind.signed
        return Bits(*(tf.fill(tuple(shape), float(n)) for n in numbers))

    @property
    def live(self) -> tf.Tensor:
        """Whether anything is left of an element."""
        return self.integer + self.fraction > 0

    @property
    def width(self) -> tf.Tensor:
        """Bits of an element, the sign included; 0 of what is always 0."""
        bits = self.integer + self.fraction + self.sign
        return tf.where(self.live, bits, tf.zeros_like(bits))

    def largest(self, axis: int) -> Bits:
        """The bits that hold every element along an axis."""
        kept = (tf.where(self.live, p, NONE) for p in (self.integer, self.fraction))
        return Bits(*(tf.reduce_max(p, axis) for p in (*kept, self.sign)))


T = TypeVar("T")

Priced = tuple[Bits, tf.Tensor | None]
"""Bits of a layer's output, and its LUTs, if it has a price of its own."""


def _declared(kind: T | None) -> T:
    if kind is None:
        raise UserError("predicted LUTs are those of a quantized model; this one is float")
    return kind


def straight_through(variable: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """A width as it is used, with the gradient of the variable."""
    used = tf.clip_by_value(tf.round(variable), low, high)
    return variable + tf.stop_gradient(used - variable)


def most_bits(layer: FixedActivation) -> tuple[float, float]:
    """Integer bits without the sign, and fraction bits, of the declared type."""
    kind = _declared(layer.output_type)
    return float(kind.int_bits - kind.signed), float(kind.frac_bits)


def own_bits(layer: FixedActivation) -> Bits:
    """What an activation leaves of an element whose values need more."""
    bits = Bits.of(_declared(layer.output_type), layer.shapes[0])
    if not layer.elements:
        return bits
    integers, fractions = most_bits(layer)
    return Bits(
        straight_through(layer.integer_bits, -fractions, integers),
        straight_through(layer.fraction_bits, -integers, fractions),
        bits.sign,
    )


def constant_bits(layer: tf.keras.layers.Layer, name: str = "kernel") -> tf.Tensor:
    """Bits of each of a layer's weights, from the first to the last 1 of its magnitude."""
    weight, quantizer = getattr(layer, name), quantizer_of(layer, name)
    code = _code(weight, quantizer)
    last = tf.bitwise.bitwise_and(code, -code)
    bits = tf.where(code > 0, _log2(code) - _log2(last) + 1, tf.zeros(code.shape))
    if isinstance(quantizer, LearnedBits):
        learned = quantizer.fraction_bits
        bits += tf.where(code > 0, learned - tf.stop_gradient(learned), tf.zeros(code.shape))
    return bits


def _code(weight: tf.Tensor, quantizer: Any) -> tf.Tensor:
    """Magnitude of a weight as the forward pass uses it, in steps of its type."""
    value = tf.stop_gradient(quantizer(weight))
    return tf.cast(tf.round(tf.abs(value) * 2.0 ** _fraction(quantizer)), tf.int32)


def _fraction(quantizer: Any) -> int:
    return int(quantizer.bits - quantizer.keep_negative - quantizer.integer)


def _log2(code: tf.Tensor) -> tf.Tensor:
    """The place of the first 1 of codes below 2^24, 0 of a code of 0."""
    exact = tf.math.log(tf.cast(tf.maximum(code, 1), tf.float64)) / math.log(2)
    return tf.cast(tf.floor(exact + 1e-9), tf.float32)


def predicted_luts(model: tf.keras.Model, features: Sequence[FixedType]) -> dict[str, tf.Tensor]:
    """LUTs by layer, of those that have any, of a quantized model that `build_model` made.

    features: the types of the last axis of the input. Raises `UserError` for other layers.
    """
    found = _walked(model, features)
    return {name: cost for name, (_, cost) in found.items() if cost is not None}


def width_maps(
    model: tf.keras.Model, features: Sequence[FixedType]
) -> dict[str, NDArray[np.float32]]:
    """Bits, 0 where pruned: by layer, of the elements that have widths of their own and no more
    than their values need; by <layer>/kernel, of weights."""
    maps: dict[str, NDArray[np.float32]] = {}
    for name, (bits, _) in _walked(model, features).items():
        layer = model.get_layer(name)
        if isinstance(layer, FixedActivation) and layer.elements:
            maps[name] = bits.width.numpy()
        elif getattr(layer, "kernel", None) is not None:
            maps[f"{name}/kernel"] = constant_bits(layer).numpy()
    return maps


def _walked(model: tf.keras.Model, features: Sequence[FixedType]) -> dict[str, Priced]:
    """Bits of its output and LUTs of every layer."""
    (given,) = model.inputs
    inputs = [Bits.of(kind, given.shape[1:-1]) for kind in features]
    parts = ([getattr(b, name) for b in inputs] for name in ("integer", "fraction", "sign"))
    bits = {given.ref(): Bits(*(tf.stack(p, axis=-1) for p in parts))}
    found: dict[str, Priced] = {}
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.InputLayer):
            continue
        rule = next((r for kind, r in _RULES.items() if isinstance(layer, kind)), None)
        if rule is None:
            raise UserError(f"layer {layer.name}: the cost of {type(layer).__name__} is not known")
        sources = layer.input if isinstance(layer.input, list) else [layer.input]
        found[layer.name] = rule(layer, *(bits[source.ref()] for source in sources))
        bits[layer.output.ref()] = found[layer.name][0]
    return found


def _dense(layer: QDense, x: Bits) -> Priced:
    bits = constant_bits(layer)
    products = tf.tensordot(x.width, bits, 1)
    return _sum_of_products(layer, x), LUTS["constant"] * tf.reduce_sum(products)


def _sum_of_products(layer: QDense, x: Bits) -> Bits:
    """The exact sum: its bits follow the widths, but are no way to lower the cost."""
    quantizer = quantizer_of(layer, "kernel")
    code = _code(layer.kernel, quantizer)
    fraction = _fraction(quantizer)
    magnitude = tf.cast(code, tf.float32) * 2.0**-fraction
    last = _log2(tf.bitwise.bitwise_and(code, -code))
    limit = tf.tensordot(tf.where(x.live, 2.0**x.integer, 0.0), magnitude, 1)
    places = x.fraction[..., None] + (fraction - last)
    places = tf.where(x.live[..., None] & (code > 0), places, NONE)
    bits = Bits(
        tf.where(limit > 0, tf.math.ceil(tf.math.log(limit) / math.log(2) - 1e-5), NONE),
        tf.reduce_max(places, axis=-2),
        tf.ones_like(limit),
    )
    return Bits(*(tf.stop_gradient(b) for b in (bits.integer, bits.fraction, bits.sign)))


def _activation(layer: FixedActivation, x: Bits) -> Priced:
    own = own_bits(layer)
    sign = own.sign * (0.0 if layer.function == "relu" else x.sign)
    integer, fraction = tf.minimum(own.integer, x.integer), tf.minimum(own.fraction, x.fraction)
    return Bits(integer, fraction, sign), None


def _projection(layer: PartitionedProjection, x: Bits) -> Priced:
    bits = constant_bits(layer)
    particles, columns = x.width.shape
    if layer.mode == "dense":
        each = tf.reduce_sum(bits, -1)  # (H, N): of all products of a particle
    else:
        each = tf.reshape(bits, (layer.heads, -1))[:, :particles]
    width = x.width
    if not layer.broadcast:
        width = tf.reshape(width, (particles, layer.heads, columns // layer.heads))
    width = tf.reduce_sum(width, -1)  # (N,) or (N, H)
    each = tf.transpose(each)
    cost = tf.reduce_sum((width[:, None] if layer.broadcast else width) * each)
    return Bits.of(_declared(layer.output_type), layer.output_shape[1:]), LUTS["constant"] * cost


def _head_dense(layer: HeadDense, x: Bits) -> Priced:
    width = tf.reshape(tf.reduce_sum(x.width, 0), layer.kernel.shape[:2])
    cost = tf.reduce_sum(width * tf.reduce_sum(constant_bits(layer), -1))
    return Bits.of(_declared(layer.output_type), layer.output_shape[1:]), LUTS["constant"] * cost


def _head_filter(layer: HeadFilter, x: Bits) -> Priced:
    rows, columns = x.width.shape
    width = tf.reshape(x.width, (rows, layer.heads, columns // layer.heads))
    used = _taps(rows, layer.kernel.shape[1])
    each = tf.tensordot(used, tf.transpose(constant_bits(layer)), 1)  # (rows, H)
    cost = tf.reduce_sum(tf.reduce_sum(width, -1) * each)
    return Bits.of(_declared(layer.output_type), layer.output_shape[1:]), LUTS["constant"] * cost


def _taps(rows: int, height: int) -> tf.Tensor:
    """(rows, height): whether a weight of a filter with SAME padding meets a row."""
    up = padding(height)[0]
    target = np.arange(rows)[:, None] - np.arange(height) + up
    return tf.constant((target >= 0) & (target < rows), tf.float32)


def _attention(layer: ConvAttention, query: Bits, key: Bits, value: Bits) -> Priced:
    heads, types = layer.heads, _declared(layer.types)
    particles, partitions = query.width.shape[0], key.width.shape[0]
    q, k, v = (
        tf.reshape(b.width, (b.width.shape[0], heads, b.width.shape[1] // heads))
        for b in (query, key, value)
    )
    depth, rows = q.shape[-1], particles * heads
    width = {name: float(kind.width) for name, kind in types.items()}
    argument = width.get("conv", width["logits"])
    variable = tf.reduce_sum(tf.einsum("nhd,chd->", q, k))
    constant = 0.0
    if layer.kernel is not None:
        taps = [
            tf.reduce_sum(_taps(*size), 0)
            for size in zip((particles, partitions), layer.kernel.shape, strict=True)
        ]
        bits = tf.reduce_sum(constant_bits(layer) * taps[0][:, None] * taps[1])
        constant = heads * width["logits"] * bits
    total = 0.65 * (partitions - 1) * width["exp"]
    maximum = 0.0
    if layer.stable:
        maximum = (partitions - 1) * argument
        total += 0.65 * partitions * argument  # each is subtracted from the maximum
    if layer.normalize == "weights":
        variable += rows * partitions * width["exp"] * width["reciprocal"]
        weights = width["attention"]
    else:
        variable += rows * depth * width["context"] * width["reciprocal"]
        weights = width["exp"]
    variable += particles * weights * tf.reduce_sum(v)
    tables = partitions * _table(argument, width["exp"])
    tables += _table(width["sum"], width["reciprocal"])
    cost = LUTS["constant"] * constant + LUTS["variable"] * variable
    cost += rows * (LUTS["sum"] * total + LUTS["maximum"] * maximum + LUTS["table"] * tables)
    return Bits.of(types["output"], layer.output_shape[1:]), cost


def _tanh(layer: DynamicTanh, x: Bits) -> Priced:
    """The entries are those that the next layer leaves, if it takes less than the declared type."""
    argument = Bits.of(_declared(layer.input_type), x.width.shape)
    integer = tf.minimum(argument.integer, x.integer)
    inside = Bits(integer, tf.minimum(argument.fraction, x.fraction), argument.sign * x.sign)
    entries = Bits.of(_declared(layer.output_type), x.width.shape)
    followers = [node.layer for node in layer.outbound_nodes]
    kept = entries
    if [type(f) for f in followers] == [FixedActivation]:
        kept, _ = _activation(followers[0], entries)
    return entries, LUTS["table"] * tf.reduce_sum(_table(inside.width, kept.width))


def _table(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    inputs = tf.convert_to_tensor(inputs, tf.float32)
    return outputs * tf.where(inputs > 6, 2.0 ** (inputs - 6), inputs / 6)


def _all_but_smallest(widths: tf.Tensor) -> tf.Tensor:
    """The sum along the first axis, without the smallest of those that are not 0."""
    smallest = tf.reduce_min(tf.where(widths > 0, widths, np.inf), 0)
    total = tf.reduce_sum(widths, 0)
    return tf.where(total > 0, total - smallest, tf.zeros_like(total))


def _add(layer: tf.keras.layers.Add, *terms: Bits) -> Priced:
    names = ("integer", "fraction", "sign")
    stacked = Bits(*(tf.stack([getattr(t, name) for t in terms]) for name in names))
    largest = stacked.largest(0)
    carry = tf.cast(tf.reduce_sum(tf.cast(stacked.live, tf.float32), 0) > 1, tf.float32)
    bits = Bits(largest.integer + carry, largest.fraction, largest.sign)
    cost = 0.65 * tf.reduce_sum(_all_but_smallest(stacked.width))
    return bits, LUTS["sum"] * cost


def _pool(layer: tf.keras.layers.GlobalMaxPooling1D, x: Bits) -> Priced:
    return x.largest(0), LUTS["maximum"] * tf.reduce_sum(_all_but_smallest(x.width))


_RULES: dict[type, Callable[..., Priced]] = {
    QDense: _dense,
    FixedActivation: _activation,
    PartitionedProjection: _projection,
    HeadDense: _head_dense,
    HeadFilter: _head_filter,
    ConvAttention: _attention,
    DynamicTanh: _tanh,
    tf.keras.layers.Add: _add,
    tf.keras.layers.GlobalMaxPooling1D: _pool,
}
