"""The quark/gluon jets of EnergyFlow: npz with X (jets, M, 4) = pT [GeV], rapidity, phi, PDG
number, zero-padded and in no promised order, and y (jets,), 1 for quarks and 0 for gluons. phi is
kept within pi of the jet's, so it may leave [0, 2 pi).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet
from salt_hls.jets.kinematics import MAX_AZIMUTH, relative_to_axis
from salt_hls.jets.readers.base import SLICE, Format, require_finite, require_shape

CLASSES = ("g", "q")


def slices(path: Path, particles: int) -> Iterator[JetSet]:
    """All jets of a file, particles taken as massless; angles are relative to their sum."""
    with zipfile.ZipFile(path) as archive:
        with _array(path, archive, "y") as (shape, labels):
            y = next(_rows(labels, shape, shape[0]))
        with _array(path, archive, "X") as (shape, content):
            fits = len(shape) == 3 and shape[2] in (3, 4) and shape[:1] == y.shape
            require_shape(path, "X", shape, f"({len(y)}, particles, 4), as many as y", fits)
            first = 0
            for x in _rows(content, shape, SLICE):
                require_finite(path, first, x[..., :3], ("pT", "rapidity", "phi"))
                pt, rapidity, phi = np.moveaxis(x[..., :3].astype(np.float64), -1, 0)
                if (largest := np.abs(phi[pt != 0]).max(initial=0)) > MAX_AZIMUTH:
                    raise UserError(f"{path}: phi reaches {largest:g}; it must be in radians")
                momenta = (pt * np.cosh(rapidity), pt * np.cos(phi), pt * np.sin(phi))
                stacked = np.stack([*momenta, pt * np.sinh(rapidity)], axis=-1)
                constituents, jets = relative_to_axis(stacked)
                constituents[..., 0] = pt  # keeps the sign of what the checks must see
                yield JetSet(constituents, y[first : first + SLICE], jets, CLASSES)
                first += SLICE


class _Stream:
    """An array inside an archive, and its type."""

    def __init__(self, stream: IO[bytes], dtype: np.dtype[Any]) -> None:
        self.stream, self.dtype = stream, dtype


@contextmanager
def _array(
    path: Path, archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[tuple[int, ...], _Stream]]:
    """Shape and content of an array, without loading it."""
    with archive.open(f"{name}.npy") as stream:
        npy: Any = np.lib.format
        plain = npy.read_magic(stream) == (1, 0)
        header = npy.read_array_header_1_0 if plain else npy.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        if fortran or dtype.kind not in "iuf" or not shape:
            raise UserError(f"{path}: {name} must be an array of numbers, got {dtype} {shape}")
        yield shape, _Stream(stream, dtype)


def _rows(content: _Stream, shape: tuple[int, ...], count: int) -> Iterator[NDArray[Any]]:
    """The array, `count` rows at a time."""
    size = int(np.prod(shape[1:], dtype=np.int64)) * content.dtype.itemsize
    for first in range(0, shape[0], count):
        rows = min(count, shape[0] - first)
        values = np.frombuffer(content.stream.read(rows * size), content.dtype)
        yield values.reshape(rows, *shape[1:])


FORMAT = Format("quark/gluon jets", "X", False, slices)
