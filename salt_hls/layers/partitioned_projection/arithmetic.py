"""Reduction of N particles to p rows by learned weights, per head (SAL-T eq. for K', V').

partitioned: y[c, h, :] = sum_l W[h, c, l] x[c L + l, h, :], L = ceil(N / p), zeros after N.
dense (Linformer): y[r, h, :] = sum_n W[h, n, r] x[n, h, :].
With `broadcast`, every head reads all columns of x: y[c, h, :] = sum_l W[h, c, l] x[c L + l, :].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.layers.types import declared_type, weight_type

Mode = Literal["partitioned", "dense"]


def kernel_shape(mode: Mode, heads: int, partitions: int, particles: int) -> tuple[int, int, int]:
    """(H, p, L) partitioned, (H, N, p) dense."""
    if mode == "dense":
        return heads, particles, partitions
    return heads, partitions, math.ceil(particles / partitions)


@dataclass(frozen=True, eq=False)
class PartitionedProjection:
    """Arithmetic of one projection: (..., N, columns) to (..., p, heads * columns per head).

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
    def from_config(config: dict[str, Any], kernel: NDArray[np.float64]) -> PartitionedProjection:
        """From the Keras layer's configuration and its quantized kernel."""
        return PartitionedProjection(
            mode=config["mode"],
            heads=config["heads"],
            partitions=config["partitions"],
            broadcast=config["broadcast"],
            kernel=kernel,
            kernel_type=weight_type(config["kernel_quantizer"], config["name"]),
            output_type=declared_type(config),
        )

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
