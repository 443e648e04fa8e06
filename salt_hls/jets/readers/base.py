"""What every format gives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet

SLICE = 2000
"""Jets in memory at a time."""

BROKEN = (
    OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error,
    AttributeError, TypeError,  # a group where an array should be, or the reverse
)  # fmt: skip
"""What libraries raise about files that are not what they should be."""

Slices = Callable[[Path, int], Iterator[JetSet]]


@dataclass(frozen=True)
class Format:
    """A data set format.

    key: name of a dataset, group or array that only this format has. ordered: it promises
    particles in descending pT. slices: reads a file, slice by slice, all particles or (where they
    are made for it) as many as given; labels may still be of any integer type.
    """

    name: str
    key: str
    ordered: bool
    slices: Slices


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a broken file raises into a `UserError` of one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except KeyError as error:
        raise UserError(f"{path}: incomplete: {str(error.args[0])[:160]}") from None
    except BROKEN as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: damaged or not readable ({reason}); fetch it again") from None


def array_names(path: Path) -> list[str]:
    """Names of the arrays in an npz file."""
    with zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def refuse(
    file: Path,
    first: int,
    values: NDArray[np.floating[Any]],
    wrong: NDArray[np.bool_],
    names: Sequence[str],
    what: str,
) -> None:
    """Raises `UserError` that names the first wrong value of (jets, particles, columns).

    first: number of the first jet in its file. names: of the columns.
    """
    if wrong.any():
        row, particle, column = (int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"{file}: jet {first + row}, particle {particle}: {what} in {names[column]}, "
            f"got {values[row, particle, column]:g}; remove or mend this jet"
        )


def require_finite(
    file: Path, first: int, values: NDArray[np.floating[Any]], names: Sequence[str]
) -> None:
    """`refuse` for NaN and infinity."""
    refuse(file, first, values, ~np.isfinite(values), names, "NaN or infinity")


def require_shape(path: Path, name: str, shape: tuple[int, ...], expected: str, fits: bool) -> None:
    """Raises `UserError` with the shape found and the one expected, unless it fits."""
    if not fits:
        raise UserError(f"{path}: {name} must have shape {expected}, got {shape}")
