"""hls4ml's Keras 2 reader for Keras 2 models, where Keras 3 is installed too.

hls4ml 1.3 chooses its reader by the version of the package `keras`. Beside TensorFlow 2.16 and
later that is Keras 3, while QKeras and our layers are models of `tf_keras`, which is Keras 2.
"""

from __future__ import annotations

import json
from typing import Any

import hls4ml
import tensorflow as tf
from hls4ml.converters.keras_v2_to_hls import (
    KerasModelReader,
    keras_v2_to_hls,
    parse_keras_model,
)


def read_keras2_models() -> None:
    """Makes hls4ml read models of `tf.keras` by their own version. Idempotent."""
    converters = hls4ml.converters
    convert, parse = converters.keras_v3_to_hls, converters.parse_keras_v3_model
    if getattr(convert, "reads_keras2", False):
        return

    def to_hls(config: dict[str, Any], *fallbacks: bool) -> Any:
        if isinstance(config["KerasModel"], tf.keras.Model):
            return keras_v2_to_hls(config)
        return convert(config, *fallbacks)

    def parsed(model: Any, *fallbacks: bool) -> Any:
        if isinstance(model, tf.keras.Model):
            return parse_keras_model(json.loads(model.to_json()), KerasModelReader(model))
        return parse(model, *fallbacks)

    to_hls.reads_keras2 = True  # type: ignore[attr-defined]
    converters.keras_v3_to_hls, converters.parse_keras_v3_model = to_hls, parsed
