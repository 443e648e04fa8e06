"""What hls4ml does differently in models that have one of our layers, and in no others.

hls4ml has no hook for a whole model. Its handlers, which parse a Keras layer each, are wrapped:
they ask whether the model has one of our layers and, if not, do what they did. Its graph passes get
three more, and its `predict` and `trace` a check, which apply only where one of our layers is.
"""

from __future__ import annotations

import functools
import json
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from hls4ml.converters.keras_v2_to_hls import KerasFileReader, KerasModelReader, layer_handlers
from hls4ml.model.flow import get_flow
from hls4ml.model.graph import ModelGraph
from hls4ml.model.optimizer import ModelOptimizerPass, OptimizerPass, register_pass
from hls4ml.model.optimizer.passes.multi_dense import ReplaceMultidimensionalDenseWithConv
from hls4ml.model.quantizers import Quantizer
from hls4ml.model.types import (
    FixedPrecisionType,
    IntegerPrecisionType,
    UnspecifiedPrecisionType,
)
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import MAX_WIDTH
from salt_hls.layers import KERAS_CLASSES
from salt_hls.layers.hls_ops import ArithmeticNode, Handler, fixed_type_of, precision
from salt_hls.layers.types import weight_type

_OURS: ContextVar[bool] = ContextVar("ours", default=False)
"""Whether what is parsed is inside a model with one of our layers (models may be nested)."""


def prepare_hls4ml() -> None:
    """Wraps the handlers and methods that hls4ml has, and adds the graph passes. Idempotent."""
    for keras_class, handler in layer_handlers.items():
        if not hasattr(handler, "in_our_models"):
            layer_handlers[keras_class] = _wrapped(handler)
    passes = get_flow("convert").optimizers
    for new, before in (
        (QuantizedDenseToConv, "replace_multidimensional_dense_with_conv"),
        (MaximumKeepsType, "infer_precision_types"),
        (
            ModelOptimizerPass("salt_hls_input_without_precision", _warn_of_default_inputs),
            "infer_precision_types",
        ),
    ):
        if new.name not in passes:
            passes.insert(passes.index(before), register_pass(new.name, new))
    for name in ("predict", "trace"):
        method = getattr(ModelGraph, name)
        if not hasattr(method, "checks_grid"):
            setattr(ModelGraph, name, _checking_the_grid(method))


# ---- parsing


def _wrapped(handler: Handler) -> Handler:
    @functools.wraps(handler)
    def handle(
        keras_layer: dict[str, Any], names: list[str], shapes: list[list[int]], reader: Any
    ) -> tuple[dict[str, Any], list[int]]:
        if not (_OURS.get() or _has_our_layers(reader)):
            return handler(keras_layer, names, shapes, reader)
        # Not the reader itself: it closes its file when it is dropped.
        reader.get_weights_data = functools.partial(_weight_named, weakref.proxy(reader))
        token = _OURS.set(True)
        try:
            layer, shape = handler(keras_layer, names, shapes, reader)
        finally:
            _OURS.reset(token)
        if keras_layer["class_name"] == "QDense":
            _quantize_exactly(layer, keras_layer["config"], over_particles=len(shapes[0]) > 2)
        return layer, shape

    handle.in_our_models = True  # type: ignore[attr-defined]
    return handle


def _has_our_layers(reader: Any) -> bool:
    """Whether the model that `reader` reads has one; it is checked as a whole then."""
    if not hasattr(reader, "has_our_layers"):
        config = _model_config(reader)
        classes = {layer["class_name"].split(">")[-1] for layer in _layers(config)}
        reader.has_our_layers = not classes.isdisjoint(KERAS_CLASSES)
        if reader.has_our_layers:
            refuse_shared_layers(config)
    return bool(reader.has_our_layers)


def _model_config(reader: Any) -> dict[str, Any]:
    if isinstance(reader, KerasModelReader):
        model = reader.model
        return dict(model["config"] if isinstance(model, dict) else model.get_config())
    if isinstance(reader, KerasFileReader):
        if "KerasJson" in reader.config:
            return dict(json.loads(Path(reader.config["KerasJson"]).read_text())["config"])
        return dict(json.loads(reader.h5file.attrs["model_config"])["config"])
    return {}


