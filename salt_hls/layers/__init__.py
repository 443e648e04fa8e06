"""SAL-T's layers: one folder each, with the Keras layer and its operation."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

STEMS = tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/operation.py")))
"""Every layer folder: a new one is found without being listed anywhere."""

KERAS_CLASSES = tuple(stem.title().replace("_", "") for stem in STEMS)
"""The class of each, in both files: `dynamic_tanh` is `DynamicTanh`."""


def keras_class(name: str) -> Any:
    """One of `KERAS_CLASSES`. Keras can load the layer from then on."""
    stem = STEMS[KERAS_CLASSES.index(name)]
    return getattr(import_module(f"{__name__}.{stem}.keras"), name)
