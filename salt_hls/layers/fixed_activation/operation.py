"""y = Q(x) or Q(max(x, 0)): the one place where a sum is rounded to its declared type, or to one
type for each element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from salt_hls.errors import UserError
from salt_hls.fixed import UNOBSERVED, Array, ElementTypes, FixedType, Observer
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import TokenWise
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.layer import LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type

Function = Literal["linear", "relu"]


@dataclass(frozen=True)
class FixedActivation(TokenWise, LayerOperation):
    """Any shape in, the same shape out, of `output_type`, whose grid holds those of `elements`."""

    function: Function
    output_type: FixedType
    elements: ElementTypes | None = None

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> FixedActivation:
        to, elements = declared_type(config), None
        if config.get("elements"):
            i, f = (weight(name, shapes[0]) for name in ("integer_bits", "fraction_bits"))
            elements = ElementTypes.of(to, i, f, config["name"])
        return FixedActivation(config["function"], to, elements)

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Quantizes the activated values."""
        activated = np.maximum(x, 0) if self.function == "relu" else x
        return observer.rounded("output", self.elements or self.output_type, activated)

    def members(self, inputs: Sequence[Tensor]) -> Members:
        members: Members = {"n_in": inputs[0].size, "relu": self.function == "relu"}
        if self.elements is None:
            return members
        sign = self.output_type.signed
        return {
            **members,
            "elements": True,
            "signed_elements": sign,
            "width": tuple(self.elements.widths.ravel().tolist()),
            "iwidth": tuple((self.elements.integer_bits + sign).ravel().tolist()),
        }

    def loops(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> list[Loop] | None:
        """Particles that share a lane pass through the same hardware: they must have the same
        types."""
        if self.elements is None:
            return super().loops(name, inputs, outputs)
        of_transfer = outputs[0].of_transfer(self.elements)
        if of_transfer is None:
            raise UserError(
                f"layer {name}: widths differ among the particles of a lane; train it with widths "
                "per channel (io_stream), or use io_parallel"
            )
        return TokenWise.loops(replace(self, elements=of_transfer), name, inputs, outputs)
