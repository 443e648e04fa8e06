"""SAL-T's attention: convolved logits over p projected keys, table softmax, context.

S[h, n, c] = Q(q[n, h, :] . k[c, h, :] / 2^shift)              logits (1/sqrt(D) as a shift)
C[h, n, c] = Q(sum_{a, j} K[a, j] S[h, n + a - up, c + j - left])   SAME zero padding
e = Q(exp(C - max_c C)),  s = Q(sum_c e),  A = Q(e * Q(1/s))   two tables, one product
o[n, h, :] = Q(sum_c A[h, n, c] v[c, h, :])

The published filters of several heights are linear and averaged, so they are the one kernel K;
their biases cancel in the softmax. Without a kernel C = S (Linformer, full attention with p = N).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer, Table
from salt_hls.graph.drains import Collect, Write
from salt_hls.graph.feeds import Read, Window
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import reading
from salt_hls.graph.tensor import Channel, Tensor
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type, weight_type

TYPES = ("logits", "conv", "exp", "sum", "reciprocal", "attention", "output")
"""The declared types, in the order in which values pass them."""

TABLE_ARGUMENTS = ("conv", "sum")
"""Those whose values are looked up: exp of differences in the type of conv, 1/sum."""


def padding(extent: int) -> tuple[int, int]:
    """TensorFlow's SAME zero padding of a filter: before, after (the extra zero comes last)."""
    return (extent - 1) // 2, extent // 2


def scale_shift(depth: int) -> int:
    """1/sqrt(D) as a right shift: exact when D is a power of four, else rounded down."""
    return int(math.log2(depth)) // 2


