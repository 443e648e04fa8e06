"""A filter along the rows, one for each head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.layers.head_filter import operation
from salt_hls.layers.head_filter.operation import padding
from salt_hls.layers.keras_ops import (
    ExactLayer,
    parsed_type,
    quantize,
    quantized,
    require_heads,
    weight_quantizer,
)


class FoldedFilters(tf.keras.initializers.Initializer):
    """The average of Glorot-uniform filters of the given heights, centred in one kernel."""

    def __init__(self, heights: Sequence[int]) -> None:
        self.heights = tuple(heights)

    def __call__(self, shape: Sequence[int], dtype: Any = None, **_: Any) -> tf.Tensor:
        height, width = shape
        up = padding(height)[0]
        total = tf.zeros(shape)
        for h in self.heights:
            limit = (6 / (h * width * 2)) ** 0.5
            top = up - padding(h)[0]
            filter_ = tf.random.uniform((h, width), -limit, limit)
            total += tf.pad(filter_, ((top, height - h - top), (0, 0))) / len(self.heights)
        return tf.cast(total, dtype or tf.float32)


class _FoldedFilterOfEachHead(FoldedFilters):
    def __call__(self, shape: Sequence[int], dtype: Any = None, **_: Any) -> tf.Tensor:
        heads, height = shape
        columns = [super(_FoldedFilterOfEachHead, self).__call__((height, 1)) for _ in range(heads)]
        return tf.cast(tf.transpose(tf.concat(columns, axis=1)), dtype or tf.float32)


@tf.keras.utils.register_keras_serializable("salt_hls")
class HeadFilter(ExactLayer):
    """(batch, rows, H * d) to the same shape, no bias; see `operation`.

    heads: H. heights: of the averaged filters, folded into one of the greatest height for each
    head. kernel_quantizer: QKeras quantizer on a fixed grid (`alpha=1`). output_type:
    `ap_fixed<...>` text, or `None` for float.
    """

    operation_class = operation.HeadFilter

    def __init__(
        self,
        heads: int,
        heights: Sequence[int],
        kernel_quantizer: Any = None,
        output_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.heights = heads, tuple(heights)
        if not self.heights or min(self.heights) < 1:
            raise UserError(f"layer {self.name}: heights must be 1 or more, got {list(heights)}")
        self.kernel_quantizer = weight_quantizer(kernel_quantizer)
        self.output_type = parsed_type(output_type)

    def build(self, input_shape: tf.TensorShape) -> None:
        require_heads(self, input_shape[-1])
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.heads, max(self.heights)),
            initializer=_FoldedFilterOfEachHead(self.heights),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, rows, columns = inputs.shape
        kernel = quantized(self.kernel, self.kernel_quantizer)
        kernel = tf.repeat(kernel, columns // self.heads, axis=0)  # one of each column
        height = kernel.shape[1]
        padded = tf.pad(inputs, ((0, 0), padding(height), (0, 0)))
        total = sum(padded[:, a : a + rows] * kernel[:, a] for a in range(height))
        return quantize(total, self.output_type)
