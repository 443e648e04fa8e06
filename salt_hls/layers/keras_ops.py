"""What the Keras layers share: exact quantization in the forward pass, useful gradients behind it.

Forward values are grid floats in float32, exact while sums stay below 24 bits; gradients are those
of the float function (straight-through), and zero where a saturating type clips.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from qkeras import get_quantizer

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType, Table
from salt_hls.layers.layer import LayerOperation, Shape

if str(getattr(tf.keras, "__version__", "")).startswith("3"):  # too late to choose another one
    raise UserError(
        "tf.keras is Keras 3, and salt-hls' layers are of Keras 2: import salt_hls before "
        "tensorflow and qkeras, or set TF_USE_LEGACY_KERAS=1"
    )

Quantizer = Callable[[tf.Tensor], tf.Tensor]


@tf.custom_gradient
def value_with_gradient_of(value: tf.Tensor, surrogate: tf.Tensor) -> Any:
    """`value`, bit for bit, with the gradient of `surrogate` (same shape).

    The usual `x + stop_gradient(q - x)` rounds in float32; this does not.
    """

    def gradient(upstream: tf.Tensor) -> tuple[None, tf.Tensor]:
        return None, upstream

    return tf.identity(value), gradient


def quantize(x: tf.Tensor, fixed_type: FixedType | None) -> tf.Tensor:
    """`FixedType.quantize` for tensors, in their own float type; `None` leaves `x` as it is."""
    if fixed_type is None:
        return x
    scaled = tf.stop_gradient(x) * 2.0**fixed_type.frac_bits
    if fixed_type.rounding == "TRN":
        code = tf.floor(scaled)
    elif fixed_type.rounding == "RND":
        code = _round_half_up(scaled)
    else:
        code = tf.round(scaled)
    if fixed_type.overflow == "WRAP":
        low = -(2.0 ** (fixed_type.width - 1)) if fixed_type.signed else 0.0
        code = tf.math.floormod(code - low, 2.0**fixed_type.width) + low
        return value_with_gradient_of(code * fixed_type.lsb, x)
    low, high = fixed_type.min, fixed_type.max
    value = tf.clip_by_value(code * fixed_type.lsb, low, high)
    return value_with_gradient_of(value, tf.clip_by_value(x, low, high))


def quantize_elements(
    x: tf.Tensor, integer_bits: tf.Tensor, fraction_bits: tf.Tensor, container: FixedType
) -> tf.Tensor:
    """`ElementTypes.quantize` for tensors, of bits as they are trained, with gradients for these.

    x: (batch, *shape of the bits). With bits rounded to i and f, q is x clipped to [-k 2**i, M],
    M = 2**i - 2**-f, and then rounded. Rounding and the container's limits pass straight through:
    inside, dq/dx = 1 and dq/df = ln 2 (x - q); above M, dq/di = ln 2 2**i and dq/df = ln 2 2**-f;
    below -2**i, dq/di = -ln 2 2**i; all others are 0. A pruned element keeps
    dq/df = ln 2 x, for x clipped to [-k 2**i, 2**i], by which it may come back.
    """
    most_i, most_f = container.int_bits - container.signed, container.frac_bits
    powers = 2.0 ** np.arange(-most_f, most_i + 1)

    def power(exponent: tf.Tensor) -> tf.Tensor:
        """2**exponent, exactly, which tf.pow does not promise; NaN stays NaN."""
        known = tf.where(tf.math.is_nan(exponent), tf.zeros_like(exponent), exponent)
        index = tf.cast(known, tf.int32) + most_f
        return tf.gather(tf.constant(powers, exponent.dtype), index) + (exponent - exponent)

    @tf.custom_gradient
    def quantized(x: tf.Tensor, integer_bits: tf.Tensor, fraction_bits: tf.Tensor) -> Any:
        i = tf.clip_by_value(tf.round(integer_bits), -most_f, most_i)
        f = tf.clip_by_value(tf.round(fraction_bits), -most_i, most_f)
        pruned = i + f <= 0
        top, step = power(i), power(-f)
        low = -top if container.signed else tf.zeros_like(top)
        high = top - step
        clipped = tf.clip_by_value(x, low, tf.where(pruned, top, high))
        q = tf.where(pruned, tf.zeros_like(x), _round_half_up(clipped / step) * step)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            above, below = ~pruned & (x > high), ~pruned & (x < low)
            zero = tf.zeros_like(x)
            by_x = tf.where(pruned | above | below, zero, upstream)
            by_i = tf.where(above, top, tf.where(below, low, zero))
            by_f = tf.where(above, step, clipped - q)
            return by_x, *(
                _summed_to(np.log(2.0) * upstream * d, integer_bits) for d in (by_i, by_f)
            )

        return q, gradient

    return quantized(x, tf.convert_to_tensor(integer_bits), tf.convert_to_tensor(fraction_bits))


def _summed_to(gradient: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A gradient, summed over the axes along which `like` was repeated."""
    shapes = tf.shape(gradient), tf.shape(like)
    _, axes = tf.raw_ops.BroadcastGradientArgs(s0=shapes[0], s1=shapes[1])
    return tf.reshape(tf.reduce_sum(gradient, axes), shapes[1])


