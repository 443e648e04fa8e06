"""Partitioned projection of keys or values, and Linformer's dense one."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.layers.keras_ops import (
    ExactLayer,
    parsed_type,
    quantize,
    quantized,
    require_heads,
    weight_quantizer,
)
from salt_hls.layers.partitioned_projection import operation
from salt_hls.layers.partitioned_projection.operation import Mode, kernel_shape


@tf.keras.utils.register_keras_serializable("salt_hls")
class PartitionedProjection(ExactLayer):
    """(batch, N, columns) to (batch, p, heads * columns per head); see `operation`.

    heads, partitions: H and p. mode: "partitioned" (chunks of ceil(N/p) particles, weights
    (H, p, L)) or "dense" (weights (H, N, p)). broadcast: every head projects all columns.
    kernel_quantizer: QKeras quantizer on a fixed grid (`alpha=1`). output_type: `ap_fixed<...>`
    text, or `None` for float.
    """

    operation_class = operation.PartitionedProjection

    def __init__(
        self,
        heads: int,
        partitions: int,
        mode: Mode = "partitioned",
        broadcast: bool = False,
        kernel_quantizer: Any = None,
        output_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mode not in ("partitioned", "dense"):
            raise UserError(f"layer {self.name}: mode must be partitioned or dense, got {mode!r}")
        self.heads, self.partitions, self.mode = heads, partitions, mode
        self.broadcast = broadcast
        self.kernel_quantizer = weight_quantizer(kernel_quantizer)
        self.output_type = parsed_type(output_type)

    def build(self, input_shape: tf.TensorShape) -> None:
        _, particles, columns = input_shape
        if self.partitions > particles:
            raise UserError(
                f"layer {self.name}: partitions must be at most the {particles} particles, "
                f"got {self.partitions}"
            )
        if not self.broadcast:
            require_heads(self, columns)
        shape = kernel_shape(self.mode, self.heads, self.partitions, particles)
        terms = shape[1] if self.mode == "dense" else shape[2]
        self.kernel = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=tf.keras.initializers.TruncatedNormal(stddev=1 / math.sqrt(terms)),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, particles, columns = inputs.shape
        kernel = quantized(self.kernel, self.kernel_quantizer)
        if self.broadcast:
            x = inputs[:, :, None, :]
        else:
            x = tf.reshape(inputs, (-1, particles, self.heads, columns // self.heads))
        head = "x" if self.broadcast else "h"
        if self.mode == "dense":
            y = tf.einsum(f"hnr,bn{head}d->brhd", kernel, x)
        else:
            chunk = self.kernel.shape[2]
            x = tf.pad(x, ((0, 0), (0, self.partitions * chunk - particles), (0, 0), (0, 0)))
            x = tf.reshape(x, (-1, self.partitions, chunk, *x.shape[2:]))
            y = tf.einsum(f"hcl,bcl{head}d->bchd", kernel, x)
        y = tf.reshape(y, (-1, self.partitions, self.heads * y.shape[-1]))
        return quantize(y, self.output_type)
