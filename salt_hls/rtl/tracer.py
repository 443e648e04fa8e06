"""alkaid tracer of hls4ml graphs: entry point `hls4ml` of the group `alir_tracer.plugins`.

`alkaid.converter.trace_model(graph)` runs the graph on symbolic arrays, so the RTL is the
computation that the golden model makes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from alkaid.converter.plugin import ALIRTracerPluginBase
from alkaid.trace import FVArray, HWConfig, fixed_variable_array
from alkaid.trace.fixed_variable import FVariable, LookupTable
from alkaid.trace.passes import surrogate

from salt_hls.errors import UserError
from salt_hls.fixed import Array, FixedType, Overflow, Rounding
from salt_hls.graph.graph import Graph
from salt_hls.hls.reader import read_graph

COST_MODEL = HWConfig(1, 1, -1)
"""alkaid's calibrated cost model: an adder of one bit costs one LUT, delays are nanoseconds."""

SOLVER = {"hard_dc": 2}
"""Constant matrices may be two adders deeper than needed: fewer LUTs, few more stages."""


def _of_ordered(choose: Callable[[Any, Any], Any], greater: bool) -> Callable[[Any, Any], Any]:
    def chosen(x: Any, y: Any) -> Any:
        if isinstance(y, FVariable):
            difference = x - y
            if difference.low >= 0:
                return x if greater else y
            if difference.high <= 0:
                return y if greater else x
        return choose(x, y)

    return chosen


# alkaid 0.x chooses by the highest bit of x - y, also where x and y depend on each other such that
# x - y is known to have no sign: then that bit is not its sign.
FVariable.max_of = _of_ordered(FVariable.max_of, greater=True)
FVariable.min_of = _of_ordered(FVariable.min_of, greater=False)


def _in_one_step(quantize: Callable[..., Any]) -> Callable[..., Any]:
    def quantized(
        self: Any,
        k: int,
        i: int,
        f: int,
        overflow_mode: Overflow = "WRAP",
        round_mode: Rounding = "TRN",
    ) -> Any:
        k, i, f = int(k), int(i), int(f)
        if (
            self.opr == "lookup"
            and k + i + f > 0
            and (round_mode, overflow_mode) != ("TRN", "WRAP")
        ):
            return _rounded_entries(
                self, FixedType(k + i + f, k + i, bool(k), round_mode, overflow_mode)
            )
        known = self.low == self.high or k + i + f <= 0
        if overflow_mode != "SAT" or round_mode == "RND_CONV" or known:
            return quantize(self, k, i, f, overflow_mode, round_mode)
        if round_mode == "RND" and f < self.kif[2]:
            self = self + 2.0 ** (-f - 1)
        signed, integers, _ = self.kif
        if signed + integers <= -f:
            return quantize(self, k, i, f, overflow_mode)
        return _saturated(quantize(self, signed, integers, f), k, i, f)

    return quantized


def _rounded_entries(x: Any, to: FixedType) -> Any:
    """The result of a look-up, rounded: a look-up of rounded entries, without an adder."""
    entries = x._table.float_table * x._factor
    rounded = to.quantize(entries)
    return x if np.array_equal(rounded, entries) else x._from[0].lookup(LookupTable(rounded))


TOP_BITS = 6
"""Bits that one look-up table judges."""


def _saturated(x: Any, k: int, i: int, f: int) -> Any:
    """x, in steps of 2**-f, clipped to ap_[u]fixed: the bits above the result's, together, say
    whether it overflows, and x's sign to which side. alkaid compares with both bounds, in a row.
    """
    step = 2.0**-f
    low, high = -(2.0**i) * k, 2.0**i - step
    if x.low >= low and x.high <= high:
        return x
    if not k and x.low < 0:
        return _saturated(x.relu(), k, i, f)
    if x.low >= high or x.high <= low:
        return FVariable.from_const(high if x.low >= high else low, hwconf=x.hwconf)
    signed, integers, _ = x.kif
    if signed + integers - i > TOP_BITS:
        return x.max_of(low).min_of(high).quantize(k, i, f)
    top = x.quantize(signed, integers, -i)  # floor(x / 2**i)
    values = np.arange(top.low, top.high + top.step / 2, top.step)
    fits = (values == 0) | ((values == -(2.0**i)) & bool(k))
    outside = top.lookup(np.where(fits, 0.0, 1.0))
    bound = low if x.low < low else high
    if x.low < low and x.high > high:
        bound = x.msb_mux(low, high)
    inside = x.quantize(k, i, f)
    return outside.msb_mux(bound, inside, (max(low, x.low), min(high, x.high), step))


