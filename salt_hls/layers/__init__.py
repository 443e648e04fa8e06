"""SAL-T's layers: one folder each, with the Keras layer, its arithmetic and its hls4ml node."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

STEMS = tuple(sorted(p.parent.name for p in Path(__file__).parent.glob("*/arithmetic.py")))
"""Every layer folder: a new one is found without being listed anywhere."""

KERAS_CLASSES = tuple(stem.title().replace("_", "") for stem in STEMS)
"""The Keras class of each: `dynamic_tanh` is `DynamicTanh`."""


def register_hls() -> None:
    """Registers every layer with hls4ml and its Keras class with Keras."""
    from salt_hls.layers.hls_models import prepare_hls4ml
    from salt_hls.layers.hls_ops import register_header
    from salt_hls.layers.keras2_reader import read_keras2_models
    from salt_hls.paths import HLS_TEMPLATES

    read_keras2_models()
    register_header(HLS_TEMPLATES / "nnet_tokens.h")
    for stem in STEMS:
        import_module(f"salt_hls.layers.{stem}.keras")
        import_module(f"salt_hls.layers.{stem}.hls").register()
    prepare_hls4ml()
