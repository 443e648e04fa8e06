"""y = Q(x) or Q(max(x, 0)): the one place where a sum is rounded to its declared type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.graph.operation import TokenWise
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.layer import LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type

Function = Literal["linear", "relu"]


@dataclass(frozen=True)
class FixedActivation(TokenWise, LayerOperation):
    """Any shape in, the same shape out, of `output_type`."""

    function: Function
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> FixedActivation:
        return FixedActivation(config["function"], declared_type(config))

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Quantizes the activated values."""
        activated = np.maximum(x, 0) if self.function == "relu" else x
        return observer.rounded("output", self.output_type, activated)

    def members(self, inputs: Sequence[Tensor]) -> Members:
        return {"n_in": inputs[0].size, "relu": self.function == "relu"}
