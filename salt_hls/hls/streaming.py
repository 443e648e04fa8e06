"""What io_stream changes in hls4ml's graph: transfers of several particles, FIFO depths, calls of
our token loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.graph.network import network_of, sufficient_depths
from salt_hls.hls import hls4ml_types as hls4ml
from salt_hls.hls.nodes import OperationNode, tensor
from salt_hls.hls.reader import read_graph

LEAST = 2
"""What HLS makes of a FIFO without a depth."""


def stream(graph: hls4ml.Graph, particles_per_clock: int = 1) -> None:
    """Prepares a converted io_stream graph: transfer sizes, depths, and calls of our token loops.

    Where the particles do not divide by `particles_per_clock`, the last transfer of a jet is partly
    filled; what the rest of it holds changes nothing. Raises `UserError` for another graph, for a
    number that is not 1 ... particles, and for a layer that has no form on streams.
    """
    _check_request(graph, particles_per_clock)
    for node in graph.get_layers():
        _set_lanes(node, particles_per_clock)
    network = network_of(read_graph(graph))
    depths = sufficient_depths(network)
    for node in graph.get_layers():
        for name in node.outputs:
            node.variables[name].pragma = ("stream", max(depths[name], LEAST))
        if isinstance(node, OperationNode):
            prefix = f"{node.name}/"
            node.depths = {
                channel.removeprefix(prefix): max(depths[channel], LEAST)
                for process in network.processes.values()
                for channel, steps in process.writes.items()
                if channel.startswith(prefix) and len(steps)
            }
    for backend in dict.fromkeys(("vivado", graph.config.backend.name.lower())):
        graph.apply_flow(f"{backend}:apply_templates")
    for node in graph.get_layers():
        _call_token_loop(node)
    graph.is_streamed = True  # type: ignore[attr-defined]  # see OperationNode.serialize_state
    for method in ("predict", "trace"):
        setattr(graph, method, partial(_in_whole_transfers, graph, getattr(type(graph), method)))


def depths_of(graph: hls4ml.Graph) -> Mapping[str, int]:
    """The depth of every channel, as the project declares it."""
    depths: dict[str, int] = {}
    for node in graph.get_layers():
        depths |= {name: int(node.variables[name].pragma[1]) for name in node.outputs}
        if isinstance(node, OperationNode):
            depths |= {f"{node.name}/{c}": depth for c, depth in node.depths.items()}
    return depths


def _check_request(graph: hls4ml.Graph, particles_per_clock: int) -> None:
    io_type = graph.config.get_config_value("IOType")
    if io_type != "io_stream":
        raise UserError(
            f"streams: the graph is {io_type}; convert the model with io_type io_stream"
        )
    particles = max(math.prod(v.shape[:-1]) for v in graph.get_input_variables())
    whole = isinstance(particles_per_clock, Integral) and not isinstance(particles_per_clock, bool)
    if not whole or not 1 <= particles_per_clock <= particles:
        raise UserError(
            f"streams: particles per clock must be a whole number from 1 to {particles}, "
            f"got {particles_per_clock}"
        )


def _set_lanes(node: hls4ml.Node, particles_per_clock: int) -> None:
    for name in node.outputs:
        variable = node.variables[name]
        if node.class_name == "Input":
            wanted = particles_per_clock
        else:
            wanted = tensor("", node.get_input_variable()).lanes
            if isinstance(node, OperationNode):
                wanted = node.operation.output_lanes(wanted)
        variable.type.n_pack = min(wanted, math.prod(variable.shape[:-1]))
        # hls4ml's loops and the C-simulation's arrays are of whole transfers.
        made = tensor(name, variable)
        size = made.transfers * made.transfer_size
        variable.size, variable.size_cpp = partial(int, size), partial(str, size)
        if node.class_name == "Clone":
            node.set_attr("size", size)


def _call_token_loop(node: hls4ml.Node) -> None:
    """hls4ml's dense loop takes one particle a transfer, its maximum is not pipelined: use ours."""
    if node.class_name not in ("PointwiseConv1D", "GlobalPooling1D"):
        return
    source, target = node.get_input_variable(), node.get_output_variable()
    types = f"{source.type.name}, {target.type.name}, {source.shape[0]}"
    names = f"{source.name}, {target.name}"
    if node.class_name == "GlobalPooling1D":
        call = f"nnet::token_maximum<{types}>({names});"
    else:
        weights = f"{node.get_weights('weight').name}, {node.get_weights('bias').name}"
        call = f"nnet::token_dense<{types}, config{node.index}_mult>({names}, {weights});"
    node.set_attr("function_cpp", call)
    node.set_attr("include_header", [*node.get_attr("include_header"), "nnet_utils/nnet_tokens.h"])


def _in_whole_transfers(graph: hls4ml.Graph, method: Callable[..., Any], x: Any) -> Any:
    """hls4ml's `predict` or `trace`: arrays of tensors, while the C++ wants whole transfers."""
    inputs, outputs = graph.get_input_variables(), graph.get_output_variables()
    arrays = [_padded(a, v) for a, v in zip([x] if len(inputs) == 1 else x, inputs, strict=True)]
    result = method(graph, arrays[0] if len(inputs) == 1 else arrays)
    y, *traced = result if method.__name__ == "trace" else (result,)
    whole = zip([y] if len(outputs) == 1 else y, outputs, strict=True)
    cut = [array[..., : math.prod(variable.shape)] for array, variable in whole]
    y = cut[0] if len(outputs) == 1 else cut
    return (y, *traced) if traced else y


def _padded(array: NDArray[Any], variable: hls4ml.Variable) -> NDArray[Any]:
    """(jets, values of the transfers of one), from an array of whole tensors; zeros fill them."""
    values = math.prod(variable.shape)
    if array.size % values:
        raise UserError(f"{variable.name}: got {array.size} values, tensors have {values} each")
    return np.pad(array.reshape(-1, values), ((0, 0), (0, variable.size() - values)))