def _layers(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The layers in the configuration of a Keras model, with those of models inside it."""
    for layer in config.get("layers", ()):
        yield layer
        yield from _layers(layer["config"])


def refuse_shared_layers(config: Mapping[str, Any]) -> None:
    """Raises `UserError` for a layer that is used twice: hls4ml would build its first use only.

    config: that of a Keras model, `model.get_config()`.
    """
    for layer in _layers(config):
        uses = len(layer.get("inbound_nodes", ()))
        if uses > 1:
            raise UserError(
                f"layer {layer['config']['name']}: used {uses} times, which cannot be built; "
                "give each use a layer of its own"
            )


def _weight_named(reader: Any, layer_name: str, name: str) -> NDArray[np.float32] | None:
    """A layer's weight of exactly that name; hls4ml takes the first that has it as a substring."""
    if isinstance(reader, KerasFileReader):
        # The paths in a file are `<layer>/<weight>:0`.
        search = reader.__class__.get_weights_data  # not `type`: `reader` is a proxy
        return search(reader, layer_name, f"/{name}:0")  # type: ignore[no-any-return]
    layer = reader.layer if hasattr(reader, "layer") else reader.model.get_layer(layer_name)
    for weight in layer.weights:
        if f"/{weight.name}".endswith(f"/{name}:0"):
            return weight.numpy()  # type: ignore[no-any-return]
    return None


# ---- weights of QDense


class GridQuantizer(Quantizer):  # type: ignore[misc]
    """Weights as the layer's forward pass uses them, written as plain fixed-point numbers.

    hls4ml's own quantizers write -1 as 0 (binary) and powers of two as exponents, and leave types
    that depend on them to a default; those of fixed-point numbers are inferred exactly.
    """

    alpha = 1

    def __init__(self, config: dict[str, Any], layer: str, position: str) -> None:
        from qkeras.quantizers import get_quantizer

        self.config, self.layer, self.position = config, layer, position
        self.fixed_type = weight_type(config, layer, position)
        self.quantizer_fn = get_quantizer(config)
        super().__init__(self.fixed_type.width, precision(self.fixed_type.exact()))

    def __call__(self, data: NDArray[np.float32]) -> NDArray[np.float64]:
        # QKeras computes x + (q - x), which float32 may round off the grid.
        values = self.quantizer_fn(np.asarray(data, np.float32)).numpy()
        return np.asarray(self.fixed_type.quantize(values.astype(np.float64)))

    def serialize_state(self) -> dict[str, Any]:
        return {"config": self.config, "layer": self.layer, "position": self.position}


def _quantize_exactly(
    layer: dict[str, Any], config: Mapping[str, Any], over_particles: bool
) -> None:
    """Gives a parsed QDense quantizers whose values are on the grids of its Keras layer.

    One that is on no grid is left to hls4ml, but not in a layer over particles: hls4ml drops
    the quantizers of those.
    """
    for name, position in (("weight", "kernel"), ("bias", "bias")):
        data, quantizer = layer[f"{name}_data"], config[f"{position}_quantizer"]
        if data is not None and not np.all(np.isfinite(data)):
            raise UserError(f"layer {layer['name']}: {name} holds NaN or infinity; retrain it")
        if data is None or quantizer is None:
            continue
        try:
            layer[f"{name}_quantizer"] = GridQuantizer(quantizer, layer["name"], position)
        except UserError:
            if over_particles:
                raise


class QuantizedDenseToConv(ReplaceMultidimensionalDenseWithConv):  # type: ignore[misc]
    """A QDense over particles becomes a convolution, as in hls4ml, but keeps its quantizers."""

    name = "salt_hls_quantized_dense_to_conv"

    def match(self, node: Any) -> bool:
        quantizers = (node.get_attr(f"{name}_quantizer") for name in ("weight", "bias"))
        ours = any(isinstance(quantizer, GridQuantizer) for quantizer in quantizers)
        return ours and super().match(node)

    def transform(self, model: Any, node: Any) -> bool:
        super().transform(model, node)
        convolution = model.graph[node.name]
        for name in ("weight_quantizer", "bias_quantizer"):
            convolution.set_attr(name, node.get_attr(name))
        convolution.add_weights(node.get_attr("weight_quantizer"))
        convolution.add_bias(node.get_attr("bias_quantizer"))
        return True


# ---- maxima


class MaximumKeepsType(OptimizerPass):  # type: ignore[misc]
    """A maximum has the type of its argument, unless the user's configuration gives it another.

    hls4ml infers that of a pooling window; the type of a maximum over all particles is its default.
    """

    name = "salt_hls_maximum_keeps_type"

    def match(self, node: Any) -> bool:
        return bool(
            node.get_attr("pool_op") == "Max"
            and _is_ours(node.model)
            and not isinstance(_input_precision(node), UnspecifiedPrecisionType)
            and self._to_change(node)
        )

    def transform(self, model: Any, node: Any) -> bool:
        for name in self._to_change(node):
            # A type of its own: hls4ml shares those of a whole model by name.
            node.types[f"{name}_t"].name = f"{node.name}_{name}_t"
            node.types[f"{name}_t"].precision = _input_precision(node)
        return False

    @staticmethod
    def _to_change(node: Any) -> list[str]:
        return [
            name
            for name in ("accum", "result")
            if node.types[f"{name}_t"].precision != _input_precision(node)
            and _configured(node, name) in (None, "auto")
        ]


# ---- inputs


def _warn_of_default_inputs(model: Any) -> bool:
    """Of inputs whose type is hls4ml's default, because nobody has given one."""
    for node in model.get_layers() if _is_ours(model) else ():
        if node.class_name == "Input" and _configured(node, "result") in (None, "auto"):
            warnings.warn(
                f"input {node.name}: no precision is given, so it is hls4ml's default, whatever "
                "the model was trained on; give "
                f'config["LayerName"]["{node.name}"]["Precision"]["result"] the type of its grid, '
                "salt_hls.Inputs(...).precision",
                stacklevel=2,
            )
    return True  # once is enough


def _checking_the_grid(method: Callable[..., Any]) -> Callable[..., Any]:
    """hls4ml's `predict` or `trace`: C++ rounds what is not of the input's type, Keras does not."""

    @functools.wraps(method)
    def checked(graph: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        variables = graph.get_input_variables() if _is_ours(graph) else []
        for variable, array in zip(variables, [x] if len(variables) == 1 else x, strict=False):
            declared = variable.type.precision
            fixed = isinstance(declared, FixedPrecisionType | IntegerPrecisionType)
            if not fixed or declared.width > MAX_WIDTH:
                continue
            values = np.asarray(array, np.float64)
            with np.errstate(invalid="ignore"):
                wrong = np.count_nonzero(fixed_type_of(declared).quantize(values) != values)
            if wrong:
                warnings.warn(
                    f"input {variable.name}: {wrong:,} of {values.size:,} values are not of its "
                    f"type, {fixed_type_of(declared)}: firmware rounds them and Keras does not, so "
                    "the outputs differ; put them on the grid with salt_hls.Inputs",
                    stacklevel=2,
                )
        return method(graph, x, *args, **kwargs)

    checked.checks_grid = True  # type: ignore[attr-defined]
    return checked


def _is_ours(graph: Any) -> bool:
    return any(isinstance(node, ArithmeticNode) for node in graph.get_layers())


def _input_precision(node: Any) -> Any:
    return node.get_input_variable().type.precision


def _configured(node: Any, name: str) -> Any:
    """What hls4ml's configuration says of a type of this very layer, or of layers of its class."""
    config = node.model.config
    for table, key in (
        (config.layer_name_precision, node.name.lower()),
        (config.layer_type_precision, node.class_name.lower()),
    ):
        for variable in (name, "default"):
            if table.get(f"{key}_{variable}") is not None:
                return table[f"{key}_{variable}"]
    return None
