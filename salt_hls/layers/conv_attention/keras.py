"""Attention over projected keys with SAL-T's convolution of the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers.conv_attention import operation
from salt_hls.layers.conv_attention.operation import (
    Normalize,
    Scale,
    exp_scale,
    scale_shift,
    type_names,
)
from salt_hls.layers.head_filter.keras import FoldedFilters
from salt_hls.layers.keras_ops import (
    ExactLayer,
    lookup,
    quantize,
    quantized,
    quantizer_config,
    weight_quantizer,
)


@tf.keras.utils.register_keras_serializable("salt_hls")
class ConvAttention(ExactLayer):
    """Called with the list [q (batch, N, H * D), k, v (batch, p, H * D)]; see `operation`.

    heads: H. filter_heights: heights of the averaged filters, folded into one kernel (max height,
    p); none means no convolution. kernel_quantizer: QKeras quantizer on a fixed grid (`alpha=1`).
    types: the `ap_fixed<...>` text of each of `type_names`, or `None` for float. stable: whether
    the row's largest logit is subtracted before exp. normalize: what is
    divided by the sum of exponentials, the "weights" or the "context". scale: where 1/sqrt(D) is,
    in the "logits" as a power of two or in exp's "table".
    """

    operation_class = operation.ConvAttention

    def __init__(
        self,
        heads: int,
        filter_heights: Sequence[int] = (),
        kernel_quantizer: Any = None,
        types: dict[str, str] | None = None,
        stable: bool = True,
        normalize: Normalize = "weights",
        scale: Scale = "logits",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.filter_heights = heads, tuple(filter_heights)
        self.kernel_quantizer = weight_quantizer(kernel_quantizer)
        for key, value, choices in (
            ("normalize", normalize, get_args(Normalize)),
            ("scale", scale, get_args(Scale)),
        ):
            if value not in choices:
                known = " or ".join(choices)
                raise UserError(f"layer {self.name}: {key} must be {known}, got {value!r}")
        self.stable, self.normalize, self.scale = bool(stable), normalize, scale
        wanted = list(type_names(bool(self.filter_heights), normalize))
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
        return self._weights(*self._exponentials(self._convolve(self.logits(query, key))))

    def logits(self, query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """q.k / 2^shift before the convolution, (batch, H, N, p)."""
        shift = scale_shift(query.shape[-1] // self.heads) if self.scale == "logits" else 0
        products = tf.einsum("bnhd,bchd->bhnc", self._split(query), self._split(key))
        return quantize(products * 2.0**-shift, self._type("logits"))

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        query, key, value = inputs
        exp, reciprocal = self._exponentials(self._convolve(self.logits(query, key)))
        if self.normalize == "weights":
            exp = self._weights(exp, reciprocal)
        context = tf.einsum("bhnc,bchd->bhnd", exp, self._split(value))
        if self.normalize == "context":
            context = quantize(context, self._type("context")) * reciprocal
        context = tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (-1, *query.shape[1:]))
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

    def _exponentials(self, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """exp of convolved logits (batch, H, N, p), and one by its sums (batch, H, N, 1)."""
        scale = exp_scale(self.shapes[0][-1] // self.heads, self.scale)
        # The maximum cancels in softmax: without its gradient that of the logits is the true one.
        largest = tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True))
        if self.types is None:
            exp = tf.exp((logits - largest) * scale)
            return exp, 1 / tf.reduce_sum(exp, axis=-1, keepdims=True)
        if self.stable:
            exp = lookup(self._tables.exp_table, largest - logits, lambda d: tf.exp(-d * scale))
        else:
            bounds = self.types["exp"].lsb, self.types["exp"].max
            exp = lookup(
                self._tables.exp_table,
                logits,
                lambda c: tf.clip_by_value(tf.exp(c * scale), *bounds),
            )
        total = quantize(tf.reduce_sum(exp, axis=-1, keepdims=True), self.types["sum"])
        table = self._tables.reciprocal_table(logits.shape[-1])
        return exp, lookup(table, total, lambda s: 1 / s)

    def _weights(self, exp: tf.Tensor, reciprocal: tf.Tensor) -> tf.Tensor:
        # What is normalized after the context has no rounded weights.
        rounded = self.normalize == "weights"
        return quantize(exp * reciprocal, self._type("attention") if rounded else None)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "filter_heights": list(self.filter_heights),
            "kernel_quantizer": quantizer_config(self.kernel_quantizer),
            "types": None if self.types is None else {k: str(t) for k, t in self.types.items()},
            "stable": self.stable,
            "normalize": self.normalize,
            "scale": self.scale,
        }
