"""What the hls4ml side of the layers shares: a graph node built around an arithmetic object.

A layer's `hls.py` gives a node class (a subclass of `ArithmeticNode`), a Keras handler that puts
the arithmetic object into the layer dictionary, and nothing else: struct, call and headers follow
from the node.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import hls4ml
import numpy as np
from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
from hls4ml.converters.keras_v2_to_hls import (
    get_weights_data,
    layer_handlers,
    parse_default_keras_layer,
)
from hls4ml.model.attributes import Attribute
from hls4ml.model.layers import Layer, layer_map
from hls4ml.model.types import FixedPrecisionType, RoundingMode, SaturationMode, Serializable
from numpy.typing import NDArray
from qkeras import get_quantizer

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType, Table
from salt_hls.layers.schedule import Process, each_step
from salt_hls.paths import HLS_TEMPLATES

BACKENDS = ("Vivado", "Vitis")

Handler = Callable[
    [dict[str, Any], list[str], list[list[int]], Any], tuple[dict[str, Any], list[int]]
]


def precision(fixed_type: FixedType) -> FixedPrecisionType:
    """hls4ml's object for a type."""
    return FixedPrecisionType(
        fixed_type.width,
        fixed_type.int_bits,
        fixed_type.signed,
        RoundingMode[fixed_type.rounding],
        SaturationMode[fixed_type.overflow],
    )


def fixed_type_of(hls_precision: Any) -> FixedType:
    """Our type for an hls4ml precision (fixed or integer)."""
    return FixedType(
        hls_precision.width,
        hls_precision.integer,
        bool(hls_precision.signed),
        hls_precision.rounding_mode.name if hls_precision.rounding_mode else "TRN",
        hls_precision.saturation_mode.name if hls_precision.saturation_mode else "WRAP",
    )


class ArithmeticNode(Layer):  # type: ignore[misc]
    """A graph node whose attribute `arithmetic` is the layer's arithmetic object.

    Its declared types are the layer's own: an hls4ml configuration does not change them. Made for
    another backend than ours it raises `UserError`: hls4ml would leave the layer out of the C++.
    """

    stem: ClassVar[str]
    _expected_attributes: ClassVar[list[Attribute]] = [Attribute("arithmetic", value_type=object)]
    depths: Mapping[str, int] = {}
    """Depths of the FIFOs between the layer's own processes, by channel."""

    def constants(self) -> dict[str, tuple[NDArray[np.float64], FixedType]]:
        """Weights and tables passed to the C++ function, by parameter name, in order."""
        return {}

    def fields(self) -> dict[str, int | bool | FixedType]:
        """Members of the C++ struct: numbers, and types under names ending in `_t`."""
        raise NotImplementedError

    def output_shape(self) -> list[int]:
        """Shape of the output, without the batch axis."""
        raise NotImplementedError

    def processes(self) -> list[Process]:
        """The loops of the layer under io_stream; by default one, transfer by transfer."""
        return [each_step(self)]

    def output_lanes(self, input_lanes: int) -> int:
        """Rows in a transfer of the output, from those of the first input."""
        return input_lanes

    def input_type(self, position: int = 0) -> FixedType:
        """Type of an input tensor."""
        return fixed_type_of(self.get_input_variable(self.inputs[position]).type.precision)

    def input_shape(self, position: int = 0) -> list[int]:
        """Shape of an input tensor, without the batch axis."""
        return list(self.get_input_variable(self.inputs[position]).shape)

    def initialize(self) -> None:
        backend = self.model.config.backend.name
        if backend not in BACKENDS:
            raise UserError(
                f"layer {self.name}: {self.class_name} has no {backend} form; "
                f"use {' or '.join(reversed(BACKENDS))}"
            )
        arithmetic = self.get_attr("arithmetic")
        self._warn_of_ignored_settings(arithmetic.output_type)
        self.add_output_variable(self.output_shape(), precision=precision(arithmetic.output_type))
        for name, (values, fixed_type) in self.constants().items():
            if not fixed_type.contains(values):
                raise UserError(f"layer {self.name}: {name} has values that are not {fixed_type}")
            self.add_weights_variable(
                name=name,
                var_name=name + "{index}",
                type_name=name + "{index}_t",
                precision=precision(fixed_type.exact()),
                data=values,
            )

    def serialize_state(self) -> dict[str, Any]:
        """For hls4ml's `serialize_model`."""
        if hasattr(self.model, "is_streamed"):
            raise UserError(
                f"layer {self.name}: hls4ml's files hold no transfer sizes and depths; save the "
                "graph before salt_hls.stream and call that after loading"
            )
        state: dict[str, Any] = super().serialize_state()
        arithmetic = SavedArithmetic(self.get_attr("arithmetic"))
        state["attributes"]["arithmetic"] = arithmetic.serialize()
        return state

    def _warn_of_ignored_settings(self, output_type: FixedType) -> None:
        """Says which settings of hls4ml's configuration for this layer change nothing."""
        config = self.model.config
        settings = dict(config.get_layer_config(self))
        settings.pop("Trace", None)
        types = settings.pop("Precision", None)
        types = types if isinstance(types, dict) else {"result": types}
        ignored = [
            f"Precision {name} {text}"
            for name, text in types.items()
            if text not in (None, "auto")
            and config.backend.convert_precision_string(text) != precision(output_type)
        ]
        # Everything is unrolled and written for latency, which is what hls4ml's defaults ask for.
        as_built = {"ReuseFactor": 1, "Strategy": "latency"}
        ignored += [
            f"{key} {value}"
            for key, value in settings.items()
            if str(value).lower() != str(as_built.get(key))
        ]
        if ignored:
            warnings.warn(
                f"layer {self.name}: {self.class_name} ignores {', '.join(ignored)} of hls4ml's "
                "configuration; its types are declared in the Keras layer",
                stacklevel=2,
            )


