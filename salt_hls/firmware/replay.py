"""The hls4ml graph, executed: on grid floats it is the golden model, on symbolic arrays the RTL.

Our layers bring their arithmetic object; the few hls4ml layers that taggers need are described
here, by the same rule: every sum is exact, and rounded once to the node's declared type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.layers.hls_ops import ArithmeticNode, fixed_type_of


def output_type(node: Any) -> FixedType:
    """Declared type of a node's output."""
    return fixed_type_of(node.get_output_variable().type.precision)


def replay(
    graph: Any,
    inputs: Sequence[Array],
    observers: Callable[[str], Observer] = lambda name: UNOBSERVED,
) -> dict[str, Array]:
    """Every node's output by node name, in graph order.

    graph: hls4ml ModelGraph. inputs: one array per input node, (..., *shape), any batch axes, on
    the grid of that input. observers: by node name, what sees the tensors inside our layers.
    Raises `UserError` for a node class that has no arithmetic.
    """
    values: dict[str, Array] = {}
    results: dict[str, Array] = {}
    waiting = list(inputs)
    for node in graph.get_layers():
        if node.class_name == "Input":
            result = waiting.pop(0)
        else:
            operands = [values[name] for name in node.inputs]
            result = apply(node, operands, observers(node.name))
        for name in node.outputs:
            values[name] = result
        results[node.name] = result
    return results


def apply(node: Any, operands: Sequence[Array], observer: Observer = UNOBSERVED) -> Array:
    """A node's output, (..., *shape); of token-wise nodes also that of any number of rows."""
    if isinstance(node, ArithmeticNode):
        return node.get_attr("arithmetic")(*operands, observer)
    if node.class_name not in _STANDARD:
        raise UserError(
            f"layer {node.name}: {node.class_name} has no exact arithmetic here; "
            f"supported: SAL-T layers, {', '.join(sorted(_STANDARD))}"
        )
    return _STANDARD[node.class_name](node, *operands)


def _weights(node: Any, name: str) -> NDArray[np.float64]:
    """A constant as the C++ compiler reads it: converted to its declared type."""
    weights = node.get_weights(name)
    return np.asarray(
        fixed_type_of(weights.type.precision).quantize(np.asarray(weights.data, np.float64))
    )


def _accumulate(node: Any, x: Array, kernel: NDArray[np.float64]) -> Array:
    """Products over the last axis of x and the first of the kernel, bias, declared type."""
    accum = fixed_type_of(node.get_attr("accum_t").precision)
    product = fixed_type_of(node.get_weights("weight").type.precision) * _input_type(node)
    if accum.frac_bits < product.frac_bits:
        raise UserError(
            f"layer {node.name}: accumulator {accum} cuts products of {product.frac_bits} "
            "fractional bits; leave its precision 'auto'"
        )
    total = np.einsum("...i,io->...o", x, kernel) + _weights(node, "bias")
    return output_type(node).quantize(accum.quantize(total))


def _dense(node: Any, x: Array) -> Array:
    kernel = _weights(node, "weight")
    outputs = node.get_output_variable().shape[-1]
    if node.get_attr("_weights_transposed"):  # the Resource strategy stores (outputs, inputs)
        return _accumulate(node, x, kernel.reshape(outputs, -1).T)
    return _accumulate(node, x, kernel.reshape(-1, outputs))


def _windows(node: Any, x: Array, width: int) -> list[Array]:
    """Slices of the padded particle axis: entry j holds element j of every window."""
    stride, before, after = (node.get_attr(f) for f in ("stride_width", "pad_left", "pad_right"))
    if node.get_attr("data_format") != "channels_last":
        raise UserError(f"layer {node.name}: data_format must be channels_last")
    padding = [np.zeros((*x.shape[:-2], n, x.shape[-1])) for n in (before, after)]
    x = np.concatenate([padding[0], x, padding[1]], axis=-2)
    count = (x.shape[-2] - width) // stride + 1
    return [x[..., j : j + stride * (count - 1) + 1 : stride, :] for j in range(width)]


