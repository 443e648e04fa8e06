"""Dynamic tanh, y = Q(tanh(alpha Q_in(x) + beta)), as one table over the values of Q_in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer, Table
from salt_hls.graph.operation import TokenWise
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.layer import Constants, LayerOperation, Members, Shape, Weight
from salt_hls.layers.types import declared_type


@dataclass(frozen=True)
class DynamicTanh(TokenWise, LayerOperation):
    """Any shape in, the same shape out. alpha, beta: float scalars, inside the table.

    input_type: the table's argument; x is rounded to it first (this is where the residual sum is
    rounded). output_type: the table's entries.
    """

    alpha: float
    beta: float
    input_type: FixedType
    output_type: FixedType

    @staticmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> DynamicTanh:
        argument = declared_type(config, "input_type", table=True)
        alpha, beta = (float(weight(name, (1,))[0]) for name in ("alpha", "beta"))
        return DynamicTanh(alpha, beta, argument, declared_type(config))

    @cached_property
    def table(self) -> Table:
        """tanh at every value of `input_type`, computed in float64 and rounded once."""
        grid = self.input_type
        lowest = -(2 ** (grid.width - 1)) if grid.signed else 0
        x = (lowest + np.arange(2**grid.width)) * grid.lsb
        entries = self.output_type.quantize(np.tanh(self.alpha * x + self.beta))
        return Table(grid, self.output_type, lowest * grid.lsb, entries)

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        """Looks up the rounded argument."""
        argument = observer.rounded("input", self.input_type, x)
        return observer.looked_up("output", self.table, argument)

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        return {"table": (self.table.by_bits(), self.output_type)}

    def members(self, inputs: Sequence[Tensor]) -> Members:
        return {
            "n_in": inputs[0].size,
            "index_width": self.input_type.width,
            "argument_t": self.input_type,
        }
