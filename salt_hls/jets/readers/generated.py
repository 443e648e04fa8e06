"""The jets of `make data`, and any file that `JetSet.write` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from salt_hls.jets.dataset import JetSet
from salt_hls.jets.readers.base import SLICE, Format


def slices(path: Path, particles: int) -> Iterator[JetSet]:
    """All jets of a file."""
    first = 0
    while len(part := JetSet.read(path, slice(first, first + SLICE))):
        yield part
        first += SLICE


FORMAT = Format("generated jets", "constituents", True, slices)
