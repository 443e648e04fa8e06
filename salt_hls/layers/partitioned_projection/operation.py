"""Reduction of N particles to p rows by learned weights, per head (SAL-T eq. for K', V').

partitioned: y[c, h, :] = sum_l W[h, c, l] x[c L + l, h, :], L = ceil(N / p), zeros after N.
dense (Linformer): y[r, h, :] = sum_n W[h, n, r] x[n, h, :].
With `broadcast`, every head reads all columns of x: y[c, h, :] = sum_l W[h, c, l] x[c L + l, :].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.graph.drains import Accumulate, Chunks, Write
from salt_hls.graph.feeds import Part, Read, Rom
from salt_hls.graph.loops import Drain, Loop
from salt_hls.graph.operation import reading
from salt_hls.graph.tensor import Channel, Tensor
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type, weight_type

Mode = Literal["partitioned", "dense"]


def kernel_shape(mode: Mode, heads: int, partitions: int, particles: int) -> tuple[int, int, int]:
    """(H, p, L) partitioned, (H, N, p) dense."""
    if mode == "dense":
        return heads, particles, partitions
    return heads, partitions, math.ceil(particles / partitions)


@dataclass(frozen=True, eq=False)
class PartitionedProjection(LayerOperation):
    """One projection: (..., N, columns) to (..., p, heads * columns per head).

    kernel: as `kernel_shape` gives it, grid floats of `kernel_type`.
    """

    mode: Mode
    heads: int
    partitions: int
    broadcast: bool
    kernel: NDArray[np.float64]
    kernel_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> PartitionedProjection:
        mode, heads, partitions = config["mode"], config["heads"], config["partitions"]
        return PartitionedProjection(
            mode=mode,
            heads=heads,
            partitions=partitions,
            broadcast=config["broadcast"],
            kernel=weight("kernel", kernel_shape(mode, heads, partitions, shapes[0][0])),
            kernel_type=weight_type(config["kernel_quantizer"], config["name"]),
            output_type=declared_type(config),
        )

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        columns = shapes[0][1] * (self.heads if self.broadcast else 1)
        return (self.partitions, columns)

    def rows(self) -> NDArray[np.float64]:
        """Weights by output row, (H, p, terms): L terms partitioned, N dense."""
        return self.kernel.transpose(0, 2, 1) if self.mode == "dense" else self.kernel

    @property
    def stride(self) -> int:
        """First particle of row c is c * stride."""
        return 0 if self.mode == "dense" else self.kernel.shape[2]

    def accum_type(self, source: FixedType) -> FixedType:
        """Type that holds every sum exactly."""
        return (source * self.kernel_type).sum_of(self.rows().shape[2])

    def add(self, x: Array, weights: Array) -> Array:
        """What particles add to a row: x (..., l, columns), weights (H, l), to the row's columns.

        Exact; a row is the sum over its particles, taken together or in any groups.
        """
        if not self.broadcast:
            x = x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        # In this order of operands the RTL shares adders among the heads.
        row = np.einsum("...ld,hl->...hd" if self.broadcast else "...lhd,hl->...hd", x, weights)
        return row.reshape(*row.shape[:-2], -1)

    def finish(self, rows: Array, observer: Observer = UNOBSERVED) -> Array:
        """Exact sums of any shape, rounded once to `output_type`."""
        return observer.rounded("output", self.output_type, rows)

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Projects; each sum is exact and rounded once to `output_type`."""
        particles, columns = x.shape[-2:]
        weights = self.rows()
        rows = []
        for c in range(self.partitions):
            first = min(c * self.stride, particles)
            chunk = x[..., first : first + weights.shape[2], :]
            terms = chunk.shape[-2]
            if terms == 0:
                width = columns * (self.heads if self.broadcast else 1)
                rows.append(np.zeros((*x.shape[:-2], width)))
            else:
                rows.append(self.add(chunk, weights[:, c, :terms]))
        return self.finish(np.stack(rows, axis=-2), observer)

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        return {"kernel": (self.rows(), self.kernel_type)}

    def members(self, inputs: Sequence[Tensor]) -> Members:
        particles, columns = inputs[0].shape
        return {
            "n_particles": particles,
            "n_columns": columns,
            "n_heads": self.heads,
            "n_partitions": self.partitions,
            "n_terms": self.rows().shape[2],
            "stride": self.stride,
            "broadcast": self.broadcast,
            "accum_t": self.accum_type(inputs[0].type),
        }

    def output_lanes(self, input_lanes: int) -> int:
        return 1

    def loops(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Loop]:
        """One that adds up the rows as the particles pass, one that emits them."""
        (source,), (target,) = inputs, outputs
        add = Loop(name, source.transfers, {source.name: reading(source, source.transfers)})
        emit = Loop(f"{name}_emit", self.partitions)
        weights = self._weights_by_step(source)
        terms = weights.values.shape[1]
        # Some lanes never meet some row: no sum is as wide as the kernel must think.
        sums = self.accum_type(source.type).exact()
        rom, later, added, row = (f"{name}/{what}" for what in ("weights", "later", "added", "row"))
        shape = target.transfer_shape
        size = math.prod(shape)
        drain: Drain
        if weights.ends:
            # A particle belongs to one row: one set of products, sorted into this and the next.
            values = weights.values.sum(axis=1)
            add.feeds[rom] = _rom(self.kernel_type, values)
            if terms > 1:
                sorted_out = np.any(weights.values[:, 1] != 0, axis=1).astype(np.float64)
                add.feeds[later] = Rom(FixedType(1, 1, False), (source.lanes,), sorted_out)

            def chunks(v: Mapping[str, Array]) -> Array:
                products = [
                    self.add(v[source.name][..., i : i + 1, :], v[rom][:, i : i + 1])
                    for i in range(source.lanes)
                ]
                both = [sum(products[1:], products[0])]
                if terms > 1:
                    # The first lane always belongs to the row in which the transfer begins.
                    gated = [p * v[later][i : i + 1] for i, p in enumerate(products) if i > 0]
                    both.append(sum(gated[1:], gated[0]))
                    both[0] = both[0] - both[1]
                return sums.quantize(np.stack(both, axis=-2))

            add.operations[added] = chunks
            channel = Channel(f"{name}/rows", sums, size, array=True)
            drain = Chunks((added,), channel, add.steps, terms, weights.ends)
            emit.feeds[row] = Read(sums, shape, channel, emit.steps)
        else:
            add.feeds[rom] = _rom(self.kernel_type, weights.values)
            add.operations[added] = lambda v: sums.quantize(
                np.stack([self.add(v[source.name], v[rom][r]) for r in range(terms)], axis=-2)
            )
            channel = Channel(f"{name}/rows", sums, self.partitions * size)
            drain = Accumulate((added,), channel, add.steps, self.partitions, terms, weights.first)
            emit.feeds[row] = Part(sums, shape, channel, emit.steps)
        add.drains.append(drain)
        emit.operations[target.name] = lambda v: self.finish(v[row])
        emit.drains.append(Write((target.name,), target.channel, emit.steps))
        return [add, emit]

    def _weights_by_step(self, source: Tensor) -> _Weights:
        rows, stride = self.rows(), self.stride
        heads, partitions, length = rows.shape
        particles, lanes, steps = source.shape[0], source.lanes, source.transfers
        first = [min(t * lanes // stride, partitions - 1) if stride else 0 for t in range(steps)]
        values = np.zeros((steps, partitions, heads, lanes))
        terms = 1
        for n in range(particles):
            step, lane = divmod(n, lanes)
            for c in range(partitions):
                if 0 <= (place := n - c * stride) < length:
                    values[step, c - first[step], :, lane] = rows[:, c, place]
                    terms = max(terms, c - first[step] + 1)
        ends = tuple((min((c + 1) * stride, particles) - 1) // lanes for c in range(partitions))
        one_by_one = stride > 0 and terms <= 2 and len(set(ends)) == partitions
        return _Weights(values[:, :terms], tuple(first), ends if one_by_one else None)


@dataclass(frozen=True)
class _Weights:
    """values (steps, terms, H, lanes): of the rows that each step adds to, from row first[step] on.

    ends: the step that completes each row, if rows follow each other and no step has more than two.
    """

    values: NDArray[np.float64]
    first: tuple[int, ...]
    ends: tuple[int, ...] | None


def _rom(kind: FixedType, values: NDArray[np.float64]) -> Rom:
    """values: (steps, *shape of the operand)."""
    return Rom(kind.exact(), values.shape[1:], values.reshape(len(values), -1))
