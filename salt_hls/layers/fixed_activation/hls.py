"""hls4ml side of `FixedActivation`."""

from __future__ import annotations

import math
from typing import Any

from salt_hls.fixed import FixedType
from salt_hls.layers.fixed_activation import arithmetic
from salt_hls.layers.hls_ops import ArithmeticNode, layer_dict, register_node


class FixedActivation(ArithmeticNode):
    """Graph node."""

    stem = "fixed_activation"

    def output_shape(self) -> list[int]:
        return self.input_shape()

    def fields(self) -> dict[str, int | bool | FixedType]:
        relu = self.get_attr("arithmetic").function == "relu"
        return {"n_in": math.prod(self.input_shape()), "relu": relu}


def handler(
    keras_layer: dict[str, Any], input_names: list[str], input_shapes: list[list[int]], reader: Any
) -> tuple[dict[str, Any], list[int]]:
    """Parses the Keras layer."""
    exact = arithmetic.FixedActivation.from_config(keras_layer["config"])
    return layer_dict(keras_layer, input_names, FixedActivation, exact), input_shapes[0]


def register() -> None:
    """Teaches hls4ml the layer."""
    register_node("FixedActivation", FixedActivation, handler)
