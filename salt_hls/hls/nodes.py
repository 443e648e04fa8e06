"""Our layers in hls4ml: a node around an operation; struct, call and headers follow from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, cast

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
from qkeras import get_quantizer

from salt_hls.errors import UserError
from salt_hls.fixed import ElementTypes, FixedType, Overflow, Rounding
from salt_hls.graph.tensor import Tensor
from salt_hls.hls.hls4ml_types import Precision, Variable
from salt_hls.layers.layer import LayerOperation, Shape
from salt_hls.layers.types import weight_type
from salt_hls.system.paths import HLS_TEMPLATES

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


def fixed_type_of(hls_precision: Precision) -> FixedType:
    """Our type for an hls4ml precision (fixed or integer)."""
    return FixedType(
        hls_precision.width,
        hls_precision.integer,
        bool(hls_precision.signed),
        cast(Rounding, hls_precision.rounding_mode.name if hls_precision.rounding_mode else "TRN"),
        cast(
            Overflow,
            hls_precision.saturation_mode.name if hls_precision.saturation_mode else "WRAP",
        ),
    )


def tensor(name: str, variable: Variable) -> Tensor:
    """Our tensor for an hls4ml variable; `name` is that of the graph's edge."""
    lanes = int(getattr(variable.type, "n_pack", 1))
    return Tensor(name, shape_of(variable), fixed_type_of(variable.type.precision), lanes)


def shape_of(variable: Variable) -> Shape:
    """Shape of an hls4ml variable, without the batch axis."""
    return tuple(int(size) for size in variable.shape)


class OperationNode(Layer):  # type: ignore[misc]
    """A graph node whose attribute `operation` is that of one of our layers.

    Its declared types are the layer's own: an hls4ml configuration does not change them. Made for
    another backend than ours it raises `UserError`: hls4ml would leave the layer out of the C++.
    """

    stem: ClassVar[str]
    _expected_attributes: ClassVar[list[Attribute]] = [Attribute("operation", value_type=object)]
    depths: Mapping[str, int] = {}
    """Depths of the FIFOs between the layer's own loops, by channel."""

    @property
    def operation(self) -> LayerOperation:
        """The operation."""
        operation: LayerOperation = self.get_attr("operation")
        return operation

    def shapes(self) -> list[Shape]:
        """Those of the inputs, whose types may not be known yet."""
        return [shape_of(self.get_input_variable(name)) for name in self.inputs]

    def initialize(self) -> None:
        backend = self.model.config.backend.name
        if backend not in BACKENDS:
            raise UserError(
                f"layer {self.name}: {self.class_name} has no {backend} form; "
                f"use {' or '.join(reversed(BACKENDS))}"
            )
        operation, shapes = self.operation, self.shapes()
        self._warn_of_ignored_settings(operation.output_type)
        shape = list(operation.output_shape(shapes))
        self.add_output_variable(shape, precision=precision(operation.output_type))
        for name, (values, fixed_type) in operation.constants(shapes).items():
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
        state["attributes"]["operation"] = SavedOperation(self.operation).serialize()
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


class SavedOperation(Serializable):  # type: ignore[misc]
    """An operation in the form in which hls4ml saves what belongs to a layer."""

    def __init__(self, operation: LayerOperation) -> None:
        self.operation = operation

    def serialize_state(self) -> dict[str, Any]:
        kind = type(self.operation)
        values = {f.name: getattr(self.operation, f.name) for f in fields(kind)}  # type: ignore[arg-type]
        types = {name: str(v) for name, v in values.items() if isinstance(v, FixedType)}
        elements = {
            name: {
                "container": str(v.container),
                "integer_bits": v.integer_bits,
                "fraction_bits": v.fraction_bits,
            }
            for name, v in values.items()
            if isinstance(v, ElementTypes)
        }
        others = {name: v for name, v in values.items() if name not in {*types, *elements}}
        return {
            "module": kind.__module__,
            "kind": kind.__name__,
            "types": types,
            "elements": elements,
            "values": others,
        }

    @classmethod
    def deserialize(cls, state: dict[str, Any]) -> LayerOperation:
        """The operation itself."""
        kind = getattr(import_module(state["module"]), state["kind"])
        types = {name: FixedType.parse(text) for name, text in state["types"].items()}
        elements = {
            name: ElementTypes(
                FixedType.parse(saved["container"]), saved["integer_bits"], saved["fraction_bits"]
            )
            for name, saved in state.get("elements", {}).items()
        }
        operation: LayerOperation = kind(**state["values"], **types, **elements)
        return operation


