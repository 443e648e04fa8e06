"""Dense layer with one matrix per head."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from salt_hls.layers.head_dense import operation
from salt_hls.layers.keras_ops import (
    ExactLayer,
    parsed_type,
    quantize,
    quantized,
    require_heads,
    weight_quantizer,
)


@tf.keras.utils.register_keras_serializable("salt_hls")
class HeadDense(ExactLayer):
    """(batch, rows, H * d) to (batch, rows, H * depth), no bias; see `operation`.

    heads, depth: H and the columns each head gives. kernel_quantizer: QKeras quantizer on a fixed
    grid (`alpha=1`). output_type: `ap_fixed<...>` text, or `None` for float.
    """

    operation_class = operation.HeadDense

    def __init__(
        self,
        heads: int,
        depth: int,
        kernel_quantizer: Any = None,
        output_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.depth = heads, depth
        self.kernel_quantizer = weight_quantizer(kernel_quantizer)
        self.output_type = parsed_type(output_type)

    def build(self, input_shape: tf.TensorShape) -> None:
        columns = input_shape[-1]
        require_heads(self, columns)
        # The matrices side by side are one key matrix (d, H * D): its fan-out counts.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.heads, columns // self.heads, self.depth),
            initializer=tf.keras.initializers.RandomUniform(
                -(limit := (6 / (columns // self.heads + self.heads * self.depth)) ** 0.5), limit
            ),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, rows, columns = inputs.shape
        x = tf.reshape(inputs, (-1, rows, self.heads, columns // self.heads))
        y = tf.einsum("brhi,hio->brho", x, quantized(self.kernel, self.kernel_quantizer))
        return quantize(tf.reshape(y, (-1, rows, self.heads * self.depth)), self.output_type)
