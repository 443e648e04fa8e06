"""The bits of firmware without firmware: the integer reference, in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hls4ml.model.graph import ModelGraph
from numpy.typing import ArrayLike, NDArray

from salt_hls.errors import UserError
from salt_hls.firmware.build import graph_of, load_tagger
from salt_hls.firmware.compare import BATCH
from salt_hls.firmware.convert import convert, output_nodes
from salt_hls.firmware.csim import joined
from salt_hls.firmware.replay import output_type, replay
from salt_hls.fixed import FixedType
from salt_hls.inputs import Inputs, inputs_of, require_on_grid


class Emulator:
    """See `emulator`. shape: of one event. types: along the last axis, or one for all."""

    def __init__(self, graph: Any, shape: tuple[int, ...], types: tuple[FixedType, ...]) -> None:
        self._graph, self.shape, self.types = graph, shape, types

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The output (events, *shape); several outputs as (events, values), one after the other.

        x: (events, *shape) on the input grid. Raises `UserError` for another shape and for the
        first value that is not on the grid.
        """
        layers = self.layers(x)
        return joined([layers[node.name] for node in output_nodes(self._graph)])

    def layers(self, x: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """The output (events, *shape) of every node of the graph, by its name."""
        values = require_on_grid(x, self.shape, self.types, "emulator").astype(np.float64)
        # One event at least: without any, layers do not know the shape of their output.
        given = values if len(values) else np.zeros((1, *self.shape))
        firsts = range(0, len(given), BATCH)
        parts = [replay(self._graph, [given[first : first + BATCH]]) for first in firsts]
        return {n: np.concatenate([part[n] for part in parts])[: len(values)] for n in parts[0]}


def emulator(model: Any, inputs: Inputs | None = None) -> Emulator:
    """The integer arithmetic of a model as a function of numpy arrays, bit for bit the firmware's.

    It is the reference that C-simulation and RTL are compared with: the graph that becomes the
    firmware, executed with the declared types, with neither g++ nor a build.

    model: a shipped model's name; a path to a YAML, its weights beside it, or to a saved Keras
    model, its YAML beside it; a Keras model, then `inputs` says what grid it takes; or a graph of
    one input that hls4ml has converted after `register()`. What is returned is called with inputs
    on the model's grid, which `Inputs` gives, and gives float64 outputs, whole multiples of their
    type's LSB; its `layers` gives the outputs of every layer. Weights are those of now. Raises
    `UserError` for models and layers that have no exact arithmetic.
    """
    if isinstance(model, ModelGraph):
        given = [node for node in model.get_layers() if node.class_name == "Input"]
        if len(given) != 1:
            raise UserError(f"emulator: the graph has {len(given)} inputs; give one with one input")
        shape = tuple(map(int, given[0].get_output_variable().shape))
        return Emulator(model, shape, (output_type(given[0]),))
    if isinstance(model, str | Path):
        if inputs is not None:
            raise UserError("emulator: inputs: only for a Keras model; a file has its YAML")
        tagger = load_tagger(str(model))
        return Emulator(graph_of(tagger, Path(), "Vitis"), tagger.shape, tagger.feature_types)
    inputs = inputs_of(model, inputs, "emulator")
    graph = convert(model, inputs.grid.container, model.name, Path())
    return Emulator(graph, tuple(model.input_shape[1:]), inputs.types)
