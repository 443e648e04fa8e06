"""Content keys: what a cached result was made from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np


def digest(*parts: Any) -> str:
    """SHA-256 of numbers, texts, arrays, paths (their names and bytes), dataclasses and containers
    of these.

    Raises `TypeError` for all else: what is not in a key makes no difference to it.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    state.update(f"<{type(value).__name__}>".encode())
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise TypeError("digest: an array of objects has no bytes of its own")
        state.update(f"{value.dtype}{value.shape}".encode())
        state.update(value.tobytes())
    elif isinstance(value, Path):
        content = value.read_bytes()
        state.update(f"{value.name!r} {len(content)} ".encode() + content)
    elif isinstance(value, bytes):
        state.update(f"{len(value)} ".encode() + value)
    elif value is None or isinstance(value, bool | int | float | str):
        state.update(repr(value).encode())
    elif isinstance(value, Enum):
        state.update(value.name.encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _feed(state, field.name)
            _feed(state, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in _in_order(value.items(), lambda pair: pair[0]):
            _feed(state, key)
            _feed(state, item)
    elif isinstance(value, set | frozenset):
        for item in _in_order(value, lambda item: item):
            _feed(state, item)
    elif isinstance(value, Sequence):
        for item in value:
            _feed(state, item)
    else:
        raise TypeError(f"digest: {type(value).__name__} cannot be in a key: {value!r:.100}")
    state.update(b";")


def _in_order(items: Iterable[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Sorted, also where the keys are of several types."""
    return sorted(items, key=lambda item: digest(key(item)))
