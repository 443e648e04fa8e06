"""The portable weight file: what it holds, what it refuses, and old files of Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.models.build import build_model
from salt_hls.models.weights import FORMAT, load_weights, save_weights

Make = Callable[..., Path]


@pytest.fixture
def model(small_model: Make) -> tf.keras.Model:
    return build_model(load_yaml(small_model(), ModelConfig), quantized=True)


def test_it_holds_every_weight_by_name(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for value, weight in enumerate(model.weights, 1):
        weight.assign(np.full(weight.shape, value / 8))
    save_weights(model, path)
    with h5py.File(path) as file:
        assert file.attrs["format"] == FORMAT
        assert file["embed/kernel"].shape == (3, 4) and file["block1_tanh1/alpha"].shape == (1,)
        found: list[str] = []
        file.visititems(lambda n, o: found.append(n) if isinstance(o, h5py.Dataset) else None)
    assert len(found) == len(model.weights)
    written = [weight.numpy() for weight in model.weights]
    for weight in model.weights:
        weight.assign(tf.zeros_like(weight))
    load_weights(model, path)
    for before, weight in zip(written, model.weights, strict=True):
        assert np.array_equal(before, weight.numpy()), weight.name
    again = tmp_path / "b.h5"
    save_weights(model, again)
    assert again.read_bytes() == path.read_bytes()


def test_old_files_of_this_keras_are_read(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "old.weights.h5"
    model.save_weights(path)
    before = [weight.numpy() for weight in model.weights]
    for weight in model.weights:
        weight.assign(weight + 1)
    load_weights(model, path)
    for old, weight in zip(before, model.weights, strict=True):
        assert np.array_equal(old, weight.numpy())


@pytest.mark.parametrize(
    "fault, says",
    [
        ("missing", "embed/kernel: the model needs (3, 4), the file has none"),
        ("shape", "embed/kernel: the model needs (3, 4), the file has (4, 3)"),
        ("extra", "more/kernel: the model needs no such weight, the file has (2,)"),
        ("nan", "layer embed: weight kernel holds NaN or infinity"),
        ("other", "not weights that salt-hls wrote"),
        ("damaged", "not an HDF5 file"),
        ("folder", "cannot be read"),
    ],
)
def test_faults_are_named(fault: str, says: str, model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    save_weights(model, path)
    if fault in ("damaged", "folder"):
        path.unlink()
        path.mkdir() if fault == "folder" else path.write_bytes(b"no")
    else:
        with h5py.File(path, "r+") as file:
            if fault == "nan":
                file["embed/kernel"][0, 0] = np.nan
            elif fault == "extra":
                file["more/kernel"] = np.zeros(2)
            elif fault == "other":
                del file.attrs["format"]
            else:
                del file["embed/kernel"]
            if fault == "shape":
                file["embed/kernel"] = np.zeros((4, 3))
    with pytest.raises(UserError) as error:
        load_weights(model, path)
    assert says in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_shipped_weights_are_portable() -> None:
    for path in MODELS.glob("*.weights.h5"):
        with h5py.File(path) as file:
            assert file.attrs.get("format") == FORMAT, path.name
