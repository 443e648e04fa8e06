"""hls4ml side of `HeadDense`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType
from salt_hls.layers.head_dense import arithmetic
from salt_hls.layers.hls_ops import ArithmeticNode, grid_constant, layer_dict, register_node
from salt_hls.layers.types import weight_type


class HeadDense(ArithmeticNode):
    """Graph node."""

    stem = "head_dense"

    def output_shape(self) -> list[int]:
        heads, _, depth = self.get_attr("arithmetic").kernel.shape
        return [self.input_shape()[0], heads * depth]

    def constants(self) -> dict[str, tuple[NDArray[np.float64], FixedType]]:
        exact = self.get_attr("arithmetic")
        return {"kernel": (exact.kernel, exact.kernel_type)}

    def fields(self) -> dict[str, int | bool | FixedType]:
        exact = self.get_attr("arithmetic")
        heads, depth_in, depth_out = exact.kernel.shape
        return {
            "n_rows": self.input_shape()[0],
            "n_heads": heads,
            "depth_in": depth_in,
            "depth_out": depth_out,
            "accum_t": exact.accum_type(self.input_type()),
        }


def handler(
    keras_layer: dict[str, Any], input_names: list[str], input_shapes: list[list[int]], reader: Any
) -> tuple[dict[str, Any], list[int]]:
    """Parses the Keras layer."""
    config = keras_layer["config"]
    batch, rows, columns = input_shapes[0]
    heads, depth = config["heads"], config["depth"]
    kernel = grid_constant(
        keras_layer,
        reader,
        "kernel",
        (heads, columns // heads, depth),
        weight_type(config["kernel_quantizer"], config["name"]),
    )
    exact = arithmetic.HeadDense.from_config(config, kernel)
    return layer_dict(keras_layer, input_names, HeadDense, exact), [batch, rows, heads * depth]


def register() -> None:
    """Teaches hls4ml the layer."""
    register_node("HeadDense", HeadDense, handler)
