"""A tagger ready to be built, from its files, and the jets it is checked on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import yaml
from numpy.typing import NDArray

from salt_hls.config import (
    MODELS,
    Inputs,
    ModelConfig,
    SavedModel,
    find_model,
    load_saved_model,
    load_yaml,
)
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.hls.convert import KNOWN
from salt_hls.hls.supported import check_model
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.jets.dataset import FEATURES, JetSet
from salt_hls.jets.ordering import prepare
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
from salt_hls.models.build import build_model, load_keras_model, snap_weights
from salt_hls.models.weights import load_weights
from salt_hls.system.store import (
    replacing,
)
from salt_hls.system.wording import command

logger = logging.getLogger(__name__)

SAMPLE = MODELS / "sample.h5"
DRAWN = 3000
"""Inputs of a model that takes no jets, drawn over its whole grid."""

DEFAULT_GRID = FixedType(16, 6)


@dataclass(frozen=True)
class Tagger:
    """A quantized tagger ready to be built, and the float model it came from, if known."""

    name: str
    config: ModelConfig | SavedModel
    quantized: tf.keras.Model
    float_model: tf.keras.Model | None
    files: tuple[Path, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input, (particles, features) or (features,)."""
        (given,) = self.quantized.inputs
        return tuple(given.shape[1:])

    @property
    def feature_types(self) -> tuple[FixedType, ...]:
        """Types along the last axis of the input."""
        inputs = self.config.inputs
        if isinstance(inputs, Inputs):
            return tuple(feature.type for feature in inputs.features)
        return (inputs.container,) * self.shape[-1]

    @property
    def partitions(self) -> int | None:
        """Partitions of the particles, where there is one number of them."""
        if isinstance(self.config, ModelConfig):
            return self.config.partitions
        kinds = PartitionedProjection
        found = {layer.partitions for layer in self.quantized.layers if isinstance(layer, kinds)}
        return found.pop() if len(found) == 1 else None


def load_tagger(reference: str) -> Tagger:
    """A shipped model by name, the user's own by path to its YAML, or a saved Keras model.

    Beside `<name>.yaml` stands `<name>.weights.h5`, and `<name>.float.weights.h5` if the float
    model is to be compared. A saved Keras model has its input grid in a YAML of the same stem
    beside it, which is written, with a warning, where it is missing.
    """
    path = find_model(reference)
    if path.suffix not in (".yaml", ".yml"):
        model = load_keras_model(path)
        check_model(model, KNOWN)
        snap_weights(model)
        beside = path.with_suffix(".yaml")
        if not beside.exists():
            _write_saved_model(model, beside)
        tagger = Tagger(path.stem, load_saved_model(beside), model, None, (path, beside))
        features = len(tagger.feature_types)
        if len(tagger.shape) != 2 and isinstance(tagger.config.inputs, Inputs):
            raise UserError(
                f"{beside}: inputs: the model takes {tagger.shape[0]} values, not particles; give "
                "one type: ap_fixed<W,I>"
            )
        if tagger.shape[-1] != features:
            raise UserError(
                f"{beside}: inputs: {features} features, the model has {tagger.shape[-1]} a "
                "particle; give one type: ap_fixed<W,I>"
            )
        return tagger
    config = load_yaml(path, ModelConfig)
    weights = path.with_name(f"{path.stem}.weights.h5")
    if not weights.exists():
        raise UserError(f"{weights}: no trained weights; {command('train', reference)} makes them")
    quantized = build_model(config, quantized=True)
    load_weights(quantized, weights)
    snap_weights(quantized)
    files, float_model = [path, weights], None
    float_weights = path.with_name(f"{path.stem}.float.weights.h5")
    if float_weights.exists():
        float_model = build_model(config, quantized=False)
        load_weights(float_model, float_weights)
        files.append(float_weights)
    return Tagger(path.stem, config, quantized, float_model, tuple(files))


def load_model(model: str | Path) -> tf.keras.Model:
    """The trained, quantized Keras model of a shipped model's name, or of a path to a user's own.

    A path leads to a YAML with `<name>.weights.h5` beside it, or to a saved Keras model. Quantized
    weights are on their grids. Raises `UserError` for files that are missing or no model.
    """
    return load_tagger(str(model)).quantized


def _write_saved_model(model: tf.keras.Model, path: Path) -> None:
    """The YAML of a saved model that has none: salt_p4's grid for particles, else hls4ml's."""
    *_, features = shape = model.input_shape[1:]
    if len(shape) == 2 and features == len(FEATURES):
        like = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).inputs
        inputs, grid = like.model_dump(mode="json"), "salt_p4's input grid"
    else:
        inputs, grid = {"type": str(DEFAULT_GRID)}, f"{DEFAULT_GRID} for every input"
    try:
        with replacing(path) as partial:
            partial.write_text(yaml.safe_dump({"inputs": inputs}, sort_keys=False))
    except UserError as error:
        raise UserError(
            f"{error}; it says what grid the inputs are on: inputs: {{type: {DEFAULT_GRID}}}"
        ) from None
    logger.warning(
        "%s: no input grid was given; written with %s: check that the model was trained on it",
        path,
        grid,
    )


def sample_inputs(tagger: Tagger) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
    """The shipped test jets as the tagger's input, and their labels.

    For a model whose input is no particles of jets: values drawn over the whole grid, no labels.
    """
    inputs = tagger.config.inputs
    if isinstance(inputs, Inputs):
        jets = JetSet.read(SAMPLE)
        return prepare(jets.constituents, tagger.shape[0], inputs), jets.labels
    grid = inputs.container
    first = round(grid.min / grid.lsb)
    codes = np.random.default_rng(0).integers(first, first + 2**grid.width, (DRAWN, *tagger.shape))
    return np.asarray(codes * grid.lsb, np.float32), None


def single_output(tagger: Tagger) -> tf.keras.Model | None:
    """The model as one from a tensor to a vector, whatever container its output is in.

    `None` when it has other outputs.
    """
    model = tf.keras.Model(tagger.quantized.inputs, tagger.quantized.outputs)
    shape = model.output_shape
    return model if isinstance(shape, tuple) and len(shape) == 2 else None


def hard_inputs(tagger: Tagger) -> NDArray[np.float32]:
    """`adversarial_inputs` of the tagger; a vector's values are as particles of one feature."""
    *rows, _ = tagger.shape
    if rows:
        return adversarial_inputs(rows[0], tagger.feature_types)
    return adversarial_inputs(tagger.shape[0], tagger.feature_types[:1]).reshape(-1, *tagger.shape)
