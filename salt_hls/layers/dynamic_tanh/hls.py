"""hls4ml side of `DynamicTanh`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hls4ml.converters.keras_v2_to_hls import get_weights_data
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers.dynamic_tanh import arithmetic
from salt_hls.layers.hls_ops import ArithmeticNode, bits_order, layer_dict, register_node


class DynamicTanh(ArithmeticNode):
    """Graph node."""

    stem = "dynamic_tanh"

    def output_shape(self) -> list[int]:
        return self.input_shape()

    def constants(self) -> dict[str, tuple[NDArray[np.float64], FixedType]]:
        exact = self.get_attr("arithmetic")
        return {"table": (bits_order(exact.table), exact.output_type)}

    def fields(self) -> dict[str, int | bool | FixedType]:
        exact = self.get_attr("arithmetic")
        return {
            "n_in": math.prod(self.input_shape()),
            "index_width": exact.input_type.width,
            "argument_t": exact.input_type,
        }


def handler(
    keras_layer: dict[str, Any], input_names: list[str], input_shapes: list[list[int]], reader: Any
) -> tuple[dict[str, Any], list[int]]:
    """Parses the Keras layer."""
    name = keras_layer["config"]["name"]
    alpha, beta = get_weights_data(reader, name, ["alpha", "beta"])
    if not (np.all(np.isfinite(alpha)) and np.all(np.isfinite(beta))):
        raise UserError(f"layer {name}: alpha or beta is NaN or infinity; retrain it")
    exact = arithmetic.DynamicTanh.from_config(keras_layer["config"], alpha[0], beta[0])
    return layer_dict(keras_layer, input_names, DynamicTanh, exact), input_shapes[0]


def register() -> None:
    """Teaches hls4ml the layer."""
    register_node("DynamicTanh", DynamicTanh, handler)
