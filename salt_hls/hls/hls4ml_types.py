"""What we use of hls4ml's objects, which have no types of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Precision(Protocol):
    """A fixed-point or integer type."""

    width: int
    integer: int
    signed: bool
    rounding_mode: Enum | None
    saturation_mode: Enum | None


class NamedType(Protocol):
    """A type as C++ names it; under io_stream, of transfers of n_pack rows of n_elem values."""

    name: str
    precision: Precision
    n_elem: int
    n_pack: int


class Variable(Protocol):
    """A tensor, as an array or a stream in C++."""

    name: str
    type: NamedType
    shape: Sequence[int]
    pragma: Any
    size: Callable[[], int]
    size_cpp: Callable[[], str]

    def definition_cpp(self) -> str:
        """Its definition."""


class WeightVariable(Protocol):
    """A constant."""

    name: str
    type: NamedType
    data: NDArray[np.float64]
    storage: str
    shape: Sequence[int]


class Node(Protocol):
    """A layer."""

    name: str
    class_name: str
    index: int
    inputs: list[str]
    outputs: list[str]
    variables: dict[str, Variable]
    weights: Mapping[str, WeightVariable]
    types: dict[str, NamedType]
    model: Graph

    def get_attr(self, key: str, default: Any = None) -> Any:
        """A setting."""

    def set_attr(self, key: str, value: Any) -> None:
        """Changes a setting."""

    def get_weights(self, name: str) -> WeightVariable:
        """A constant by name."""

    def add_weights(self, quantizer: Any) -> None:
        """Adds the constant `weight`."""

    def add_bias(self, quantizer: Any) -> None:
        """Adds the constant `bias`."""

    def get_input_variable(self, name: str = ...) -> Variable:
        """The variable of an input, else of the first."""

    def get_output_variable(self, name: str = ...) -> Variable:
        """The variable of an output, else of the first."""


class Graph(Protocol):
    """A ModelGraph."""

    config: Any
    graph: Mapping[str, Node]
    inputs: list[str]
    outputs: list[str]

    def get_layers(self) -> Iterable[Node]:
        """All layers, each after those it reads from."""

    def get_input_variables(self) -> list[Variable]:
        """Those that enter."""

    def get_output_variables(self) -> list[Variable]:
        """Those that leave."""

    def get_weight_variables(self) -> list[WeightVariable]:
        """All constants."""

    def apply_flow(self, flow: str) -> None:
        """Runs a flow of passes."""

    def write(self) -> None:
        """Writes the project."""
