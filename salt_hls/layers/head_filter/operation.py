"""A filter along the rows, one for each head: y[n, h, :] = Q(sum_a K[h, a] x[n + a - up, h, :]).

SAL-T's convolution of the logits by a kernel of rank one, K[a, j] = f[a] g[j], is a filter f of the
queries along the particles and a filter g of the keys along the partitions: SAME zero padding of
the logits is that of both, and without rounding

sum_{a, j} f[a] g[j] (q[n + a - up] . k[c + j - left])
    = (sum_a f[a] q[n + a - up]) . (sum_j g[j] k[c + j - left]).

Here both sums are rounded to a declared type, and the logits once, after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.graph.drains import Write
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import reading, sliding
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type, weight_type


def padding(extent: int) -> tuple[int, int]:
    """TensorFlow's SAME zero padding of a filter: before, after (the extra zero comes last)."""
    return (extent - 1) // 2, extent // 2


def pad(x: Array, extent: int) -> Array:
    """Rows (..., n, columns) between the rows of zeros that a filter sees before and after."""
    zeros = [np.zeros((*x.shape[:-2], count, x.shape[-1])) for count in padding(extent)]
    return np.concatenate([zeros[0], x, zeros[1]], axis=-2)


@dataclass(frozen=True, eq=False)
class HeadFilter(LayerOperation):
    """(..., rows, H * d) to the same shape.

    kernel: (H, height) grid floats of `kernel_type`.
    """

    kernel: NDArray[np.float64]
    kernel_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> HeadFilter:
        return HeadFilter(
            weight("kernel", (config["heads"], max(config["heights"]))),
            weight_type(config["kernel_quantizer"], config["name"]),
            declared_type(config),
        )

    def filter(self, padded: Array, observer: Observer = UNOBSERVED) -> Array:
        """padded: (..., n + height - 1, H * d), the n rows and their neighbours."""
        heads, height = self.kernel.shape
        rows = padded.shape[-2] - height + 1
        windows = np.stack([padded[..., a : a + rows, :] for a in range(height)], axis=-1)
        windows = windows.reshape(*windows.shape[:-2], heads, -1, height)
        y = np.einsum("...hda,ha->...hd", windows, self.kernel)
        return observer.rounded("output", self.output_type, y.reshape(*y.shape[:-2], -1))

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Filters; each sum is exact and rounded once to `output_type`."""
        return self.filter(pad(x, self.kernel.shape[1]), observer)

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        return {"kernel": (self.kernel, self.kernel_type)}

    def members(self, inputs: Sequence[Tensor]) -> Members:
        (source,) = inputs
        heads, height = self.kernel.shape
        return {
            "n_rows": source.shape[0],
            "n_heads": heads,
            "depth": source.shape[1] // heads,
            "height": height,
            "pad_up": padding(height)[0],
            "accum_t": (source.type * self.kernel_type).sum_of(height),
        }

    def loops(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Loop]:
        """One that hands the rows on, those that the filter looks ahead together; one that filters
        a window of them."""
        (source,), (target,) = inputs, outputs
        steps, around = source.transfers, padding(self.kernel.shape[1])
        first = Loop(f"{name}_rows", steps, {source.name: reading(source, steps)})
        first.operations["rows"] = lambda v: v[source.name]
        first.drains, window = sliding(
            name, "rows", source.type.exact(), source, source.shape[1], around
        )
        second = Loop(
            f"{name}_filter",
            steps,
            {"window": window},
            {target.name: lambda v: self.filter(v["window"])},
            [Write((target.name,), target.channel, steps)],
        )
        return [first, second]
