"""What every format gives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet

SLICE = 2000
"""Jets in memory at a time."""

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
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: damaged or not readable ({reason}); fetch it again") from None


def array_names(path: Path) -> list[str]:
    """Names of the arrays in an npz file."""
    with zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def require_shape(path: Path, name: str, shape: tuple[int, ...], expected: str, fits: bool) -> None:
    """Raises `UserError` with the shape found and the one expected, unless it fits."""
    if not fits:
        raise UserError(f"{path}: {name} must have shape {expected}, got {shape}")
