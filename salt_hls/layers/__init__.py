"""SAL-T's layers: one folder each, with the Keras layer and its operation."""

from __future__ import annotations

from pathlib import Path

STEMS = tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/operation.py")))
"""Every layer folder: a new one is found without being listed anywhere."""

KERAS_CLASSES = tuple(stem.title().replace("_", "") for stem in STEMS)
"""The class of each, in both files: `dynamic_tanh` is `DynamicTanh`."""