class SavedArithmetic(Serializable):  # type: ignore[misc]
    """An arithmetic object in the form in which hls4ml saves what belongs to a layer."""

    def __init__(self, arithmetic: Any) -> None:
        self.arithmetic = arithmetic

    def serialize_state(self) -> dict[str, Any]:
        kind = type(self.arithmetic)
        values = {f.name: getattr(self.arithmetic, f.name) for f in fields(kind)}
        types = {name: str(v) for name, v in values.items() if isinstance(v, FixedType)}
        others = {name: v for name, v in values.items() if name not in types}
        return {
            "module": kind.__module__,
            "kind": kind.__name__,
            "types": types,
            "values": others,
        }

    @classmethod
    def deserialize(cls, state: dict[str, Any]) -> Any:
        """The arithmetic object itself."""
        kind = getattr(import_module(state["module"]), state["kind"])
        types = {name: FixedType.parse(text) for name, text in state["types"].items()}
        return kind(**state["values"], **types)


def bits_order(table: Table) -> NDArray[np.float64]:
    """Entries by the bit pattern of the argument (two's complement), as ROMs are addressed."""
    return np.roll(table.entries, table.index(np.zeros(1))[0] * -1)


class _ConfigTemplate(LayerConfigTemplate):  # type: ignore[misc]
    def format(self, node: ArithmeticNode) -> str:
        lines = []
        for name, value in node.fields().items():
            if isinstance(value, FixedType):
                lines.append(f"typedef {value} {name};")
            else:
                kind = "bool" if isinstance(value, bool) else "unsigned"
                lines.append(f"static const {kind} {name} = {str(value).lower()};")
        for name, depth in node.depths.items():
            lines.append(f"static const unsigned {name}_depth = {depth};")
        for name in node.constants():
            lines.append(f"typedef {node.get_weights(name).type.name} {_type_member(node, name)};")
        body = "\n".join("    " + line for line in lines)
        return f"struct config{node.index} : nnet::{node.stem}_config {{\n{body}\n}};\n"


def _type_member(node: ArithmeticNode, constant: str) -> str:
    return f"{constant.removesuffix('_table')}_t" if constant != "table" else "table_t"


class _FunctionTemplate(FunctionCallTemplate):  # type: ignore[misc]
    def format(self, node: ArithmeticNode) -> str:
        inputs = [node.get_input_variable(name) for name in node.inputs]
        output = node.get_output_variable()
        types = [v.type.name for v in (*inputs, output)] + [f"config{node.index}"]
        names = [v.name for v in (*inputs, output)]
        names += [node.get_weights(name).name for name in node.constants()]
        return f"nnet::{node.stem}<{', '.join(types)}>({', '.join(names)});"


def layer_dict(
    keras_layer: dict[str, Any], input_names: list[str], node: type[ArithmeticNode], arithmetic: Any
) -> dict[str, Any]:
    """The dictionary from which hls4ml makes the node."""
    layer = parse_default_keras_layer(keras_layer, input_names)
    # An `activation` key would append an activation node.
    layer.pop("activation", None)
    return {**layer, "class_name": node.__name__, "arithmetic": arithmetic}


def grid_constant(
    keras_layer: dict[str, Any], reader: Any, name: str, shape: Sequence[int], fixed_type: FixedType
) -> NDArray[np.float64]:
    """A trained weight, quantized as the Keras forward pass does (half to even, clipped)."""
    layer_name = keras_layer["config"]["name"]
    data = get_weights_data(reader, layer_name, name)
    if data is None or tuple(data.shape) != tuple(shape):
        got = None if data is None else tuple(data.shape)
        raise UserError(
            f"layer {layer_name}: weight {name} must have shape {tuple(shape)}, got {got}"
        )
    if not np.all(np.isfinite(data)):
        raise UserError(f"layer {layer_name}: weight {name} holds NaN or infinity; retrain it")
    quantizer = get_quantizer(keras_layer["config"][f"{name}_quantizer"])
    # QKeras computes x + (q - x), which float32 may round off the grid where q is clipped.
    return np.asarray(fixed_type.quantize(quantizer(np.asarray(data, np.float32))))


def register_node(keras_class: str, node: type[ArithmeticNode], handler: Handler) -> None:
    """Teaches hls4ml a layer: handler, node, templates, header, for both backends. Idempotent."""
    if keras_class in layer_handlers:
        return
    header = HLS_TEMPLATES / f"nnet_{node.stem}.h"
    # In saved models the class has the name under which Keras knows it.
    for name in (keras_class, f"salt_hls>{keras_class}"):
        hls4ml.converters.register_keras_v2_layer_handler(name, handler)
    if node.__name__ not in layer_map:
        hls4ml.model.layers.register_layer(node.__name__, node)
    register_header(header)
    call = partial(_FunctionTemplate, node, include_header=[f"nnet_utils/{header.name}"])
    for backend in map(hls4ml.backends.get_backend, BACKENDS):
        backend.register_template(partial(_ConfigTemplate, node))
        backend.register_template(call)


def register_header(header: Path) -> None:
    """Makes both backends copy a header into every project."""
    for name in BACKENDS:
        hls4ml.backends.get_backend(name).register_source(header)
