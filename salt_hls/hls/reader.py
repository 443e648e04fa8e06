"""From hls4ml's graph to ours: what every node computes, as an operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeGuard, cast

import numpy as np
from hls4ml.model.graph import ModelGraph
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph, IoType, Node
from salt_hls.graph.operation import Operation
from salt_hls.graph.tensor import Tensor
from salt_hls.hls import hls4ml_types as hls4ml
from salt_hls.hls.nodes import OperationNode, fixed_type_of, shape_of, tensor
from salt_hls.layers import standard

KERAS_LAYER = "keras_layer"
"""Attribute of a node that computes the output of a Keras layer of another name."""


def is_graph(model: object) -> TypeGuard[hls4ml.Graph]:
    """Whether a model is a graph that hls4ml has converted."""
    return isinstance(model, ModelGraph)


def read_graph(graph: hls4ml.Graph) -> Graph:
    """Our graph for an hls4ml ModelGraph.

    Raises `UserError` for a node that has no exact arithmetic here.
    """
    nodes = []
    tensors: dict[str, Tensor] = {}
    for node in graph.get_layers():
        given = () if node.class_name == "Input" else tuple(tensors[n] for n in node.inputs)
        operation = None if node.class_name == "Input" else _operation(node)
        elements = operation.elements if operation else None
        if node.class_name == "Clone":
            elements = given[0].elements
        outputs = tuple(
            replace(tensor(name, node.variables[name]), elements=elements) for name in node.outputs
        )
        tensors |= {output.name: output for output in outputs}
        nodes.append(
            Node(
                node.name,
                node.class_name,
                operation,
                given,
                outputs,
                bool(node.get_attr("trace", False)),
                node.get_attr(KERAS_LAYER, node.name),
            )
        )
    return Graph(
        tuple(nodes),
        tuple(tensors[name] for name in graph.inputs),
        tuple(tensors[name] for name in graph.outputs),
        cast(IoType, graph.config.get_config_value("IOType")),
    )


def _operation(node: hls4ml.Node) -> Operation:
    if isinstance(node, OperationNode):
        return node.operation
    if node.class_name not in _STANDARD:
        raise UserError(
            f"layer {node.name}: {node.class_name} has no exact arithmetic here; "
            f"supported: SAL-T layers, {', '.join(sorted(_STANDARD))}"
        )
    return _STANDARD[node.class_name](node)


def _output(node: hls4ml.Node) -> FixedType:
    return fixed_type_of(node.get_output_variable().type.precision)


def _input(node: hls4ml.Node) -> FixedType:
    return fixed_type_of(node.get_input_variable().type.precision)


def _accumulator(node: hls4ml.Node) -> FixedType:
    return fixed_type_of(node.get_attr("accum_t").precision)


def _weights(node: hls4ml.Node, name: str) -> NDArray[np.float64]:
    """A constant as the C++ compiler reads it: converted to its declared type."""
    weights = node.get_weights(name)
    data = np.asarray(weights.data, np.float64)
    return np.asarray(fixed_type_of(weights.type.precision).quantize(data))


def _matrix(node: hls4ml.Node, kernel: NDArray[np.float64]) -> standard.Dense:
    product = fixed_type_of(node.get_weights("weight").type.precision) * _input(node)
    accum = _accumulator(node)
    if accum.frac_bits < product.frac_bits:
        raise UserError(
            f"layer {node.name}: accumulator {accum} cuts products of {product.frac_bits} "
            "fractional bits; leave its precision 'auto'"
        )
    return standard.Dense(kernel, _weights(node, "bias"), accum, _output(node))


def _dense(node: hls4ml.Node) -> Operation:
    kernel = _weights(node, "weight")
    outputs = int(node.get_output_variable().shape[-1])
    if node.get_attr("_weights_transposed"):  # the Resource strategy stores (outputs, inputs)
        return _matrix(node, kernel.reshape(outputs, -1).T)
    return _matrix(node, kernel.reshape(-1, outputs))


def _windows(node: hls4ml.Node, width: int) -> standard.Windows:
    if node.get_attr("data_format") != "channels_last":
        raise UserError(f"layer {node.name}: data_format must be channels_last")
    stride, before, after = (
        int(node.get_attr(key)) for key in ("stride_width", "pad_left", "pad_right")
    )
    return standard.Windows(width, stride, before, after)


def _conv1d(node: hls4ml.Node) -> Operation:
    if node.get_attr("_weights_transposed"):
        raise UserError(f"layer {node.name}: Conv1D with Strategy Resource; use Latency")
    windows = _windows(node, int(node.get_attr("filt_width")))
    kernel = _weights(node, "weight")
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return standard.Conv1D(windows, _matrix(node, kernel), _output(node))


def _scale(node: hls4ml.Node) -> Operation:
    return standard.Scale(_weights(node, "scale"), _weights(node, "bias"), _output(node))


def _activation(node: hls4ml.Node) -> Operation:
    function = node.get_attr("activation")
    if function not in ("linear", "relu"):
        raise UserError(
            f"layer {node.name}: activation {function!r} has no exact arithmetic here; use relu, "
            "linear, or salt_hls's DynamicTanh"
        )
    return standard.Activation(function, _output(node))


def _merge(node: hls4ml.Node) -> Operation:
    operator = node.get_attr("op").lower()
    if operator not in standard.MERGES:
        known = ", ".join(standard.MERGES)
        raise UserError(f"layer {node.name}: merge {operator!r}; supported: {known}")
    a, b = (shape_of(node.get_input_variable(name)) for name in node.inputs)
    if a != b:
        raise UserError(f"layer {node.name}: merges {a} and {b}; give equal shapes")
    return standard.Merge(operator, _output(node))


def _concatenate(node: hls4ml.Node) -> Operation:
    axis = int(node.get_attr("axis"))
    if axis >= 0:
        axis -= len(node.get_output_variable().shape) + 1  # counted with the batch axis
    return standard.Concatenate(axis, _output(node))


def _reshape(node: hls4ml.Node) -> Operation:
    rank = len(node.get_input_variable().shape)
    return standard.Reshape(rank, shape_of(node.get_output_variable()), _output(node))


def _pool(node: hls4ml.Node, rows: int) -> standard.GlobalPooling:
    accum, function = _accumulator(node), node.get_attr("pool_op").lower()
    if function == "max":
        return standard.GlobalPooling("max", accum, _output(node))
    shift = rows.bit_length() - 1
    if rows != 2**shift or accum.frac_bits < _input(node).frac_bits + shift:
        raise UserError(
            f"layer {node.name}: the mean of {rows} values is exact only for a power of two and "
            f"an accumulator of {shift} more fractional bits than the input, got {accum}"
        )
    return standard.GlobalPooling("average", accum, _output(node))


def _pooling(node: hls4ml.Node) -> Operation:
    if node.get_attr("pad_left") or node.get_attr("pad_right"):
        raise UserError(f"layer {node.name}: pooling over padding; use padding='valid'")
    windows = _windows(node, int(node.get_attr("pool_width")))
    return standard.Pooling(windows, _pool(node, windows.width), _output(node))


_STANDARD: dict[str, Callable[[hls4ml.Node], Operation]] = {
    "Activation": _activation,
    "ApplyAlpha": _scale,
    "BatchNormalization": _scale,
    "Clone": lambda node: standard.Clone(_output(node)),
    "Concatenate": _concatenate,
    "Conv1D": _conv1d,
    "Dense": _dense,
    "GlobalPooling1D": lambda node: _pool(node, int(node.get_input_variable().shape[-2])),
    "Merge": _merge,
    "PointwiseConv1D": _dense,
    "Pooling1D": _pooling,
    "Reshape": _reshape,
    "Transpose": lambda node: standard.Transpose(
        tuple(map(int, node.get_attr("perm"))), _output(node)
    ),
}
