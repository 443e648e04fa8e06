"""A dense matrix of its own for each head: y[c, h, :] = x[c, h, :] W[h].

Keys and values of SAL-T when the projection comes first (the two act on different axes and
commute): p rows instead of N pass the key matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.layers.types import declared_type, weight_type


@dataclass(frozen=True, eq=False)
class HeadDense:
    """Arithmetic: (..., rows, H * d) to (..., rows, H * D).

    kernel: (H, d, D) grid floats of `kernel_type`.
    """

    kernel: NDArray[np.float64]
    kernel_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_config(config: dict[str, Any], kernel: NDArray[np.float64]) -> HeadDense:
        """From the Keras layer's configuration and its quantized kernel."""
        return HeadDense(
            kernel,
            weight_type(config["kernel_quantizer"], config["name"]),
            declared_type(config),
        )

    def accum_type(self, source: FixedType) -> FixedType:
        """Type that holds every sum exactly."""
        return (source * self.kernel_type).sum_of(self.kernel.shape[1])

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Multiplies; each sum is exact and rounded once to `output_type`."""
        heads, depth_in, _ = self.kernel.shape
        x = x.reshape(*x.shape[:-1], heads, depth_in)
        y = np.einsum("...hi,hio->...ho", x, self.kernel)
        return observer.rounded("output", self.output_type, y.reshape(*y.shape[:-2], -1))
