"""What a layer's `operation.py` gives: the operation, read from Keras, and how C++ is called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType
from salt_hls.graph.operation import Operation
from salt_hls.graph.tensor import Tensor

Shape = tuple[int, ...]
"""Of a tensor, without the batch axis."""

Weight = Callable[[str, Shape], NDArray[np.float64]]
"""The weight of this name as the forward pass uses it; `UserError` if it has another shape."""

Constants = Mapping[str, tuple[NDArray[np.float64], FixedType]]
Members = Mapping[str, int | bool | tuple[int, ...] | FixedType]


class LayerOperation(Operation):
    """The operation of one of our layers, written in C++ as `nnet::<stem>`."""

    @staticmethod
    @abstractmethod
    def from_keras(
        config: Mapping[str, Any], shapes: Sequence[Shape], weight: Weight
    ) -> LayerOperation:
        """From the Keras layer's configuration, the shapes of its inputs and its weights.

        Raises `UserError` for a float layer, and for types that cannot hold what is needed.
        """

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of the output, from those of the inputs."""
        return shapes[0]

    def constants(self, shapes: Sequence[Shape]) -> Constants:
        """Weights and tables passed to the C++ function, by parameter name, in order."""
        return {}

    @abstractmethod
    def members(self, inputs: Sequence[Tensor]) -> Members:
        """Members of the C++ struct: numbers, arrays of them, types under names ending in `_t`."""
