"""Dynamic tanh, which stands where LayerNorm would (arXiv 2503.10622), scalars only."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from salt_hls.layers.dynamic_tanh import operation
from salt_hls.layers.keras_ops import ExactLayer, parsed_type, quantize, value_with_gradient_of


@tf.keras.utils.register_keras_serializable("salt_hls")
class DynamicTanh(ExactLayer):
    """y = tanh(alpha x + beta) with trained scalars, starting at 1 and 0; see `operation`.

    input_type, output_type: `ap_fixed<...>` texts of the table's argument and entries, or `None`.
    """

    operation_class = operation.DynamicTanh

    def __init__(
        self, input_type: str | None = None, output_type: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.input_type = parsed_type(input_type)
        self.output_type = parsed_type(output_type)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.alpha = self.add_weight(name="alpha", shape=(1,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(1,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = quantize(inputs, self.input_type)
        y = tf.tanh(self.alpha * x + self.beta)
        if self.output_type is None:
            return y
        # The table is made in float64; rounding a float32 tanh would miss an entry now and then.
        alpha, beta = tf.cast(self.alpha, tf.float64), tf.cast(self.beta, tf.float64)
        exact = tf.tanh(alpha * tf.cast(x, tf.float64) + beta)
        entry = tf.cast(quantize(exact, self.output_type), y.dtype)
        return value_with_gradient_of(entry, y)