class _ConfigTemplate(LayerConfigTemplate):  # type: ignore[misc]
    def format(self, node: OperationNode) -> str:
        inputs = [tensor(name, node.get_input_variable(name)) for name in node.inputs]
        lines = []
        for name, value in node.operation.members(inputs).items():
            if isinstance(value, FixedType):
                lines.append(f"typedef {value} {name};")
            elif isinstance(value, tuple):
                numbers = ", ".join(map(str, value))
                lines.append(f"static constexpr int {name}[{len(value)}] = {{{numbers}}};")
            else:
                kind = "bool" if isinstance(value, bool) else "unsigned"
                lines.append(f"static const {kind} {name} = {str(value).lower()};")
        for name, depth in node.depths.items():
            lines.append(f"static const unsigned {name}_depth = {depth};")
        for name in node.operation.constants(node.shapes()):
            lines.append(f"typedef {node.get_weights(name).type.name} {_type_member(node, name)};")
        body = "\n".join("    " + line for line in lines)
        return f"struct config{node.index} : nnet::{node.stem}_config {{\n{body}\n}};\n"


def _type_member(node: OperationNode, constant: str) -> str:
    return f"{constant.removesuffix('_table')}_t" if constant != "table" else "table_t"


class _FunctionTemplate(FunctionCallTemplate):  # type: ignore[misc]
    def format(self, node: OperationNode) -> str:
        inputs = [node.get_input_variable(name) for name in node.inputs]
        output = node.get_output_variable()
        types = [v.type.name for v in (*inputs, output)] + [f"config{node.index}"]
        names = [v.name for v in (*inputs, output)]
        names += [node.get_weights(name).name for name in node.operation.constants(node.shapes())]
        return f"nnet::{node.stem}<{', '.join(types)}>({', '.join(names)});"


def _weight(keras_layer: Mapping[str, Any], reader: Any, name: str, shape: Shape) -> Any:
    """A trained weight, quantized as the Keras forward pass does (half to even, clipped)."""
    config = keras_layer["config"]
    data = get_weights_data(reader, config["name"], name)
    if data is None or tuple(data.shape) != tuple(shape):
        got = None if data is None else tuple(data.shape)
        raise UserError(
            f"layer {config['name']}: weight {name} must have shape {tuple(shape)}, got {got}"
        )
    if not np.all(np.isfinite(data)):
        raise UserError(f"layer {config['name']}: weight {name} holds NaN or infinity; retrain it")
    if f"{name}_quantizer" not in config:
        return data
    fixed_type = weight_type(config[f"{name}_quantizer"], config["name"], name)
    quantizer = get_quantizer(config[f"{name}_quantizer"])
    # QKeras computes x + (q - x), which float32 may round off the grid where q is clipped.
    return np.asarray(fixed_type.quantize(quantizer(np.asarray(data, np.float32))))


def _handler(node: str, operation: type[LayerOperation]) -> Handler:
    def handle(
        keras_layer: dict[str, Any], names: list[str], shapes: list[list[int]], reader: Any
    ) -> tuple[dict[str, Any], list[int]]:
        given = [tuple(shape[1:]) for shape in shapes]
        made = operation.from_keras(
            keras_layer["config"], given, partial(_weight, keras_layer, reader)
        )
        layer = parse_default_keras_layer(keras_layer, names)
        # An `activation` key would append an activation node.
        layer.pop("activation", None)
        layer |= {"class_name": node, "operation": made}
        return layer, [shapes[0][0], *made.output_shape(given)]

    return handle


def register_layer(stem: str, keras_class: str, operation: type[LayerOperation]) -> None:
    """Teaches hls4ml a layer: handler, node, templates, header, for both backends. Idempotent."""
    if keras_class in layer_handlers:
        return
    node = type(keras_class, (OperationNode,), {"stem": stem, "__module__": __name__})
    globals()[keras_class] = node  # where hls4ml's `deserialize_model` looks for it
    # In saved models the class has the name under which Keras knows it.
    for name in (keras_class, f"salt_hls>{keras_class}"):
        hls4ml.converters.register_keras_v2_layer_handler(name, _handler(keras_class, operation))
    if keras_class not in layer_map:
        hls4ml.model.layers.register_layer(keras_class, node)
    header = f"nnet_{stem}.h"
    register_header(header)
    call = partial(_FunctionTemplate, node, include_header=[f"nnet_utils/{header}"])
    for backend in map(hls4ml.backends.get_backend, BACKENDS):
        backend.register_template(partial(_ConfigTemplate, node))
        backend.register_template(call)


def register_header(name: str) -> None:
    """Makes both backends copy a header of hls_templates into every project."""
    for backend in map(hls4ml.backends.get_backend, BACKENDS):
        backend.register_source(HLS_TEMPLATES / name)
