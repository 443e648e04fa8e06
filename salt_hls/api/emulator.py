"""The bits of firmware without firmware: the integer reference, in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from salt_hls.api.inputs import Inputs, inputs_of, require_on_grid
from salt_hls.check.compare import BATCH
from salt_hls.errors import UserError
from salt_hls.firmware.build import converted
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.hls.convert import convert
from salt_hls.hls.csim import joined
from salt_hls.hls.reader import is_graph, read_graph
from salt_hls.models.tagger import load_tagger


class Emulator:
    """See `emulator`. shape: of one event. types: along the last axis, or one for all."""

    def __init__(self, graph: Graph, shape: tuple[int, ...], types: tuple[FixedType, ...]) -> None:
        self._graph, self.shape, self.types = graph, shape, types

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The output (events, *shape); several outputs as (events, values), one after the other.

        x: (events, *shape) on the input grid. Raises `UserError` for another shape and for the
        first value that is not on the grid.
        """
        layers = self.layers(x)
        return joined([layers[node.name] for node in self._graph.output_nodes])

    def layers(self, x: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """The output (events, *shape) of every node of the graph, by its name."""
        values = require_on_grid(x, self.shape, self.types, "emulator").astype(np.float64)
        # One event at least: without any, layers do not know the shape of their output.
        given = values if len(values) else np.zeros((1, *self.shape))
        firsts = range(0, len(given), BATCH)
        parts = [self._graph.run([given[first : first + BATCH]]) for first in firsts]
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
    if is_graph(model):
        graph = read_graph(model)
        count = len(graph.inputs)
        if count != 1:
            raise UserError(f"emulator: the graph has {count} inputs; give one with one input")
        (given,) = graph.inputs
        return Emulator(graph, given.shape, (given.type,))
    if isinstance(model, str | Path):
        if inputs is not None:
            raise UserError("emulator: inputs: only for a Keras model; a file has its YAML")
        tagger = load_tagger(str(model))
        graph = converted(tagger, Path(), "Vitis").graph
        return Emulator(graph, tagger.shape, tagger.feature_types)
    inputs = inputs_of(model, inputs, "emulator")
    graph = convert(model, inputs.grid.container, model.name, Path()).graph
    return Emulator(graph, tuple(model.input_shape[1:]), inputs.types)
