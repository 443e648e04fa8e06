"""Where what salt-hls ships lies: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def _shipped(folder: str) -> Path:
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


HLS_TEMPLATES = _shipped("hls_templates")
KERAS_MODELS = _shipped("keras_models")
SYNTH = _shipped("synth")

CHECKOUT = Path() if PACKAGE in HLS_TEMPLATES.parents else PACKAGE.parent
"""Where golden logits, results and figures of scaling are kept; with a wheel, where the user is."""
