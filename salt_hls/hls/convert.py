"""From a Keras model to an hls4ml graph and a complete, reproducible HLS project."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hls4ml
import tensorflow as tf

from salt_hls.config import CLOCK_NS, PART
from salt_hls.errors import UserError
from salt_hls.fixed import FLOAT32_BITS, FixedType
from salt_hls.graph.graph import Graph, IoType
from salt_hls.graph.network import check, network_of
from salt_hls.hls import hls4ml_types
from salt_hls.hls.csim import Layout
from salt_hls.hls.lower import RULES, lower
from salt_hls.hls.names import top_name
from salt_hls.hls.reader import KERAS_LAYER, read_graph
from salt_hls.hls.register import register
from salt_hls.hls.streaming import depths_of, stream
from salt_hls.hls.supported import check_model
from salt_hls.layers import KERAS_CLASSES
from salt_hls.layers.layer import LayerOperation

KNOWN = ("InputLayer", *RULES)
"""Classes of Keras layers that are built."""

Backend = Literal["Vitis", "Vivado"]


@dataclass(frozen=True)
class Converted:
    """A model as hls4ml's graph, which writes the project, and as ours, which is all else."""

    hls4ml: hls4ml_types.Graph
    graph: Graph


def convert(
    model: tf.keras.Model,
    input_type: FixedType,
    name: str,
    folder: Path,
    backend: Backend = "Vitis",
    part: str = PART,
    clock_ns: float = CLOCK_NS,
    io_type: IoType = "io_parallel",
    particles_per_clock: int = 1,
) -> Converted:
    """The graph of a quantized Keras model.

    io_parallel: fully parallel with II 1, every QDense over particles unrolled over them.
    io_stream: a dataflow of loops, `particles_per_clock` particles wide. Accumulators are inferred
    exact. Raises `UserError` for layers that cannot be built and for sums that float32 cannot hold
    exactly.
    """
    register()
    check_model(model, KNOWN)
    lowered = lower(model, input_type)
    for layer in lowered.model.layers if io_type == "io_stream" else ():
        if type(layer).__name__ in ("Reshape", "Concatenate", "Permute"):
            raise UserError(
                f"layer {lowered.origins[layer.name]}: {type(layer).__name__} has no io_stream "
                "form here; use io_type io_parallel"
            )
    with _quiet():
        config = hls4ml.utils.config_from_keras_model(
            lowered.model, granularity="name", backend=backend
        )
        if io_type == "io_parallel":
            config["Model"]["PipelineStyle"] = "pipeline"
            config["Model"]["PipelineInterval"] = 1
        for layer in lowered.model.layers:
            settings = config["LayerName"].setdefault(layer.name, {})
            settings["Trace"] = not isinstance(layer, tf.keras.layers.Reshape)  # moves no values
            if isinstance(layer, tf.keras.layers.InputLayer):
                settings["Precision"] = {"result": str(input_type)}
            elif isinstance(layer, tf.keras.layers.GlobalMaxPooling1D):
                # hls4ml does not infer this one: it keeps the type of its argument.
                declared = str(lowered.types[layer.name])
                settings["Precision"] = {"result": declared, "accum": declared}
                source = layer.input._keras_history.layer
                if type(source).__name__ not in ("InputLayer", *KERAS_CLASSES):
                    for setting in (source.name, f"{source.name}_linear"):
                        known = config["LayerName"].setdefault(setting, {})
                        known.setdefault("Precision", {})["result"] = declared
            elif type(layer).__name__ == "QDense" and len(layer.input_shape) == 3:
                settings["ParallelizationFactor"] = layer.input_shape[1]
        graph = hls4ml.converters.convert_from_keras_model(
            lowered.model,
            hls_config=config,
            backend=backend,
            io_type=io_type,
            output_dir=str(folder),
            project_name=top_name(name),
            part=part,
            clock_period=clock_ns,
            write_weights_txt=False,
        )
    # Emits, outside synthesis, what records each layer's output in C-simulation.
    graph.config.trace_output = True
    for name, source in lowered.sources.items():
        if source != name and name in graph.graph:
            graph.graph[name].set_attr(KERAS_LAYER, source)
    if io_type == "io_stream":
        stream(graph, particles_per_clock)
    converted = Converted(graph, read_graph(graph))
    check_exact_in_float32(converted.graph)
    return converted


def check_exact_in_float32(graph: Graph) -> None:
    """Raises `UserError` when a sum inside one of our layers could need more bits than float32."""
    for node in graph.nodes:
        if not isinstance(node.operation, LayerOperation):
            continue
        types = node.operation.members(node.inputs)
        for key, fixed_type in types.items():
            if not isinstance(fixed_type, FixedType):
                continue
            bits = fixed_type.width - fixed_type.signed
            if bits > FLOAT32_BITS:
                raise UserError(
                    f"layer {node.name}: {key} {fixed_type} needs {bits} bits, more than the "
                    f"{FLOAT32_BITS} that training in float32 computes exactly; use narrower types"
                )


def layouts(graph: Graph) -> dict[str, Layout]:
    """The input and every traced layer's output, as C-simulation stores them, by node."""
    streamed = graph.io_type == "io_stream"
    tensors = {n.name: n.output for n in graph.nodes if n.operation is None or n.traced}
    return {
        name: Layout(t.shape, t.transfers * t.transfer_size if streamed else t.size)
        for name, t in tensors.items()
    }


def write_project(converted: Converted) -> Path:
    """Writes the HLS project; the same graph gives the same bytes. Returns its folder.

    Streams are checked first: see `graph.network.check`.
    """
    if converted.graph.io_type == "io_stream":
        check(network_of(converted.graph), depths_of(converted.hls4ml))
    with _quiet():
        converted.hls4ml.write()
    folder = Path(converted.hls4ml.config.get_output_dir())
    script = folder / "build_lib.sh"
    script.write_text(re.sub(r"LIB_STAMP=\w+", "LIB_STAMP=salt_hls", script.read_text()))
    # These two hold absolute paths and time stamps, and no tool reads them.
    (folder / "keras_model.keras").unlink(missing_ok=True)
    (folder / "hls4ml_config.yml").unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """hls4ml prints its progress and warns about its own internals; neither concerns the user."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
