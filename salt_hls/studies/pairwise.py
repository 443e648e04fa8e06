"""SAL-T with a pairwise attention bias, float only: an open question of its paper.

Particle Transformer (arXiv 2202.03772) adds a bias to the logits of full attention, learned from
features of each pair of particles. SAL-T attends to partitions instead, so here the pair is a
particle and a partition: the sum of the partition's particles, at their pT-weighted centre.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from salt_hls.config import Inputs, ModelConfig
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.models.build import Builder, build_model

HIDDEN = 8
FLOOR = 1e-3
"""Least deltaR [rad], below the steps of the input grid; keeps logarithms finite."""


def build_biased_model(config: ModelConfig) -> tf.keras.Model:
    """The float SAL-T of `config` (batch, N, 3) with a pairwise bias in every block.

    The bias starts at 0: before training the model is SAL-T.
    """
    return build_model(config, quantized=False, builder=_BiasedBuilder)


class PairwiseBias(tf.keras.layers.Layer):
    """Particles (batch, N, 3) on the grid of `inputs` to a bias (batch, H, N, p) of the logits.

    Features of a particle of transverse momentum a and a partition of b at distance deltaR:
    ln deltaR, ln(min(a, b) deltaR) and ln(min(a, b) / (a + b)), as in Particle Transformer, all 0
    for padding. One hidden layer makes a bias for each head of them.
    """

    def __init__(self, heads: int, partitions: int, inputs: Inputs, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.partitions, self.inputs = partitions, inputs
        self.hidden = tf.keras.layers.Dense(HIDDEN, activation="relu")
        self.heads = tf.keras.layers.Dense(heads, kernel_initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.transpose(self.heads(self.hidden(self.features(inputs))), (0, 3, 1, 2))

    def features(self, particles: tf.Tensor) -> tf.Tensor:
        """The three features of each particle and partition, (batch, N, p, 3)."""
        columns = []
        for i, feature in enumerate(self.inputs.features):
            value = particles[..., i] / feature.scale
            columns.append(2.0**value - 1 if feature.curve == "log2" else value)
        pt, *angles = columns
        total = self._sums(pt)
        distance2 = tf.constant(FLOOR**2)
        for angle in angles:
            centre = tf.math.divide_no_nan(self._sums(pt * angle), total)
            distance2 += (angle[:, :, None] - centre[:, None, :]) ** 2
        a, b = pt[:, :, None], total[:, None, :]
        real = tf.cast((a > 0) & (b > 0), tf.float32)
        softer = tf.where(real > 0, tf.minimum(a, b), 1.0)
        log_distance = tf.math.log(distance2) / 2
        shares = tf.math.log(softer / tf.where(real > 0, a + b, 1.0))
        features = [log_distance, tf.math.log(softer) + log_distance, shares]
        return tf.stack(features, axis=-1) * real[..., None]

    def _sums(self, values: tf.Tensor) -> tf.Tensor:
        """Sums (batch, p) over the particles of each partition."""
        particles = values.shape[1]
        chunk = -(-particles // self.partitions)
        padded = tf.pad(values, ((0, 0), (0, self.partitions * chunk - particles)))
        return tf.reduce_sum(tf.reshape(padded, (-1, self.partitions, chunk)), axis=-1)


class _BiasedAttention(ConvAttention):
    """`ConvAttention` called with [q, k, v, bias]; the bias follows the convolution."""

    def build(self, input_shape: list[tf.TensorShape]) -> None:
        super().build(input_shape[:3])

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        query, key, value, bias = inputs
        exp, reciprocal = self._exponentials(self._convolve(self.logits(query, key)) + bias)
        context = tf.einsum("bhnc,bchd->bnhd", exp * reciprocal, self._split(value))
        return tf.reshape(context, (-1, *query.shape[1:]))


class _BiasedBuilder(Builder):
    def attend(self, tensors: list[tf.Tensor], prefix: str) -> tf.Tensor:
        config = self.config
        bias = PairwiseBias(
            config.heads, config.partitions, config.inputs, name=f"{prefix}pairwise_bias"
        )(self.particles)
        return _BiasedAttention(config.heads, config.kernel_heights, name=f"{prefix}attention")(
            [*tensors, bias]
        )
