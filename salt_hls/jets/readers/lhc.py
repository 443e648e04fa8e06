"""The public hls4ml LHC jets: gluon, quark, W, Z and top jets, 30 to 150 particles.

HDF5 with `jetConstituentList` (jets, particles, features), `particleFeatureNames` (one name more
than there are features: the PDG number has no column), `jets` (jets, columns) and
`jetFeatureNames`, among them the one-hot j_g, j_q, j_w, j_z, j_t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet
from salt_hls.jets.kinematics import wrap
from salt_hls.jets.readers.base import SLICE, Format, require_shape

PARTICLE = ("j1_pt", "j1_etarel", "j1_phirel", "j1_px", "j1_py", "j1_eta", "j1_phi")
ONE_HOT = ("j_g", "j_q", "j_w", "j_z", "j_t")
TOLERANCE = 0.01


def slices(path: Path, particles: int) -> Iterator[JetSet]:
    """All jets of a file; jet eta and phi are those of the axis its angles are relative to."""
    with h5py.File(path, "r") as file:
        constituents, jets = file["jetConstituentList"], file["jets"]
        require_shape(path, "jets", jets.shape, "(jets, features)", jets.ndim == 2)
        names = _names(path, file, "particleFeatureNames", constituents.shape[-1], "j1_pdgid")
        columns = _columns(path, names, PARTICLE)
        jet_names = _names(path, file, "jetFeatureNames", jets.shape[-1])
        one_hot = _columns(path, jet_names, ONE_HOT)
        kinematics = _columns(path, jet_names, ("j_pt", "j_mass"))
        require_shape(
            path, "jetConstituentList", constituents.shape,
            f"({len(jets)}, particles, features), as many as jets",
            constituents.ndim == 3 and len(constituents) == len(jets),
        )  # fmt: skip
        for first in range(0, len(jets), SLICE):
            rows = slice(first, first + SLICE)
            features = constituents[rows][..., columns].astype(np.float32)
            table = jets[rows]
            flags = table[:, one_hot]
            wrong = np.flatnonzero((flags != 0).sum(axis=1) != 1)
            if wrong.size:
                raise UserError(
                    f"{path}: jet {first + wrong[0]} must have one of {', '.join(ONE_HOT)} set, "
                    f"got {flags[wrong[0]].tolist()}"
                )
            pt, etarel, phirel, px, py, eta, phi = np.moveaxis(features, -1, 0)
            _check_columns(path, pt, np.hypot(px, py))
            axis = (eta[:, 0] - etarel[:, 0], wrap(phi[:, 0] - phirel[:, 0]))
            j_pt, j_mass = table[:, kinematics].T
            yield JetSet(
                features[..., :3],
                flags.argmax(axis=1),
                np.stack([j_pt, *axis, j_mass, (pt > 0).sum(axis=1)], axis=-1).astype(np.float32),
            )


def _names(path: Path, file: Any, key: str, count: int, columnless: str = "") -> list[str]:
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in file[key][:]]
    if len(names) == count + 1 and columnless in names:
        names.remove(columnless)
    if len(names) != count:
        raise UserError(f"{path}: {key} names {len(names)} features of {count} columns")
    return names


def _columns(path: Path, names: list[str], wanted: Sequence[str]) -> list[int]:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"{path}: no feature {missing[0]!r} among {', '.join(names[:20])}")
    return [names.index(name) for name in wanted]


def _check_columns(path: Path, pt: NDArray[np.float32], transverse: NDArray[np.float32]) -> None:
    differs = np.abs(pt - transverse) > TOLERANCE * (1 + np.abs(transverse))
    if np.mean(differs) > TOLERANCE:
        raise UserError(
            f"{path}: j1_pt is not the length of (j1_px, j1_py) in {np.mean(differs):.0%} of the "
            "particles: particleFeatureNames does not describe the columns"
        )


FORMAT = Format("hls4ml LHC jets", "jetConstituentList", True, slices)