def _round_half_up(scaled: tf.Tensor) -> tf.Tensor:
    """To whole numbers; floor(x + 0.5) rounds its sum in float32 where x has 24 bits."""
    below = tf.floor(scaled)
    return below + tf.cast(scaled - below >= 0.5, scaled.dtype)


def lookup(table: Table, x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`fixed.lookup` for tensors, with the gradient of the tabulated `function`."""
    position = (tf.stop_gradient(x) - table.first) * 2.0**table.source.frac_bits
    entries = tf.constant(table.entries.astype(np.float32))
    value = tf.gather(entries, tf.cast(tf.round(position), tf.int32))
    return value_with_gradient_of(value, function(x))


def parsed_type(text: str | None) -> FixedType | None:
    """The type of an `ap_fixed<...>` text; `None`, for float, stays `None`."""
    return None if text is None else FixedType.parse(text)


def weight_quantizer(spec: Any) -> Quantizer | None:
    """A QKeras weight quantizer from its text, config or object; `None` stays `None`."""
    return None if spec is None else get_quantizer(spec)


def quantizer_config(quantizer: Any) -> Any:
    """The JSON form of a quantizer, which `weight_quantizer` reads back; of a function its name."""
    if quantizer is None:
        return None
    if hasattr(quantizer, "get_config"):
        kind = tf.keras.utils.get_registered_name(type(quantizer))
        return {"class_name": kind, "config": quantizer.get_config()}
    return {"class_name": getattr(quantizer, "__name__", str(quantizer)), "config": {}}


def quantized(weight: tf.Tensor, quantizer: Quantizer | None) -> tf.Tensor:
    """The weight as the forward pass uses it."""
    return weight if quantizer is None else quantizer(weight)


class ExactLayer(tf.keras.layers.Layer):
    """A layer with a fixed-point operation, of the class of this name in its `operation.py`.

    Every argument of its constructor becomes an attribute of the same name: a type, a quantizer, or
    what JSON has.
    """

    operation_class: ClassVar[type[LayerOperation]]

    def build(self, input_shape: Any) -> None:
        # One shape or several; a saved model has them as lists.
        several = isinstance(input_shape, list) and not isinstance(input_shape[-1], int)
        shapes = input_shape if several else [input_shape]
        self.shapes = tuple(tuple(shape)[1:] for shape in shapes)
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        parameters = inspect.signature(self.__init__).parameters.values()  # type: ignore[misc]
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        return {**super().get_config(), **{name: _as_json(getattr(self, name)) for name in names}}

    def operation(self) -> LayerOperation:
        """The operation with the present weights, for the shapes the layer was built with."""
        return self.operation_class.from_keras(self.get_config(), self.shapes, self._weight)

    def _weight(self, name: str, shape: Shape) -> NDArray[np.float64]:
        weight = tf.convert_to_tensor(getattr(self, name))
        value = quantized(weight, getattr(self, f"{name}_quantizer", None))
        return np.asarray(value, np.float64).reshape(shape)


def _as_json(value: Any) -> Any:
    if isinstance(value, FixedType):
        return str(value)
    return quantizer_config(value) if callable(value) else value


def require_heads(layer: tf.keras.layers.Layer, columns: int) -> None:
    """Raises `UserError` unless each of the layer's `heads` has as many of the columns."""
    if columns % layer.heads:
        raise UserError(
            f"layer {layer.name}: {columns} columns do not divide into {layer.heads} heads"
        )


def quantizer_of(layer: tf.keras.layers.Layer, weight: str) -> Any:
    """The quantizer object of a layer's "kernel" or "bias", or `None`."""
    quantizer = getattr(layer, f"{weight}_quantizer_internal", None)  # QKeras' own layers
    return quantizer or getattr(layer, f"{weight}_quantizer", None)
