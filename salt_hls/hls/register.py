"""Teaches hls4ml our layers."""

from __future__ import annotations

from salt_hls.hls.keras2_reader import read_keras2_models
from salt_hls.hls.nodes import register_header, register_layer
from salt_hls.hls.our_models import prepare_hls4ml
from salt_hls.layers import KERAS_CLASSES, STEMS, keras_class


def register() -> None:
    """Registers every layer with hls4ml, and its Keras class with Keras. Idempotent."""
    read_keras2_models()
    register_header("nnet_tokens.h")
    for stem, name in zip(STEMS, KERAS_CLASSES, strict=True):
        register_layer(stem, name, keras_class(name).operation_class)
    prepare_hls4ml()
