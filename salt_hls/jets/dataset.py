"""Jets in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError

CLASSES = ("g", "q", "W", "Z", "t")
FEATURES = ("pt", "deta", "dphi")
JET_COLUMNS = ("pt", "eta", "phi", "mass", "multiplicity")
MAX_CONSTITUENTS = 150


@dataclass(frozen=True)
class JetSet:
    """Jets with their constituents.

    constituents: (jets, up to 150, 3) float32: pT in GeV, deta and dphi relative to the jet axis;
    zeros after the last constituent. labels: (jets,) index into `CLASSES`. jets: (jets, 5)
    float32: pT [GeV], eta, phi, mass [GeV], multiplicity before truncation.
    """

    constituents: NDArray[np.float32]
    labels: NDArray[np.int8]
    jets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> JetSet:
        return JetSet(self.constituents[rows], self.labels[rows], self.jets[rows])

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
        return JetSet(constituents, self.labels, self.jets)

    @staticmethod
    def concatenate(parts: Sequence[JetSet]) -> JetSet:
        """All jets of `parts`, in order."""
        return JetSet(
            np.concatenate([p.constituents for p in parts]),
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.jets for p in parts]),
        )

    def write(self, path: Path, compression: str = "lzf") -> None:
        """Writes HDF5 with the datasets `constituents`, `labels` and `jets`."""
        with h5py.File(path, "w") as file:
            for name, values in (
                ("constituents", self.constituents),
                ("labels", self.labels),
                ("jets", self.jets),
            ):
                file.create_dataset(
                    name, data=values, compression=compression, shuffle=True, chunks=True
                )
            file.attrs["classes"] = list(CLASSES)
            file.attrs["features"] = list(FEATURES)
            file.attrs["jet_columns"] = list(JET_COLUMNS)

    @staticmethod
    def read(path: Path, rows: slice = slice(None), particles: int = MAX_CONSTITUENTS) -> JetSet:
        """Reads what `write` wrote; `rows` and `particles` bound what is loaded.

        Raises `UserError` when the file is missing, damaged or not of this format.
        """
        try:
            with h5py.File(path, "r") as file:
                missing = {"constituents", "labels", "jets"} - set(file)
                if missing:
                    raise UserError(f"{path}: no dataset {sorted(missing)[0]!r} in this jet file")
                return JetSet(
                    file["constituents"][rows, :particles].astype(np.float32),
                    file["labels"][rows],
                    file["jets"][rows],
                )
        except FileNotFoundError:
            raise UserError(f"{path}: no such jet file; `make data` generates jets") from None
        except OSError as error:
            raise UserError(f"{path}: not a readable HDF5 jet file ({error})") from None
