"""SAL-T in JAX: the float model, the model with learned widths, and its predicted LUTs.

Weights are a dictionary of arrays. `<layer>.kernel` and `<layer>.bias` are those of the Keras layer
of that name; beside them stand the learned widths, real numbers that are rounded where they are
used:

    f:<weight>                  fraction bits of every weight and bias, in its shape
    is:<name>, im:<name>        integer bits of an activation: a common scalar + a map of its shape
    fs:<name>, fm:<name>        its fraction bits, likewise

N particles, d columns (`width`), H heads of D = d / H columns, p partitions of L particles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from limits import (
    ACTIVATIONS,
    CLASSES,
    FRACTION_MIN,
    HEADS,
    HEIGHT,
    INTEGER_MIN,
    PARTITIONS,
    WEIGHT_FRACTION,
    WEIGHT_MAX,
    is_matrix,
)

Weights = dict[str, Array]

UP = (HEIGHT - 1) // 2
"""Rows of a filter above the one it is centred on."""


@dataclass(frozen=True)
class Config:
    """Sizes and options, as in the project's YAML. The final run: queries, parallel, mlp."""

    particles: int = 32
    width: int = 32
    feed_forward: int = 32
    convolution: Literal["queries", "kernel"] = "queries"
    block: Literal["parallel", "sequential"] = "parallel"
    head: Literal["mlp", "linear"] = "mlp"

    @property
    def head_width(self) -> int:
        """D."""
        return self.width // HEADS

    @property
    def partition_length(self) -> int:
        """L, the last partition padded with zeros."""
        return -(-self.particles // PARTITIONS)

    @property
    def shift(self) -> int:
        """Logits are q·k / 2^shift: a power of two near sqrt(D)."""
        return int(math.log2(self.head_width)) // 2


def initial_weights(key: Array, config: Config) -> Weights:
    """Float weights of one member."""
    keys = iter(jax.random.split(key, 40))
    d, hidden, length = config.width, config.feed_forward, config.partition_length

    def glorot(*shape: int) -> Array:
        limit = math.sqrt(6 / (shape[-2] + shape[-1]))
        return jax.random.uniform(next(keys), shape, minval=-limit, maxval=limit)

    weights = {"embed.kernel": glorot(3, d), "embed.bias": jnp.zeros(d)}
    weights["query.kernel"] = glorot(d, d)
    for what in ("key", "value"):
        shape = (HEADS, PARTITIONS, length)
        normal = jax.random.truncated_normal(next(keys), -2, 2, shape)
        weights[f"{what}_projection.kernel"] = normal / math.sqrt(length)
        weights[f"{what}.kernel"] = glorot(HEADS, d, config.head_width)
    if config.convolution == "queries":
        kernel = jax.random.normal(next(keys), (HEADS, HEIGHT)) * 0.2
        weights["query_filter.kernel"] = kernel.at[:, UP].add(0.7)
    else:
        kernel = jax.random.normal(next(keys), (HEIGHT, PARTITIONS)) * 0.15
        weights["attention.kernel"] = kernel.at[UP, (PARTITIONS - 1) // 2].add(0.5)
    weights |= {"output.kernel": glorot(d, d), "output.bias": jnp.zeros(d)}
    weights |= {"ff1.kernel": glorot(d, hidden), "ff1.bias": jnp.zeros(hidden)}
    weights |= {"ff2.kernel": glorot(hidden, d), "ff2.bias": jnp.zeros(d)}
    for i in (1,) if config.block == "parallel" else (1, 2):
        weights |= {f"tanh{i}.alpha": jnp.ones(1), f"tanh{i}.beta": jnp.zeros(1)}
    if config.head == "mlp":
        weights |= {"head.kernel": glorot(d, d), "head.bias": jnp.zeros(d)}
    weights |= {"classes.kernel": glorot(d, CLASSES), "classes.bias": jnp.zeros(CLASSES)}
    return weights


def straight_through(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), with the gradient of x."""
    return x + lax.stop_gradient(function(x) - x)


def half_up(x: Array) -> Array:
    """To integers as RND does."""
    return jnp.floor(x + 0.5)


def quantize(x: Array, integer: Array, fraction: Array, signed: bool) -> Array:
    """x clipped (SAT), then rounded half up (RND); 0 where no bits are left.

    Differentiable in x and, through the clipping and the scale, in both widths.
    """
    integer, fraction = (straight_through(jnp.round, bits) for bits in (integer, fraction))
    scale = jnp.exp2(fraction)
    high = jnp.exp2(integer) - 1 / scale
    low = -jnp.exp2(integer) if signed else jnp.zeros_like(high)
    clipped = jnp.minimum(jnp.maximum(x, low), high)
    y = straight_through(half_up, clipped * scale) / scale
    return jnp.where(lax.stop_gradient(integer + fraction) > 0.5, y, 0.0)


def clip_weight(weight: Array) -> Array:
    """Into the range of ap_fixed<8,2>."""
    return jnp.clip(weight, -WEIGHT_MAX, WEIGHT_MAX - 2.0**-WEIGHT_FRACTION)


class Float:
    """No quantization, but the ranges of weights and logits that the hardware has."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def weight(self, name: str) -> Array:
        return clip_weight(self.weights[name])

    def activation(self, name: str, x: Array) -> Array:
        return x

    def softmax(self, logits: Array) -> tuple[Array, Array]:
        """Exponentials (..., p), not normalized, and the reciprocal of their sum (...)."""
        exponentials = jnp.exp(jnp.clip(logits, -2.0, 1.9375))
        return exponentials, 1 / exponentials.sum(-1)


class Observed(Float):
    """Float, and keeps the largest magnitude of each element of each activation."""

    def __init__(self, weights: Weights):
        super().__init__(weights)
        self.peaks: dict[str, Array] = {}

    def activation(self, name: str, x: Array) -> Array:
        self.peaks[name] = jnp.abs(x).max(0)
        return x


class Learned(Float):
    """Every weight, bias and element of an activation on a grid of its own."""

    def weight(self, name: str) -> Array:
        """Rounded half to even to its fraction bits, within ap_fixed<8,2>."""
        scale = jnp.exp2(straight_through(jnp.round, self.weights[f"f:{name}"]))
        clipped = clip_weight(self.weights[name])
        return clip_weight(straight_through(jnp.round, clipped * scale) / scale)

    def widths(self, name: str) -> tuple[Array, Array]:
        """Integer and fraction bits, not rounded, within their limits."""
        limits = ACTIVATIONS[name]
        integer = self.weights[f"is:{name}"] + self.weights[f"im:{name}"]
        fraction = self.weights[f"fs:{name}"] + self.weights[f"fm:{name}"]
        return (
            straight_through(lambda v: jnp.clip(v, INTEGER_MIN, limits.integer), integer),
            straight_through(lambda v: jnp.clip(v, FRACTION_MIN, limits.fraction), fraction),
        )

    def activation(self, name: str, x: Array) -> Array:
        return quantize(x, *self.widths(name), ACTIVATIONS[name].signed)

    def softmax(self, logits: Array) -> tuple[Array, Array]:
        """Logits ap_fixed<6,2,RND,SAT>, exponentials ap_ufixed<6,3,RND,SAT> of at least one step,
        their sum exact, its reciprocal ap_ufixed<8,1,RND,SAT>."""
        step = 2.0**-3
        logits = quantize(logits, jnp.float32(1), jnp.float32(4), True)
        exponentials = jnp.clip(jnp.exp(logits), step, 7.875)
        exponentials = straight_through(lambda e: half_up(e / step) * step, exponentials)
        exponentials = jnp.maximum(exponentials, step)
        reciprocal = quantize(
            1 / exponentials.sum(-1), jnp.float32(1), jnp.float32(7), signed=False
        )
        return exponentials, reciprocal


def forward(q: Float, x: Array, config: Config) -> Array:
    """Inputs (batch, N, 3) to logits of classes (batch, 5)."""
    x = q.activation("x", x)
    e = jax.nn.relu(x @ q.weight("embed.kernel") + q.weight("embed.bias"))
    e = q.activation("embed", e)
    if config.block == "parallel":
        y = _tanh(q, 1, e + _feed_forward(q, e) + _attention(q, e, config))
    else:
        m = _tanh(q, 1, e + _attention(q, e, config))
        y = _tanh(q, 2, m + _feed_forward(q, m))
    pooled = y.max(1)
    if config.head == "mlp":
        pooled = jax.nn.relu(pooled @ q.weight("head.kernel") + q.weight("head.bias"))
        pooled = q.activation("head", pooled)
    return pooled @ q.weight("classes.kernel") + q.weight("classes.bias")


def _attention(q: Float, e: Array, config: Config) -> Array:
    """(batch, N, d) to (batch, N, d): keys and values of partitions, normalized after A·v."""
    batch, n, d = e.shape
    heads, columns = HEADS, config.head_width
    queries = q.activation("query", e @ q.weight("query.kernel"))
    if config.convolution == "queries":
        taps = jnp.repeat(q.weight("query_filter.kernel"), columns, axis=0)  # (d, HEIGHT)
        padded = jnp.pad(queries, ((0, 0), (UP, HEIGHT - 1 - UP), (0, 0)))
        queries = sum(padded[:, t : t + n] * taps[:, t] for t in range(HEIGHT))
        queries = q.activation("query_filter", queries)
    missing = config.partition_length * PARTITIONS - n
    partitions = jnp.pad(e, ((0, 0), (0, missing), (0, 0)))
    partitions = partitions.reshape(batch, PARTITIONS, config.partition_length, d)

    def projected(what: str) -> Array:
        """(batch, p, H, D): each partition summed with weights of its own, then a matrix."""
        kernel = q.weight(f"{what}_projection.kernel")
        rows = jnp.einsum("bcld,hcl->bchd", partitions, kernel)
        rows = q.activation(f"{what}_projection", rows.reshape(batch, PARTITIONS, heads * d))
        rows = rows.reshape(batch, PARTITIONS, heads, d)
        rows = jnp.einsum("bchi,hio->bcho", rows, q.weight(f"{what}.kernel"))
        rows = q.activation(what, rows.reshape(batch, PARTITIONS, heads * columns))
        return rows.reshape(batch, PARTITIONS, heads, columns)

    keys, values = projected("key"), projected("value")
    queries = queries.reshape(batch, n, heads, columns)
    logits = jnp.einsum("bnhd,bchd->bhnc", queries, keys) * 2.0**-config.shift
    if config.convolution == "kernel":
        planes = logits.reshape(batch * heads, 1, n, PARTITIONS)
        kernel = q.weight("attention.kernel")[None, None]
        planes = lax.conv_general_dilated(planes, kernel, (1, 1), "SAME")
        logits = planes.reshape(batch, heads, n, PARTITIONS)
    exponentials, reciprocal = q.softmax(logits)
    context = jnp.einsum("bhnc,bchd->bhnd", exponentials, values)
    context = q.activation("context", context.reshape(batch, heads * n, columns))
    mixed = context.reshape(batch, heads, n, columns) * reciprocal[..., None]
    mixed = q.activation("attention", mixed.transpose(0, 2, 1, 3).reshape(batch, n, d))
    return mixed @ q.weight("output.kernel") + q.weight("output.bias")


def _feed_forward(q: Float, e: Array) -> Array:
    hidden = jax.nn.relu(e @ q.weight("ff1.kernel") + q.weight("ff1.bias"))
    hidden = q.activation("feed_forward", hidden)
    return hidden @ q.weight("ff2.kernel") + q.weight("ff2.bias")


def _tanh(q: Float, i: int, x: Array) -> Array:
    x = q.activation(f"tanh{i}_input", x)
    y = jnp.tanh(q.weights[f"tanh{i}.alpha"] * x + q.weights[f"tanh{i}.beta"])
    return q.activation(f"tanh{i}_output", y)


def with_widths(weights: Weights, config: Config, x: Array, bits: float = 6.0) -> Weights:
    """Float weights of all members (members, ...) and the widths to start from.

    An element's integer bits are those of the largest value in the jets `x`; integer and fraction
    bits together are `bits`. Weights have all bits of ap_fixed<8,2>.
    """

    def peaks(member: Weights, x: Array) -> dict[str, Array]:
        observed = Observed(member)
        forward(observed, x, config)
        return observed.peaks

    peak = jax.jit(jax.vmap(peaks, in_axes=(0, None)))(weights, x)
    most = float(WEIGHT_FRACTION)
    widths = {f"f:{n}": jnp.full(w.shape, most) for n, w in weights.items() if is_matrix(n)}
    for name, limits in ACTIVATIONS.items():
        top = peak[name]
        if name == "context":
            top = top.max((1, 2), keepdims=True)
        integer = jnp.ceil(jnp.log2(jnp.maximum(top, 1e-3)))
        integer = jnp.clip(integer, -3.0, limits.integer)
        axes = tuple(range(1, integer.ndim))
        common = integer.max(axes)
        if name == "x":  # as delivered
            fraction = jnp.full_like(integer, limits.fraction)
            common_fraction = fraction.max(axes)
        else:
            fraction = jnp.clip(bits - integer, 0.0, limits.fraction)
            common_fraction = jnp.clip(bits - common, 0.0, limits.fraction)
        widths |= {f"is:{name}": common, f"fs:{name}": common_fraction}
        widths[f"im:{name}"] = integer - jnp.expand_dims(common, axes)
        widths[f"fm:{name}"] = fraction - jnp.expand_dims(common_fraction, axes)
    return weights | widths


CONSTANT, VARIABLE, ROUNDING, SUM = 0.65, 0.65, 1.5, 1.0
"""LUT: of a product with a constant or of two variables for b_x b_w; of rounding, of a sum for a
bit."""


def predicted_lut(weights: Weights, config: Config) -> tuple[Array, dict[str, Array]]:
    """LUTs of the unrolled design of one member, and its parts.

    b_x is an element's bits with its sign, 0 without integer and fraction bits; b_w a weight's bits
    from its leading one to its last fraction bit, 0 of a weight that is 0. What feeds only elements
    without bits is not counted. Differentiable in the widths of both.
    """
    q = Learned(weights)
    bits, live = {}, {}
    for name, limits in ACTIVATIONS.items():
        integer, fraction = (straight_through(jnp.round, w) for w in q.widths(name))
        total = integer + fraction
        on = lax.stop_gradient(total) > 0.5
        bits[name] = jnp.where(on, total + (1.0 if limits.signed else 0.0), 0.0)
        live[name] = lax.stop_gradient(on).astype(jnp.float32)

    def kernel(layer: str) -> Array:
        """b_w of the kernel."""
        name = f"{layer}.kernel"
        magnitude = jnp.abs(lax.stop_gradient(q.weight(name)))
        leading = jnp.floor(jnp.log2(jnp.maximum(magnitude, 1e-9)) + 1e-6) + 1
        fraction = straight_through(jnp.round, weights[f"f:{name}"])
        return jnp.where(magnitude > 0, jnp.maximum(leading + fraction, 1.0), 0.0)

    n, d, columns = config.particles, config.width, config.head_width
    length = config.partition_length

    def dense(x: str, layer: str, y: str) -> Array:
        """sum over n, c, o of b_x[n, c] b_w[c, o] where y[n, o] lives."""
        return CONSTANT * jnp.einsum("nc,co,no->", bits[x], kernel(layer), live[y])

    parts = {"embed": dense("x", "embed", "embed"), "query": dense("embed", "query", "query")}
    taps = jnp.repeat(kernel("query_filter"), columns, axis=0)
    padded = jnp.pad(bits["query"], ((UP, HEIGHT - 1 - UP), (0, 0)))
    parts["filter"] = CONSTANT * sum(
        (padded[t : t + n] * taps[:, t] * live["query_filter"]).sum() for t in range(HEIGHT)
    )
    partitions = jnp.pad(bits["embed"], ((0, length * PARTITIONS - n), (0, 0)))
    partitions = partitions.reshape(PARTITIONS, length, d)
    for what in ("key", "value"):
        projection = f"{what}_projection"
        alive = live[projection].reshape(PARTITIONS, HEADS, d)
        parts[projection] = CONSTANT * jnp.einsum(
            "cld,hcl,chd->", partitions, kernel(projection), alive
        )
        rows = bits[projection].reshape(PARTITIONS, HEADS, d)
        alive = live[what].reshape(PARTITIONS, HEADS, columns)
        parts[what] = CONSTANT * jnp.einsum("chi,hio,cho->", rows, kernel(what), alive)
    queries = bits["query_filter"].reshape(n, HEADS, columns)
    keys, values = (bits[k].reshape(PARTITIONS, HEADS, columns) for k in ("key", "value"))
    outputs = live["attention"].reshape(n, HEADS, columns)
    rows = jnp.max(outputs, -1)  # (n, H): of the softmax that something uses
    parts["qk"] = VARIABLE * jnp.einsum("nhd,chd,nh->", queries, keys, rows) * 0.5
    parts["av"] = VARIABLE * 6.0 * jnp.einsum("chd,nhd->", values, outputs) * 0.5
    parts["normalize"] = VARIABLE * 8.0 * jnp.sum(bits["context"] * outputs) * 0.5
    parts["softmax"] = jnp.sum(rows) * (PARTITIONS * 6.0 + 3 * 9.0 + 32.0)
    parts["output"] = dense("attention", "output", "tanh1_input")
    parts["ff1"] = dense("embed", "ff1", "feed_forward")
    parts["ff2"] = dense("feed_forward", "ff2", "tanh1_input")
    parts["residual"] = SUM * jnp.sum(bits["embed"] * live["tanh1_input"])
    b_in, b_out = bits["tanh1_input"], bits["tanh1_output"]
    large = jnp.exp2(jnp.maximum(b_in, 6) - 6)
    table = b_out * jnp.where(b_in > 6, large, b_in / 6)
    parts["tables"] = jnp.sum(table * live["tanh1_input"])
    parts["pool"] = 1.5 * jnp.sum(b_out)
    pooled = jnp.max(b_out, 0)
    parts["head"] = CONSTANT * jnp.einsum("c,co,o->", pooled, kernel("head"), live["head"])
    parts["classes"] = CONSTANT * jnp.einsum("c,co->", bits["head"], kernel("classes"))
    exact = ("x", "context", "tanh1_output")
    parts["round"] = ROUNDING * sum(jnp.sum(b) for name, b in bits.items() if name not in exact)
    return sum(parts.values()), parts