def _conv1d(node: Any, x: Array) -> Array:
    width = node.get_attr("filt_width")
    if node.get_attr("_weights_transposed"):
        raise UserError(f"layer {node.name}: Conv1D with Strategy Resource; use Latency")
    windows = np.concatenate(_windows(node, x, width), axis=-1)
    kernel = _weights(node, "weight").reshape(windows.shape[-1], -1)
    return _accumulate(node, windows, kernel)


def _scale(node: Any, x: Array) -> Array:
    return output_type(node).quantize(x * _weights(node, "scale") + _weights(node, "bias"))


def _activation(node: Any, x: Array) -> Array:
    function = node.get_attr("activation")
    if function not in ("linear", "relu"):
        raise UserError(
            f"layer {node.name}: activation {function!r} has no exact arithmetic here; use relu, "
            "linear, or salt_hls's DynamicTanh"
        )
    return output_type(node).quantize(np.maximum(x, 0) if function == "relu" else x)


_MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "average": lambda x, y: (x + y) * 0.5,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def _merge(node: Any, x: Array, y: Array) -> Array:
    op = node.get_attr("op").lower()
    if op not in _MERGES:
        raise UserError(f"layer {node.name}: merge {op!r}; supported: {', '.join(_MERGES)}")
    shapes = [tuple(node.get_input_variable(name).shape) for name in node.inputs]
    if shapes[0] != shapes[1]:
        raise UserError(f"layer {node.name}: merges {shapes[0]} and {shapes[1]}; give equal shapes")
    return output_type(node).quantize(_MERGES[op](x, y))


def _clone(node: Any, x: Array) -> Array:
    return x


def _concatenate(node: Any, x: Array, y: Array) -> Array:
    axis = node.get_attr("axis")
    if axis >= 0:
        axis -= len(node.get_output_variable().shape) + 1  # counted with the batch axis
    return output_type(node).quantize(np.concatenate([x, y], axis=axis))


def _reshape(node: Any, x: Array) -> Array:
    batch = x.shape[: x.ndim - len(node.get_input_variable().shape)]
    return x.reshape(*batch, *node.get_output_variable().shape)


def _transpose(node: Any, x: Array) -> Array:
    batch = x.ndim - len(node.get_input_variable().shape)
    return x.transpose(*range(batch), *(batch + axis for axis in node.get_attr("perm")))


def _pool(node: Any, members: Array) -> Array:
    """Maximum or mean over the last axis but one, through the accumulator type."""
    accum = fixed_type_of(node.get_attr("accum_t").precision)
    if node.get_attr("pool_op").lower() == "max":
        return output_type(node).quantize(accum.quantize(np.max(members, axis=-2)))
    length = members.shape[-2]
    shift = length.bit_length() - 1
    if length != 2**shift or accum.frac_bits < _input_type(node).frac_bits + shift:
        raise UserError(
            f"layer {node.name}: the mean of {length} values is exact only for a power of two and "
            f"an accumulator of {shift} more fractional bits than the input, got {accum}"
        )
    total = accum.quantize(np.sum(members, axis=-2))
    return output_type(node).quantize(total * 2.0**-shift)


def _pooling(node: Any, x: Array) -> Array:
    if node.get_attr("pad_left") or node.get_attr("pad_right"):
        raise UserError(f"layer {node.name}: pooling over padding; use padding='valid'")
    windows = _windows(node, x, node.get_attr("pool_width"))
    return _pool(node, np.stack(windows, axis=-2))


def _input_type(node: Any) -> FixedType:
    return fixed_type_of(node.get_input_variable().type.precision)


_STANDARD: dict[str, Callable[..., Array]] = {
    "Activation": _activation,
    "ApplyAlpha": _scale,
    "BatchNormalization": _scale,
    "Clone": _clone,
    "Concatenate": _concatenate,
    "Conv1D": _conv1d,
    "Dense": _dense,
    "GlobalPooling1D": _pool,
    "Merge": _merge,
    "PointwiseConv1D": _dense,
    "Pooling1D": _pooling,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
