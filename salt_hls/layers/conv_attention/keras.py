"""Attention over projected keys with SAL-T's convolution of the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers.conv_attention import operation
from salt_hls.layers.conv_attention.operation import TYPES, padding, scale_shift
from salt_hls.layers.keras_ops import (
    ExactLayer,
    lookup,
    quantize,
    quantized,
    quantizer_config,
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


@tf.keras.utils.register_keras_serializable("salt_hls")
class ConvAttention(ExactLayer):
    """Called with the list [q (batch, N, H * D), k, v (batch, p, H * D)]; see `operation`.

    heads: H. filter_heights: heights of the averaged filters, folded into one kernel (max height,
    p); none means no convolution. kernel_quantizer: QKeras quantizer on a fixed grid (`alpha=1`).
    types: the `ap_fixed<...>` text of each of `TYPES` (no "conv" without filters), or `None` for
    float.
    """

    operation_class = operation.ConvAttention

    def __init__(
        self,
        heads: int,
        filter_heights: Sequence[int] = (),
        kernel_quantizer: Any = None,
        types: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.filter_heights = heads, tuple(filter_heights)
        self.kernel_quantizer = weight_quantizer(kernel_quantizer)
        wanted = [t for t in TYPES if t != "conv" or self.filter_heights]
        if types is not None and sorted(types) != sorted(wanted):
            raise UserError(f"layer {self.name}: types must be {wanted}, got {sorted(types)}")
        self.types = None if types is None else {key: FixedType.parse(types[key]) for key in wanted}

    def build(self, input_shape: list[tf.TensorShape]) -> None:
        query, key, value = input_shape
        if query[-1] % self.heads or key[-1] != query[-1] or value[-1] != query[-1]:
            raise UserError(
                f"layer {self.name}: q, k, v need the same number of columns, a multiple of "
                f"{self.heads} heads, got {query[-1]}, {key[-1]}, {value[-1]}"
            )
        if self.types is not None:
            # The tables depend on the types alone; a wrong type is an error here, not in `call`.
            config = {**self.get_config(), "filter_heights": ()}
            shapes = [tuple(shape)[1:] for shape in input_shape]
            self._tables = operation.ConvAttention.from_keras(config, shapes, self._weight)
        self.kernel = None
        if self.filter_heights:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(max(self.filter_heights), key[-2]),
                initializer=FoldedFilters(self.filter_heights),
            )
        super().build(input_shape)

    def attention(self, query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Attention weights (batch, H, N, p)."""
        return self._softmax(self._convolve(self.logits(query, key)))

    def logits(self, query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """q.k / 2^shift before the convolution, (batch, H, N, p)."""
        scale = 2.0 ** -scale_shift(query.shape[-1] // self.heads)
        products = tf.einsum("bnhd,bchd->bhnc", self._split(query), self._split(key))
        return quantize(products * scale, self._type("logits"))

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        query, key, value = inputs
        attention = self.attention(query, key)
        context = tf.einsum("bhnc,bchd->bnhd", attention, self._split(value))
        context = tf.reshape(context, (-1, *query.shape[1:]))
        return quantize(context, self._type("output"))

    def _type(self, name: str) -> FixedType | None:
        return None if self.types is None else self.types[name]

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, (-1, x.shape[1], self.heads, x.shape[2] // self.heads))

    def _convolve(self, logits: tf.Tensor) -> tf.Tensor:
        if self.kernel is None:
            return logits
        _, heads, particles, partitions = logits.shape
        kernel = quantized(self.kernel, self.kernel_quantizer)
        image = tf.reshape(logits, (-1, particles, partitions, 1))
        image = tf.nn.conv2d(image, kernel[:, :, None, None], strides=1, padding="SAME")
        return quantize(tf.reshape(image, (-1, heads, particles, partitions)), self._type("conv"))

    def _softmax(self, logits: tf.Tensor) -> tf.Tensor:
        if self.types is None:
            return tf.nn.softmax(logits)
        # The maximum cancels in softmax: without its gradient that of the logits is the true one.
        difference = tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True)) - logits
        exp = lookup(self._tables.exp_table, difference, lambda d: tf.exp(-d))
        total = quantize(tf.reduce_sum(exp, axis=-1, keepdims=True), self.types["sum"])
        reciprocal = lookup(self._tables.reciprocal_table(logits.shape[-1]), total, lambda s: 1 / s)
        return quantize(exp * reciprocal, self.types["attention"])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "filter_heights": list(self.filter_heights),
            "kernel_quantizer": quantizer_config(self.kernel_quantizer),
            "types": None if self.types is None else {k: str(t) for k, t in self.types.items()},
        }
