"""SAL-T's attention: convolved logits over p projected keys, table softmax, context.

S[h, n, c] = Q(q[n, h, :] . k[c, h, :] / 2^shift)              logits (1/sqrt(D) as a shift)
C[h, n, c] = Q(sum_{a, j} K[a, j] S[h, n + a - up, c + j - left])   SAME zero padding
e = Q(exp(C - max_c C)),  s = Q(sum_c e),  A = Q(e * Q(1/s))   two tables, one product
o[n, h, :] = Q(sum_c A[h, n, c] v[c, h, :])

The published filters of several heights are linear and averaged, so they are the one kernel K;
their biases cancel in the softmax. Without a kernel C = S (Linformer, full attention with p = N).

Three choices leave the float function as it is and shorten the way from C to o:

- stable: false. e = max(Q(exp(C)), one step): exp is read at C itself. Its type bounds it, from
  one step (so no sum is 0) to the greatest value, at which it saturates; that is the scale of e.
- normalize: context. o = Q(Q(sum_c e v) * Q(1/s)): 1/s is looked up while e v is summed. That sum
  has a declared type: exact, it has as many bits as e, v and log2(p) together, and the product
  with 1/s more than float32 holds.
- scale: table. No shift; exp takes its argument times 1/sqrt(D), exact for every D.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer, Table
from salt_hls.graph.drains import Collect, Write
from salt_hls.graph.feeds import Read
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import reading, sliding
from salt_hls.graph.tensor import Channel, Tensor
from salt_hls.layers.head_filter.operation import pad, padding
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type, weight_type

Normalize = Literal["weights", "context"]
Scale = Literal["logits", "table"]

INNER: dict[Normalize, str] = {"weights": "attention", "context": "context"}
"""What is rounded between exp and output."""


def type_names(convolved: bool, normalize: Normalize) -> tuple[str, ...]:
    """The types that a layer declares, in the order in which values pass them."""
    conv = ("conv",) if convolved else ()
    return ("logits", *conv, "exp", "sum", "reciprocal", INNER[normalize], "output")


UNSIGNED = ("exp", "sum", "reciprocal", "attention")

TABLE_ARGUMENTS = ("conv", "sum")
"""Those whose values are looked up: exp of differences in the type of conv, 1/sum."""


def scale_shift(depth: int) -> int:
    """1/sqrt(D) as a right shift: exact when D is a power of four, else rounded down."""
    return int(math.log2(depth)) // 2


def exp_scale(depth: int, scale: Scale) -> float:
    """What exp multiplies its argument by: exactly 1/sqrt(D), unless the logits have it already."""
    return 1.0 if scale == "logits" else float(depth**-0.5)


@dataclass(frozen=True, eq=False)
class ConvAttention(LayerOperation):
    """q (..., N, H * D), k and v (..., p, H * D) to (..., N, H * D), head-major.

    kernel: (height, p) grid floats of `kernel_type`, or `None`. inner_type: that of the attention
    weights or, if `normalize` is "context", of the context before it.
    """

    heads: int
    depth: int
    stable: bool
    normalize: Normalize
    scale: Scale
    kernel: NDArray[np.float64] | None
    kernel_type: FixedType | None
    logits_type: FixedType
    conv_type: FixedType
    exp_type: FixedType
    sum_type: FixedType
    reciprocal_type: FixedType
    inner_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> ConvAttention:
        partitions, heads = shapes[1][0], config["heads"]
        name, normalize = config["name"], config["normalize"]
        if config["types"] is None:
            raise UserError(f"layer {name}: no types, so it is a float layer and has no firmware")
        named = {**config["types"], "name": name}
        named.setdefault("conv", named["logits"])
        names = type_names(True, normalize)
        types = {key: declared_type(named, key, table=key in TABLE_ARGUMENTS) for key in names}
        for key in names:
            if key in UNSIGNED and types[key].signed:
                raise UserError(f"layer {name}: type {key} must be ap_ufixed, got {types[key]}")
        types["inner"] = types.pop(INNER[normalize])
        kernel = kernel_type = None
        if config["filter_heights"]:
            kernel_type = weight_type(config["kernel_quantizer"], name)
            kernel = weight("kernel", (max(config["filter_heights"]), partitions))
        operation = ConvAttention(
            heads=heads,
            depth=shapes[0][-1] // heads,
            stable=config["stable"],
            normalize=normalize,
            scale=config["scale"],
            kernel=kernel,
            kernel_type=kernel_type,
            **{f"{key}_type": fixed_type for key, fixed_type in types.items()},
        )
        exp, total = operation.exp_type, operation.sum_type
        largest = 0.0 if operation.stable else operation.conv_type.max * operation.exp_scale
        greatest = math.exp(largest)
        wraps = exp.overflow == "WRAP" and greatest >= exp.max + exp.lsb
        if wraps or float(exp.quantize(np.array(greatest))) <= 0:
            raise UserError(
                f"layer {name}: type exp {exp} must hold exp({largest:g}) = {greatest:g} or "
                "saturate (SAT)"
            )
        low, high = operation.sums(partitions)
        least, most = (float(total.quantize(np.array(exact))) for exact in (low, high))
        if least <= 0 or most < high - total.lsb:
            raise UserError(
                f"layer {name}: type sum {total} must hold {low} and {high}, the least and the "
                f"greatest sum of {partitions} exponentials; give it more bits"
            )
        return operation

    @property
    def shift(self) -> int:
        """The logits are the products of queries and keys by 2^-shift."""
        return scale_shift(self.depth) if self.scale == "logits" else 0

    @property
    def exp_scale(self) -> float:
        """What the logits are multiplied by inside the exp table."""
        return exp_scale(self.depth, self.scale)

    @cached_property
    def exp_table(self) -> Table:
        """exp(-d) for every difference d = max C - C >= 0 of two values of `conv_type`.

        Not stable, exp(C) for every C, and no entry is 0.
        """
        steps = np.arange(2**self.conv_type.width) * self.conv_type.lsb
        if self.stable:
            source, least, first = self.conv_type.difference(), 0.0, 0.0
            exponents = -steps
        else:
            source, least = self.conv_type.exact(), self.exp_type.lsb
            first = source.min
            exponents = first + steps
        entries = self.exp_type.quantize(np.exp(exponents * self.exp_scale))
        return Table(source, self.exp_type.exact(), first, np.maximum(entries, least))

    def sums(self, partitions: int) -> tuple[float, float]:
        """The least and the greatest exact sum of a row's exponentials."""
        entries = self.exp_table.entries
        most = float(entries.max())
        return (most if self.stable else float(entries.min()) * partitions), most * partitions

    def reciprocal_table(self, partitions: int) -> Table:
        """1/s for every s between its least and its greatest value."""
        least, most = (
            float(self.sum_type.quantize(np.array(exact))) for exact in self.sums(partitions)
        )
        count = round((most - least) / self.sum_type.lsb) + 1
        s = least + np.arange(count) * self.sum_type.lsb
        entries = self.reciprocal_type.quantize(1 / s)
        return Table(self.sum_type, self.reciprocal_type.exact(), least, entries)

    def exponentials(self, logits: Array, observer: Observer = UNOBSERVED) -> Array:
        """e of logits after the convolution (..., p)."""
        argument = logits
        if self.stable:
            # Never negative: the quantization changes no value, it tells the RTL so.
            argument = self.conv_type.difference().quantize(
                np.max(logits, axis=-1)[..., None] - logits
            )
        return observer.looked_up("exp", self.exp_table, argument)

    def reciprocals(self, exp: Array, observer: Observer = UNOBSERVED) -> Array:
        """1/s of exponentials (..., p), (...)."""
        total = observer.rounded("sum", self.sum_type, np.sum(exp, axis=-1))
        return observer.looked_up("reciprocal", self.reciprocal_table(exp.shape[-1]), total)

    def pad(self, logits: Array) -> Array:
        """(..., N, p) logits between the rows of zeros that the kernel sees above and below."""
        return logits if self.kernel is None else pad(logits, len(self.kernel))

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
        q = q.reshape(*q.shape[:-1], self.heads, self.depth)
        k = k.reshape(*k.shape[:-1], self.heads, self.depth)
        products = np.einsum("...nhd,...chd->...hnc", q, k)
        return observer.rounded("logits", self.logits_type, products * 2.0**-self.shift)

    def context(self, padded: Array, v: Array, observer: Observer = UNOBSERVED) -> Array:
        """Values weighted by softmax, (..., n, H * D).

        padded: logits (..., H, n + height - 1, p), as `convolve` takes them.
        """
        exp = self.exponentials(self.convolve(padded, observer), observer)
        reciprocal = self.reciprocals(exp, observer)[..., None]
        v = v.reshape(*v.shape[:-1], self.heads, self.depth)
        if self.normalize == "weights":
            exp = observer.rounded("attention", self.inner_type, exp * reciprocal)
        context = np.einsum("...hnc,...chd->...hnd", exp, v)
        if self.normalize == "context":
            context = observer.rounded("context", self.inner_type, context) * reciprocal
        context = np.moveaxis(context, -3, -2)
        flat = context.reshape(*context.shape[:-2], -1)
        return observer.rounded("output", self.output_type, flat)

    def __call__(self, q: Array, k: Array, v: Array, observer: Observer = UNOBSERVED) -> Array:
        """The context of every particle; each value is rounded at its declared type only."""
        return self.context(self.pad(self.logits(q, k, observer)), v, observer)

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        reciprocal = self.reciprocal_table(shapes[1][0])
        constants = {
            "exp_table": (self.exp_table.by_bits(), self.exp_type),
            "reciprocal_table": (reciprocal.entries, self.reciprocal_type),
        }
        if self.kernel is not None and self.kernel_type is not None:
            constants["kernel"] = (self.kernel, self.kernel_type)
        return constants

    def members(self, inputs: Sequence[Tensor]) -> Members:
        query, key, value = inputs
        particles, partitions = query.shape[0], key.shape[0]
        dot = (query.type * key.type).sum_of(self.depth)
        reciprocal = self.reciprocal_table(partitions)
        height = 0 if self.kernel is None else len(self.kernel)
        conv_sum = self.conv_type
        if self.kernel_type is not None:
            conv_sum = (self.logits_type * self.kernel_type).sum_of(height * partitions)
        weights = self.inner_type if self.normalize == "weights" else self.exp_type
        inner = {
            f"{INNER[self.normalize]}_t": self.inner_type,
            "context_sum_t": (weights * value.type).sum_of(partitions),
        }
        options: dict[str, bool | FixedType] = {} if self.stable else {"stable": False}
        if self.normalize == "context":
            product = self.inner_type * self.reciprocal_type
            options |= {"normalize_context": True, "product_t": product}
        return {
            "n_particles": particles,
            "n_partitions": partitions,
            "n_heads": self.heads,
            "depth": self.depth,
            "filter_height": height,
            "pad_up": padding(height)[0] if height else 0,
            "pad_left": padding(partitions)[0],
            "first_sum": round(reciprocal.first * 2.0**reciprocal.source.frac_bits),
            "reciprocals": len(reciprocal.entries),
            "dot_t": dot,
            "scaled_t": FixedType(dot.width, dot.int_bits - self.shift, dot.signed),
            "logits_t": self.logits_type,
            "conv_sum_t": conv_sum,
            "conv_t": self.conv_type,
            "difference_t": self.conv_type.difference(),
            "exp_sum_t": self.exp_type.exact().sum_of(partitions),
            "sum_t": self.sum_type,
            **inner,
            **options,
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
        steps, partitions = query.transfers, key.shape[0]

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
        first.drains, window = sliding(
            name,
            "logits",
            self.logits_type.exact(),
            query,
            self.heads * partitions,
            padding(1 if self.kernel is None else len(self.kernel)),
        )
        second = Loop(
            f"{name}_context",
            steps,
            {"window": window, "values": held[1]},
            {target.name: context},
            [Write((target.name,), target.channel, steps)],
        )
        return [*collected, first, second]
