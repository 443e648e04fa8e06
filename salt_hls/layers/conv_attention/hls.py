"""hls4ml side of `ConvAttention`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType
from salt_hls.layers.conv_attention import arithmetic
from salt_hls.layers.conv_attention.arithmetic import padding, scale_shift
from salt_hls.layers.hls_ops import ArithmeticNode, grid_constant, layer_dict, register_node
from salt_hls.layers.schedule import Process, lanes, transfers
from salt_hls.layers.types import weight_type


class ConvAttention(ArithmeticNode):
    """Graph node; inputs q, k, v."""

    stem = "conv_attention"

    def output_shape(self) -> list[int]:
        return self.input_shape()

    def constants(self) -> dict[str, tuple[NDArray[np.float64], FixedType]]:
        exact = self.get_attr("arithmetic")
        reciprocal = exact.reciprocal_table(self.input_shape(1)[0])
        constants = {
            "exp_table": (exact.exp_table.entries, exact.exp_type),
            "reciprocal_table": (reciprocal.entries, exact.reciprocal_type),
        }
        if exact.kernel is not None:
            constants["kernel"] = (exact.kernel, exact.kernel_type)
        return constants

    def fields(self) -> dict[str, int | bool | FixedType]:
        exact = self.get_attr("arithmetic")
        particles, columns = self.input_shape()
        partitions = self.input_shape(1)[0]
        depth = columns // exact.heads
        query, key, value = (self.input_type(i) for i in range(3))
        dot = (query * key).sum_of(depth)
        reciprocal = exact.reciprocal_table(partitions)
        height = 0 if exact.kernel is None else len(exact.kernel)
        conv_sum = exact.conv_type
        if exact.kernel_type is not None:
            conv_sum = (exact.logits_type * exact.kernel_type).sum_of(height * partitions)
        return {
            "n_particles": particles,
            "n_partitions": partitions,
            "n_heads": exact.heads,
            "depth": depth,
            "filter_height": height,
            "pad_up": padding(height)[0] if height else 0,
            "pad_left": padding(partitions)[0],
            "first_sum": round(reciprocal.first * 2.0**reciprocal.source.frac_bits),
            "reciprocals": len(reciprocal.entries),
            "dot_t": dot,
            "scaled_t": FixedType(dot.width, dot.int_bits - scale_shift(depth), dot.signed),
            "logits_t": exact.logits_type,
            "conv_sum_t": conv_sum,
            "conv_t": exact.conv_type,
            "difference_t": exact.conv_type.difference(),
            "exp_sum_t": exact.exp_type.exact().sum_of(partitions),
            "sum_t": exact.sum_type,
            "attention_t": exact.attention_type,
            "context_sum_t": (exact.attention_type * value).sum_of(partitions),
        }

    def processes(self) -> list[Process]:
        (query, key, value), (context,) = self.inputs, self.outputs
        variables = [self.get_input_variable(name) for name in self.inputs]
        steps, keys, values = (transfers(variable) for variable in variables)
        kernel = self.get_attr("arithmetic").kernel
        # The transfers that the filter looks ahead travel together: every step emits one.
        below = 0 if kernel is None else padding(len(kernel))[1]
        early = min(math.ceil(below / lanes(variables[0])), steps)
        return [
            Process("collect_keys", keys, {key: range(keys)}, {"keys": [keys - 1]}),
            Process("collect_values", values, {value: range(values)}, {"values": [values - 1]}),
            Process(
                "logits",
                steps,
                {"keys": [0], query: range(steps)},
                {"early": [early - 1] if early else [], "late": range(early, steps)},
            ),
            Process(
                "context",
                steps,
                {"values": [0], "early": [0] if early else [], "late": range(steps - early)},
                {context: range(steps)},
            ),
        ]


def handler(
    keras_layer: dict[str, Any], input_names: list[str], input_shapes: list[list[int]], reader: Any
) -> tuple[dict[str, Any], list[int]]:
    """Parses the Keras layer."""
    config = keras_layer["config"]
    partitions = input_shapes[1][1]
    kernel = None
    if config["filter_heights"]:
        shape = (max(config["filter_heights"]), partitions)
        kernel_type = weight_type(config["kernel_quantizer"], config["name"])
        kernel = grid_constant(keras_layer, reader, "kernel", shape, kernel_type)
    exact = arithmetic.ConvAttention.from_config(config, kernel, partitions)
    return layer_dict(keras_layer, input_names, ConvAttention, exact), input_shapes[0]


def register() -> None:
    """Teaches hls4ml the layer."""
    register_node("ConvAttention", ConvAttention, handler)
