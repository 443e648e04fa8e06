"""A dense matrix of its own for each head: y[c, h, :] = x[c, h, :] W[h].

Keys and values of SAL-T when the projection comes first (the two act on different axes and
commute): p rows instead of N pass the key matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.graph.operation import TokenWise
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type, weight_type


@dataclass(frozen=True, eq=False)
class HeadDense(TokenWise, LayerOperation):
    """(..., rows, H * d) to (..., rows, H * D).

    kernel: (H, d, D) grid floats of `kernel_type`.
    """

    kernel: NDArray[np.float64]
    kernel_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight) -> HeadDense:
        heads, depth = config["heads"], config["depth"]
        return HeadDense(
            weight("kernel", (heads, shapes[0][-1] // heads, depth)),
            weight_type(config["kernel_quantizer"], config["name"]),
            declared_type(config),
        )

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        heads, _, depth = self.kernel.shape
        return (*shapes[0][:-1], heads * depth)

    def accum_type(self, source: FixedType) -> FixedType:
        """Type that holds every sum exactly."""
        return (source * self.kernel_type).sum_of(self.kernel.shape[1])

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Multiplies; each sum is exact and rounded once to `output_type`."""
        heads, depth_in, _ = self.kernel.shape
        x = x.reshape(*x.shape[:-1], heads, depth_in)
        y = np.einsum("...hi,hio->...ho", x, self.kernel)
        return observer.rounded("output", self.output_type, y.reshape(*y.shape[:-2], -1))

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        return {"kernel": (self.kernel, self.kernel_type)}

    def members(self, inputs: Sequence[Tensor]) -> Members:
        heads, depth_in, depth_out = self.kernel.shape
        return {
            "n_rows": inputs[0].shape[0],
            "n_heads": heads,
            "depth_in": depth_in,
            "depth_out": depth_out,
            "accum_t": self.accum_type(inputs[0].type),
        }
