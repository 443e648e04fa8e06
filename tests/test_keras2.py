"""Where Keras 3 is installed too: models of Keras 2 are asked for in time, and read."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tf_keras") is None, reason="TensorFlow 2.14 has Keras 2 only"
)

PLAIN = """
import hls4ml, salt_hls
import tensorflow as tf
from qkeras import QDense
salt_hls.register()
bits = "quantized_bits(6,1,alpha=1)"
x = tf.keras.Input((4,))
model = tf.keras.Model(x, QDense(2, kernel_quantizer=bits, bias_quantizer=bits)(x))
config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
graph = hls4ml.converters.convert_from_keras_model(model, hls_config=config, backend="Vitis",
                                                   output_dir="out")
print([node.class_name for node in graph.get_layers()])
"""


def output(program: str, folder: Path) -> str:
    command = [sys.executable, "-c", program]
    user = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=user
    )
    return done.stdout + done.stderr


def test_plain_hls4ml_reads_models_of_keras_2(tmp_path: Path) -> None:
    assert "['Input', 'Dense']" in output(PLAIN, tmp_path)


@pytest.mark.parametrize("first", ["tensorflow", pytest.param("qkeras", marks=pytest.mark.slow)])
def test_keras_3_is_named_where_it_was_chosen_before(first: str, tmp_path: Path) -> None:
    program = f"import {first}\n{PLAIN}"
    assert "salt_hls.errors.UserError: tf.keras is Keras 3" in output(program, tmp_path)
