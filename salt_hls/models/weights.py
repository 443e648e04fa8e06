"""Weights in an HDF5 file, `/<layer>/<weight>`, that is bound to no version of Keras.

Keras' own `.weights.h5` numbers the layers by class and the weights by position, as the version
that wrote it builds them: another one cannot read it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.system.store import replacing

FORMAT = "salt-hls weights 1"
"""Attribute `format` of the file."""


def save_weights(model: tf.keras.Model, path: str | Path) -> None:
    """Writes every weight of the model, whole or not at all; the same weights, the same bytes.

    `make firmware MODEL=<name>.yaml` takes them from `<name>.weights.h5` beside the YAML. Raises
    `UserError` when the file cannot be written.
    """
    memory = io.BytesIO()  # HDF5 itself does not survive a full disk
    with h5py.File(memory, "w") as file:
        file.attrs["format"] = FORMAT
        for layer in model.layers:
            for name, weight in named_weights(layer).items():
                file.create_dataset(f"{layer.name}/{name}", data=weight.numpy())
    with replacing(Path(path)) as partial:
        partial.write_bytes(memory.getvalue())


def load_weights(model: tf.keras.Model, path: str | Path) -> None:
    """Loads what `save_weights` wrote, or what the Keras installed here wrote.

    Raises `UserError` naming the file and the weight that is missing, of another shape, not finite
    or not the model's.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            ours = file.attrs.get("format") == FORMAT
            arrays = _arrays(file) if ours else {}
    except OSError as error:
        # h5py gives the number of a failed system call, and none when the content is at fault.
        reason = os.strerror(error.errno) if error.errno else "not an HDF5 file, or a damaged one"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    if ours:
        _assign(model, arrays, path)
    else:
        _load_keras_format(model, path)
    require_finite(model, path)


def named_weights(layer: tf.keras.layers.Layer) -> dict[str, tf.Variable]:
    """A layer's weights by their own names: kernel, bias, alpha, ..."""
    return {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}


def copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Gives the target the weights that both have, by layer and name; others it keeps."""
    layers = {layer.name: layer for layer in target.layers}
    for layer in source.layers:
        there = named_weights(layers[layer.name]) if layer.name in layers else {}
        for name, weight in named_weights(layer).items():
            if name in there:
                there[name].assign(weight)


def require_finite(model: tf.keras.Model, path: Path) -> None:
    """Raises `UserError` naming the first weight with NaN or infinity."""
    for layer in model.layers:
        for name, weight in named_weights(layer).items():
            if not np.all(np.isfinite(weight.numpy())):
                raise UserError(
                    f"{path}: layer {layer.name}: weight {name} holds NaN or infinity; retrain it"
                )


def _arrays(file: h5py.File) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item)

    file.visititems(visit)
    return found


def _assign(model: tf.keras.Model, arrays: dict[str, NDArray[Any]], path: Path) -> None:
    wanted = {
        f"{layer.name}/{name}": weight
        for layer in model.layers
        for name, weight in named_weights(layer).items()
    }
    for name in (*wanted, *arrays):
        needs = str(tuple(wanted[name].shape)) if name in wanted else "no such weight"
        holds = str(arrays[name].shape) if name in arrays else "none"
        if needs != holds:
            widths = name.endswith("_bits") and {
                "none": "; they are of a model without learned widths",
                "no such weight": "; they are of a model with learned widths",
            }.get(holds if name in wanted else needs)
            raise UserError(
                f"{path}: these weights do not fit the model's YAML ({name}: the model needs "
                f"{needs}, the file has {holds}{widths or ''}); train again"
            )
    for name, weight in wanted.items():
        weight.assign(arrays[name])


def _load_keras_format(model: tf.keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises whatever the file's content provokes
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: not weights that salt-hls wrote, and TensorFlow {tf.__version__} cannot read "
            f"them for this model ({reason}); save them again with salt_hls.save_weights "
            "under the version that wrote them"
        ) from None
