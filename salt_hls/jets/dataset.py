"""Jets in memory and on disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.system.store import replacing
from salt_hls.system.wording import command

CLASSES = ("g", "q", "W", "Z", "t")
FEATURES = ("pt", "deta", "dphi")
POINTS = ("x", "y", "z")
JET_COLUMNS = ("pt", "eta", "phi", "mass", "multiplicity")
MAX_CONSTITUENTS = 150

SHAPES = {
    "constituents": ("jets", "particles", "3"),
    "jets": ("jets", str(len(JET_COLUMNS))),
    "labels": ("jets",),
}
"""Of the datasets in a file."""


@dataclass(frozen=True)
class JetSet:
    """Jets with their constituents, or other sets of points of three features.

    constituents: (jets, up to 150, 3) float32: pT in GeV, deta and dphi relative to the jet axis;
    zeros after the last constituent. labels: (jets,) index into `classes`. jets: (jets, 5)
    float32: pT [GeV], eta, phi, mass [GeV], multiplicity before truncation. features: `FEATURES`,
    or `POINTS` for point clouds, whose `jets` are zeros.
    """

    constituents: NDArray[np.float32]
    labels: NDArray[np.int8]
    jets: NDArray[np.float32]
    classes: tuple[str, ...] = CLASSES
    features: tuple[str, ...] = FEATURES

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> JetSet:
        return replace(
            self,
            constituents=self.constituents[rows],
            labels=self.labels[rows],
            jets=self.jets[rows],
        )

    def shuffled(self, seed: int) -> JetSet:
        """The same jets in an order fixed by `seed`."""
        return self[np.random.default_rng(seed).permutation(len(self))]

    def compact(self) -> JetSet:
        """The jets with pT to 12 significant bits and angles to 2^-14 rad: far finer than any
        input grid, and a third of the size on disk."""
        constituents = self.constituents.copy()
        mantissa, exponent = np.frexp(constituents[..., 0])
        constituents[..., 0] = np.ldexp(np.round(mantissa * 2**12) / 2**12, exponent)
        constituents[..., 1:] = np.round(constituents[..., 1:] * 2**14) / 2**14
        return replace(self, constituents=constituents)

    @staticmethod
    def concatenate(parts: Sequence[JetSet]) -> JetSet:
        """All jets of `parts`, in order; classes and features are those of the first."""
        return replace(
            parts[0],
            constituents=np.concatenate([p.constituents for p in parts]),
            labels=np.concatenate([p.labels for p in parts]),
            jets=np.concatenate([p.jets for p in parts]),
        )

    def write(self, path: Path, compression: str = "lzf") -> None:
        """Writes HDF5 with the datasets `constituents`, `labels` and `jets`.

        Raises `UserError` when it cannot be written; nothing half-written is left.
        """
        content = io.BytesIO()  # HDF5 itself does not survive a full disk
        with h5py.File(content, "w") as file:
            for name, values in (
                ("constituents", self.constituents),
                ("labels", self.labels),
                ("jets", self.jets),
            ):
                file.create_dataset(
                    name, data=values, compression=compression, shuffle=True, chunks=True
                )
            file.attrs["classes"] = list(self.classes)
            file.attrs["features"] = list(self.features)
            file.attrs["jet_columns"] = list(JET_COLUMNS)
        with replacing(path) as partial, content.getbuffer() as whole:
            partial.write_bytes(whole)

    @staticmethod
    def read(path: Path, rows: slice = slice(None), particles: int = MAX_CONSTITUENTS) -> JetSet:
        """Reads what `write` wrote; `rows` and `particles` bound what is loaded.

        Raises `UserError` when the file is missing, damaged or not of this format.
        """
        try:
            with h5py.File(path, "r") as file:
                for name, expected in SHAPES.items():
                    values = file.get(name)
                    if values is None:
                        raise UserError(f"{path}: no dataset {name!r} in this jet file")
                    shape: tuple[int, ...] = getattr(values, "shape", ())
                    right = len(shape) == len(expected) and shape[0] == len(file["constituents"])
                    if not right or (name == "jets" and shape[1] != len(JET_COLUMNS)):
                        raise UserError(
                            f"{path}: dataset {name!r} has the wrong shape {shape}, expected "
                            f"({', '.join(expected)}) with as many jets as constituents"
                        )
                return JetSet(
                    file["constituents"][rows, :particles].astype(np.float32),
                    file["labels"][rows],
                    file["jets"][rows],
                    tuple(str(name) for name in file.attrs.get("classes", CLASSES)),
                    tuple(str(name) for name in file.attrs.get("features", FEATURES)),
                )
        except FileNotFoundError:
            raise UserError(f"{path}: no such jet file; {command('data')} generates jets") from None
        except OSError as error:
            raise UserError(f"{path}: not a readable HDF5 jet file ({error})") from None
