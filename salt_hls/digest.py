"""Content keys: what a cached result was made from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from salt_hls.graph.graph import Graph
from salt_hls.paths import HLS_TEMPLATES, PACKAGE


def _code(*patterns: str, without: tuple[str, ...]) -> list[Path]:
    left_out = {path for pattern in without for path in PACKAGE.glob(pattern)}
    found = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    return sorted(found - left_out | {*HLS_TEMPLATES.glob("*.h")})


_TEST_CASES = "layers/**/cases.py"
CODE = _code(
    "fixed.py",
    "graph/*.py",
    "layers/**/*.py",
    "hls/*.py",
    "firmware/*.py",
    "rtl/*.py",
    "rtl/*.v",
    "rtl/*.cpp",
    without=(_TEST_CASES,),
)
"""What makes firmware and RTL from a graph, and simulates them."""

FIRMWARE_CODE = _code(
    "**/*.py",
    "rtl/*.v",
    "rtl/*.cpp",
    without=(
        _TEST_CASES,
        "cli.py",
        "jets/generator.py",
        "jets/plots.py",
        "jets/readers/**/*.py",
        "training/run.py",
        "training/train.py",
        "training/ablations/**/*.py",
    ),
)
"""What makes checked firmware and its report from a model and the shipped jets: no training, no
reading of other jets."""


def digest(*parts: Any) -> str:
    """SHA-256 of numbers, texts, arrays, paths (their names and bytes), dataclasses and containers
    of these.

    Raises `TypeError` for all else: what is not in a key makes no difference to it.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def graph_digest(graph: Graph) -> str:
    """Digest of a graph: operations, wiring, types, weights, and the code that makes RTL of it."""
    return digest(graph, CODE)


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
