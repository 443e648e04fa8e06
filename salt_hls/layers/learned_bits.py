"""A QKeras quantizer of weights that learns how many fraction bits each of them needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from qkeras.quantizers import BaseQuantizer


@tf.keras.utils.register_keras_serializable("salt_hls")
class LearnedBits(BaseQuantizer):  # type: ignore[misc]
    """w on a grid of its own inside ap_fixed<bits, integer + 1>; `integer` excludes the sign.

    With f = round(fraction_bits), one for each weight, w is clipped to -2^integer ...
    2^integer - 2^-f and rounded half to even to steps of 2^-f. f is at most the type's own number
    of fraction bits, so each value is one of `quantized_bits(bits, integer, alpha=1)`; at
    f <= -integer, where nothing is left of the width, it is 0: the weight is pruned.

    The variable, of the weight's shape, belongs to the layer that calls the quantizer, and has the
    weight's name: `kernel_fraction_bits`. `save_weights` keeps it, and so do Keras' own .h5 files;
    its .keras files leave out what quantizers have. Gradients are straight-through for the weight,
    and dq/df = ln 2 (w - q), from q = R(w 2^f) 2^-f with dR(x)/dx = 1.
    """

    def __init__(self, bits: int = 8, integer: int = 0) -> None:
        super().__init__()
        self.bits, self.integer = bits, integer
        self.keep_negative = True
        self.fraction_bits: tf.Variable | None = None

    @property
    def most(self) -> int:
        """The greatest number of fraction bits; `-integer` is the least."""
        return self.bits - 1 - self.integer

    def __call__(self, weight: tf.Tensor) -> tf.Tensor:
        if self.fraction_bits is None:
            self._begin(weight)
        return self.quantized(weight, self.fraction_bits)

    def quantized(self, weight: tf.Tensor, fraction_bits: tf.Tensor) -> tf.Tensor:
        """The weight at given numbers of fraction bits."""

        @tf.custom_gradient
        def quantize(w: tf.Tensor, fraction: tf.Tensor) -> Any:
            f, limit = self.rounded(fraction), 2.0**self.integer
            step = self._step(f)
            code = tf.round(tf.clip_by_value(w, -limit, limit - step) / step)
            value = tf.where(f > -self.integer, code * step, tf.zeros_like(w))

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                return upstream, upstream * math.log(2) * (w - value)

            return value, gradient

        return quantize(tf.convert_to_tensor(weight), tf.convert_to_tensor(fraction_bits))

    def rounded(self, fraction_bits: tf.Tensor) -> tf.Tensor:
        """The whole number of fraction bits that is used for each weight."""
        return tf.clip_by_value(tf.round(fraction_bits), -float(self.integer), float(self.most))

    def _step(self, f: tf.Tensor) -> tf.Tensor:
        """2^-f, exactly, which tf.pow does not promise; NaN stays NaN."""
        powers = 2.0 ** -np.arange(-self.integer, self.most + 1)
        known = tf.where(tf.math.is_nan(f), tf.zeros_like(f), f)
        index = tf.cast(known, tf.int32) + self.integer
        return tf.gather(tf.constant(powers, f.dtype), index) + (f - f)

    def _begin(self, weight: tf.Tensor) -> None:
        name = f"{weight.name.split(':')[0]}_" if isinstance(weight, tf.Variable) else ""
        with tf.init_scope():  # the first call may be inside a graph
            start = tf.fill(weight.shape, float(self.most))
            self.fraction_bits = tf.Variable(start, name=f"{name}fraction_bits")

    # QKeras hides the variables of its quantizers; Keras trains and saves those that it sees.
    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        return () if self.fraction_bits is None else (self.fraction_bits,)

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        return self.trainable_variables

    def max(self) -> float:
        """Greatest value of any weight."""
        return float(2.0**self.integer - 2.0**-self.most)

    def min(self) -> float:
        """Least value of any weight."""
        return float(-(2.0**self.integer))

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "integer": self.integer}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearnedBits:
        return cls(**config)

    def __str__(self) -> str:
        return f"LearnedBits({self.bits},{self.integer})"
