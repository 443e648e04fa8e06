"""Content keys: what a cached result was made from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path
    for pattern in (
        "salt_hls/fixed.py",
        "salt_hls/layers/**/*.py",
        "salt_hls/firmware/*.py",
        "salt_hls/rtl/*.py",
        "salt_hls/rtl/*.v",
        "hls_templates/*.h",
    )
    for path in ROOT.glob(pattern)
)
"""What makes firmware and RTL from a graph."""


def digest(*parts: Any) -> str:
    """SHA-256 of numbers, texts, arrays, paths (their bytes), dataclasses and containers of these.

    Objects of other kinds count by their type's name only.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def graph_digest(graph: Any) -> str:
    """Digest of an hls4ml ModelGraph: layers, wiring, types, weights, and the code tracing it."""
    nodes = [
        (
            node.name,
            node.class_name,
            list(node.inputs),
            list(node.outputs),
            list(node.get_output_variable().shape),
            str(node.get_output_variable().type.precision),
            {
                name: (weights.data, str(weights.type.precision))
                for name, weights in node.weights.items()
            },
            {key: value for key, value in node.attributes.items() if _describes(key, value)},
        )
        for node in graph.get_layers()
    ]
    return digest(nodes, list(graph.inputs), list(graph.outputs), version("alkaid"), CODE)


def _describes(key: str, value: Any) -> bool:
    return not key.endswith(("_data", "_cpp")) and (
        value is None
        or isinstance(value, bool | int | float | str | list | tuple | np.ndarray)
        or key == "arithmetic"
        or hasattr(value, "precision")
    )


def _feed(state: Any, value: Any) -> None:
    state.update(f"<{type(value).__name__}>".encode())
    if isinstance(value, np.ndarray):
        state.update(f"{value.dtype}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Path):
        state.update(value.name.encode() + b"\0" + value.read_bytes())
    elif isinstance(value, bytes):
        state.update(value)
    elif value is None or isinstance(value, bool | int | float | str):
        state.update(repr(value).encode())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _feed(state, field.name)
            _feed(state, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            _feed(state, key)
            _feed(state, value[key])
    elif isinstance(value, Iterable):
        for item in value:
            _feed(state, item)
    elif hasattr(value, "precision"):
        state.update(str(value.precision).encode())
    state.update(b";")