FVariable.quantize = _in_one_step(FVariable.quantize)


def _without_sign_bits(cmvm: Callable[..., Any]) -> Callable[..., Any]:
    def product(matrix: Any, x: Any, options: Any) -> Any:
        known = np.array([v.low == v.high for v in np.asarray(x)])
        if not np.any(matrix[~known]):
            sums = np.where(known, [float(v.low) for v in np.asarray(x)], 0.0) @ matrix
            return np.array([FVariable.from_const(c, hwconf=x.hwconf) for c in sums], object)
        if any(v.low < 0 and sum(v.kif) == 1 for v in np.asarray(x)):
            options = {**options, "binary_lut": False}
        return cmvm(matrix, x, options)

    return product


# alkaid 0.8 takes values of one bit as addresses of tables, also those of -1 and 0, and fails on
# sums that are all constants.
fixed_variable_array.cmvm = _without_sign_bits(fixed_variable_array.cmvm)


def _once(function: Callable[..., Any], key: Callable[..., Hashable]) -> Callable[..., Any]:
    known: dict[Hashable, Any] = {}

    def remembered(*arguments: Any, **options: Any) -> Any:
        what = (key(*arguments), *((k, _hashable(v)) for k, v in sorted(options.items())))
        if what not in known:
            known[what] = function(*arguments, **options)
        return known[what]

    return remembered


def _hashable(option: Any) -> Hashable:
    return tuple(option) if isinstance(option, list) else option  # type: ignore[no-any-return]


# Every particle goes through the same matrices and tables.
fixed_variable_array.cmvm_solve = _once(
    fixed_variable_array.cmvm_solve, lambda matrix: (matrix.tobytes(), matrix.shape)
)
surrogate.cost_lat_lut = _once(
    surrogate.cost_lat_lut, lambda interval, table, *more: (interval, table.spec.hash, more)
)


def symbols(shape: Sequence[int], types: Sequence[FixedType]) -> Array:
    """Symbolic array of the given shape (no batch axis), one type for each of its last axis."""
    widths, int_bits, signs = (
        np.broadcast_to([int(getattr(t, f)) for t in types], shape)
        for f in ("width", "int_bits", "signed")
    )
    return FVArray.from_kif(
        signs, int_bits - signs, widths - int_bits, COST_MODEL, 0.0, SOLVER.copy()
    )


class HLS4MLTracer(ALIRTracerPluginBase):  # type: ignore[misc]
    """Runs an hls4ml ModelGraph of supported layers, or our graph of one.

    feature_types: types of the values along the last axis of the (one) input, where they are
    narrower than the Input node's type; every value must be on them.
    """

    def __init__(
        self,
        model: Any,
        hwconf: Any = COST_MODEL,
        solver_options: Any = None,
        feature_types: Sequence[FixedType] | None = None,
    ) -> None:
        super().__init__(model, hwconf, solver_options)
        self.graph = model if isinstance(model, Graph) else read_graph(model)
        self.feature_types = feature_types

    def get_input_shapes(self) -> list[tuple[int, ...]]:
        return [tensor.shape for tensor in self.graph.inputs]

    def _get_inputs(self, inputs: Any, inputs_kif: Any) -> tuple[Any, ...]:
        if inputs is not None or inputs_kif is not None:
            return tuple(super()._get_inputs(inputs, inputs_kif))
        return tuple(
            symbols(shape, types)
            for shape, types in zip(self.get_input_shapes(), self.input_types(), strict=True)
        )

    def input_types(self) -> list[list[FixedType]]:
        """Types along the last axis of every input."""
        types = [[tensor.type] * tensor.shape[-1] for tensor in self.graph.inputs]
        if self.feature_types is None:
            return types
        if len(types) != 1 or len(self.feature_types) != len(types[0]):
            raise UserError(
                f"feature_types: expected {len(types[0])} types for the one input of the model, "
                f"got {len(self.feature_types)} for {len(types)} input(s)"
            )
        declared = types[0][0]
        for narrow in self.feature_types:
            if not declared.contains(np.array([narrow.min, narrow.max, narrow.lsb])):
                raise UserError(f"feature type {narrow}: does not fit into the input's {declared}")
        return [list(self.feature_types)]

    def output_names(self) -> list[str]:
        """Nodes whose values leave the model."""
        return [node.name for node in self.graph.output_nodes]

    def apply_model(
        self, verbose: bool, inputs: tuple[Any, ...]
    ) -> tuple[dict[str, Any], list[str]]:
        return self.graph.run(inputs), self.output_names()