@dataclass(frozen=True, eq=False)
class ConvAttention(LayerOperation):
    """q (..., N, H * D), k and v (..., p, H * D) to (..., N, H * D), head-major.

    kernel: (height, p) grid floats of `kernel_type`, or `None`.
    """

    heads: int
    kernel: NDArray[np.float64] | None
    kernel_type: FixedType | None
    logits_type: FixedType
    conv_type: FixedType
    exp_type: FixedType
    sum_type: FixedType
    reciprocal_type: FixedType
    attention_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> ConvAttention:
        partitions = shapes[1][0]
        name = config["name"]
        if config["types"] is None:
            raise UserError(f"layer {name}: no types, so it is a float layer and has no firmware")
        named = {**config["types"], "name": name}
        named.setdefault("conv", named["logits"])
        types = {
            f"{key}_type": declared_type(named, key, table=key in TABLE_ARGUMENTS) for key in TYPES
        }
        for key in ("exp_type", "sum_type", "reciprocal_type", "attention_type"):
            if types[key].signed:
                raise UserError(
                    f"layer {name}: type {key[:-5]} must be ap_ufixed, got {types[key]}"
                )
        exp, total = types["exp_type"], types["sum_type"]
        one = float(exp.quantize(np.array(1.0)))
        if one < exp.max and one < 1:
            raise UserError(f"layer {name}: type exp {exp} must hold exp(0) = 1 or saturate (SAT)")
        least, most = (float(total.quantize(np.array(one * n))) for n in (1, partitions))
        if least <= 0 or most < one * partitions - total.lsb:
            raise UserError(
                f"layer {name}: type sum {total} must hold {one} and {partitions} x {one}; "
                "give it more bits"
            )
        kernel = kernel_type = None
        if config["filter_heights"]:
            kernel_type = weight_type(config["kernel_quantizer"], name)
            kernel = weight("kernel", (max(config["filter_heights"]), partitions))
        return ConvAttention(config["heads"], kernel, kernel_type, **types)

    @cached_property
    def exp_table(self) -> Table:
        """exp(-d) for every difference d = max C - C >= 0 of two values of `conv_type`."""
        source = self.conv_type.difference()
        entries = self.exp_type.quantize(np.exp(-np.arange(2**source.width) * source.lsb))
        return Table(source, self.exp_type.exact(), 0.0, entries)

    def reciprocal_table(self, partitions: int) -> Table:
        """1/s for every s between its least value exp(0) and its greatest p exp(0)."""
        one = self.exp_table.entries[0]
        least, most = (float(self.sum_type.quantize(one * n)) for n in (1, partitions))
        count = round((most - least) / self.sum_type.lsb) + 1
        s = least + np.arange(count) * self.sum_type.lsb
        entries = self.reciprocal_type.quantize(1 / s)
        return Table(self.sum_type, self.reciprocal_type.exact(), least, entries)

    def softmax(self, logits: Array, observer: Observer = UNOBSERVED) -> Array:
        """Softmax over the last axis: two tables, one exact sum, one product each."""
        # Never negative: the quantization changes no value, it tells the RTL so.
        difference = self.conv_type.difference().quantize(
            np.max(logits, axis=-1)[..., None] - logits
        )
        exp = observer.looked_up("exp", self.exp_table, difference)
        total = observer.rounded("sum", self.sum_type, np.sum(exp, axis=-1))
        table = self.reciprocal_table(logits.shape[-1])
        reciprocal = observer.looked_up("reciprocal", table, total)
        return observer.rounded("attention", self.attention_type, exp * reciprocal[..., None])

    def pad(self, logits: Array) -> Array:
        """(..., N, p) logits between the rows of zeros that the kernel sees above and below."""
        if self.kernel is None:
            return logits
        up, down = padding(len(self.kernel))
        return _pad(logits, -2, up, down)

    def convolve(self, padded: Array, observer: Observer = UNOBSERVED) -> Array:
        """Cross-correlation of each head's logits with the kernel; columns outside are zero.

        padded: (..., n + height - 1, p), the n rows and their neighbours, gives (..., n, p).
        """
        if self.kernel is None:
            return padded
        height, width = self.kernel.shape
        particles, partitions = padded.shape[-2] - height + 1, padded.shape[-1]
        left, _ = padding(width)
        windows = np.concatenate(
            [padded[..., a : a + particles, :] for a in range(height)], axis=-1
        )
        # Row (a, i), column j: the weight of input column i of row a for output column j.
        matrix = np.zeros((height, partitions, partitions))
        for i, j in np.ndindex(partitions, partitions):
            if 0 <= i - j + left < width:
                matrix[:, i, j] = self.kernel[:, i - j + left]
        exact = windows @ matrix.reshape(-1, partitions)
        return observer.rounded("conv", self.conv_type, exact)

    def logits(self, q: Array, k: Array, observer: Observer = UNOBSERVED) -> Array:
        """Scaled products of queries and keys (..., H, N, p)."""
        depth = q.shape[-1] // self.heads
        q = q.reshape(*q.shape[:-1], self.heads, depth)
        k = k.reshape(*k.shape[:-1], self.heads, depth)
        products = np.einsum("...nhd,...chd->...hnc", q, k)
        scaled = products * 2.0 ** -scale_shift(depth)
        return observer.rounded("logits", self.logits_type, scaled)

    def attention(self, padded: Array, observer: Observer = UNOBSERVED) -> Array:
        """Attention weights (..., H, n, p) of padded logits (..., H, n + height - 1, p)."""
        return self.softmax(self.convolve(padded, observer), observer)

    def context(self, padded: Array, v: Array, observer: Observer = UNOBSERVED) -> Array:
        """Values weighted by attention, (..., n, H * D), from padded logits as `attention`."""
        attention = self.attention(padded, observer)
        v = v.reshape(*v.shape[:-1], self.heads, v.shape[-1] // self.heads)
        context = np.einsum("...hnc,...chd->...nhd", attention, v)
        flat = context.reshape(*context.shape[:-2], -1)
        return observer.rounded("output", self.output_type, flat)

    def __call__(self, q: Array, k: Array, v: Array, observer: Observer = UNOBSERVED) -> Array:
        """The context of every particle; each value is rounded at its declared type only."""
        return self.context(self.pad(self.logits(q, k, observer)), v, observer)

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        reciprocal = self.reciprocal_table(shapes[1][0])
        constants = {
            "exp_table": (self.exp_table.entries, self.exp_type),
            "reciprocal_table": (reciprocal.entries, self.reciprocal_type),
        }
        if self.kernel is not None and self.kernel_type is not None:
            constants["kernel"] = (self.kernel, self.kernel_type)
        return constants

    def members(self, inputs: Sequence[Tensor]) -> Members:
        query, key, value = inputs
        (particles, columns), partitions = query.shape, key.shape[0]
        depth = columns // self.heads
        dot = (query.type * key.type).sum_of(depth)
        reciprocal = self.reciprocal_table(partitions)
        height = 0 if self.kernel is None else len(self.kernel)
        conv_sum = self.conv_type
        if self.kernel_type is not None:
            conv_sum = (self.logits_type * self.kernel_type).sum_of(height * partitions)
        return {
            "n_particles": particles,
            "n_partitions": partitions,
            "n_heads": self.heads,
            "depth": depth,
            "filter_height": height,
            "pad_up": padding(height)[0] if height else 0,
            "pad_left": padding(partitions)[0],
            "first_sum": round(reciprocal.first * 2.0**reciprocal.source.frac_bits),
            "reciprocals": len(reciprocal.entries),
            "dot_t": dot,
            "scaled_t": FixedType(dot.width, dot.int_bits - scale_shift(depth), dot.signed),
            "logits_t": self.logits_type,
            "conv_sum_t": conv_sum,
            "conv_t": self.conv_type,
            "difference_t": self.conv_type.difference(),
            "exp_sum_t": self.exp_type.exact().sum_of(partitions),
            "sum_t": self.sum_type,
            "attention_t": self.attention_type,
            "context_sum_t": (self.attention_type * value.type).sum_of(partitions),
        }

    def loops(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Loop]:
        """Keys and values are collected; the logits of each particle go through a window, since the
        filter looks ahead, and the rest is computed row by row."""
        query, key, value = inputs
        (target,) = outputs
        collected, held = [], []
        for tensor, what in ((key, "keys"), (value, "values")):
            steps = tensor.transfers
            channel = Channel(f"{name}/{what}", tensor.type.exact(), tensor.size)
            drain = Collect((tensor.name,), channel, steps, steps, tensor.transfer_size)
            feeds = {tensor.name: reading(tensor, steps)}
            collected.append(Loop(f"{name}_{what}", steps, {**feeds}, drains=[drain]))
            whole = Read(channel.type, tensor.shape, channel, query.transfers, held=True)
            held.append(whole)
        steps, lanes, particles = query.transfers, query.lanes, query.shape[0]
        partitions = key.shape[0]
        up, down = padding(1 if self.kernel is None else len(self.kernel))
        # The transfers that the filter looks ahead travel together: every step emits one.
        ahead = math.ceil(down / lanes)
        early = min(ahead, steps)
        columns = self.heads * partitions
        size, kind = lanes * columns, self.logits_type.exact()

        def logits(v: Mapping[str, Array]) -> Array:
            rows = np.moveaxis(self.logits(v[query.name], v["keys"]), -3, -2)
            return rows.reshape(*rows.shape[:-2], -1)

        def context(v: Mapping[str, Array]) -> Array:
            window = v["window"]
            window = window.reshape(*window.shape[:-1], self.heads, partitions)
            return self.context(np.moveaxis(window, -2, -3), v["values"])

        first = Loop(
            f"{name}_logits",
            steps,
            {"keys": held[0], query.name: reading(query, steps)},
            {"logits": logits},
        )
        together = rest = None
        if early:
            together = Channel(f"{name}/early", kind, early * size)
            first.drains.append(Collect(("logits",), together, steps, early, size))
        if early < steps:
            rest = Channel(f"{name}/late", kind, size)
            first.drains.append(Write(("logits",), rest, steps, early))
        shape = (up + lanes + down, columns)
        window = Window(kind, shape, together, rest, particles, lanes, steps, up, ahead)
        second = Loop(
            f"{name}_context",
            steps,
            {"window": window, "values": held[1]},
            {target.name: context},
            [Write((target.name,), target.channel, steps)],
        )
        return [*collected, first, second]


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    def zeros(count: int) -> NDArray[np.float64]:
        shape = list(x.shape)
        shape[axis] = count
        return np.zeros(shape)

    return np.concatenate([zeros(before), x, zeros(after)], axis=axis)
