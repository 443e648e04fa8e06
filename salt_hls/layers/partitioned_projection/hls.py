"""hls4ml side of `PartitionedProjection`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType
from salt_hls.layers.hls_ops import ArithmeticNode, grid_constant, layer_dict, register_node
from salt_hls.layers.partitioned_projection import arithmetic
from salt_hls.layers.schedule import Process, transfers
from salt_hls.layers.types import weight_type


class PartitionedProjection(ArithmeticNode):
    """Graph node."""

    stem = "partitioned_projection"

    def output_shape(self) -> list[int]:
        exact = self.get_attr("arithmetic")
        columns = self.input_shape()[1] * (exact.heads if exact.broadcast else 1)
        return [exact.partitions, columns]

    def constants(self) -> dict[str, tuple[NDArray[np.float64], FixedType]]:
        exact = self.get_attr("arithmetic")
        return {"kernel": (exact.rows(), exact.kernel_type)}

    def fields(self) -> dict[str, int | bool | FixedType]:
        exact = self.get_attr("arithmetic")
        particles, columns = self.input_shape()
        return {
            "n_particles": particles,
            "n_columns": columns,
            "n_heads": exact.heads,
            "n_partitions": exact.partitions,
            "n_terms": exact.rows().shape[2],
            "stride": exact.stride,
            "broadcast": exact.broadcast,
            "accum_t": exact.accum_type(self.input_type()),
        }

    def output_lanes(self, input_lanes: int) -> int:
        return 1

    def processes(self) -> list[Process]:
        (source,), (rows,) = self.inputs, self.outputs
        steps = transfers(self.get_input_variable())
        partitions = transfers(self.get_output_variable())
        return [
            Process("accumulate", steps, {source: range(steps)}, {"rows": [steps - 1]}),
            Process("emit", partitions, {"rows": [0]}, {rows: range(partitions)}),
        ]


def handler(
    keras_layer: dict[str, Any], input_names: list[str], input_shapes: list[list[int]], reader: Any
) -> tuple[dict[str, Any], list[int]]:
    """Parses the Keras layer."""
    config = keras_layer["config"]
    batch, particles, columns = input_shapes[0]
    heads, partitions = config["heads"], config["partitions"]
    kernel = grid_constant(
        keras_layer,
        reader,
        "kernel",
        arithmetic.kernel_shape(config["mode"], heads, partitions, particles),
        weight_type(config["kernel_quantizer"], config["name"]),
    )
    exact = arithmetic.PartitionedProjection.from_config(config, kernel)
    shape = [batch, partitions, columns * (heads if config["broadcast"] else 1)]
    return layer_dict(keras_layer, input_names, PartitionedProjection, exact), shape


def register() -> None:
    """Teaches hls4ml the layer."""
    register_node("PartitionedProjection", PartitionedProjection, handler)
