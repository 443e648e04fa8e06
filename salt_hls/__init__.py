"""salt-hls: FPGA trigger firmware of quantized SAL-T jet taggers, checked bit by bit.

The public Python interface is what is named in `__all__`; docs/python.md shows it at work.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from salt_hls.version import __version__ as __version__

if TYPE_CHECKING:
    from salt_hls.api.emulator import emulator
    from salt_hls.api.firmware import Firmware
    from salt_hls.api.inputs import Inputs
    from salt_hls.config import ModelConfig
    from salt_hls.errors import UserError
    from salt_hls.layers.conv_attention.keras import ConvAttention
    from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
    from salt_hls.layers.fixed_activation.keras import FixedActivation
    from salt_hls.layers.head_dense.keras import HeadDense
    from salt_hls.layers.head_filter.keras import HeadFilter
    from salt_hls.layers.learned_bits import LearnedBits
    from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
    from salt_hls.models.build import build_model, import_sal_t4hep
    from salt_hls.models.tagger import load_model
    from salt_hls.models.weights import load_weights, save_weights


__all__ = [
    "ConvAttention",
    "DynamicTanh",
    "Firmware",
    "FixedActivation",
    "HeadDense",
    "HeadFilter",
    "Inputs",
    "LearnedBits",
    "ModelConfig",
    "PartitionedProjection",
    "UserError",
    "build_model",
    "emulator",
    "import_sal_t4hep",
    "load_model",
    "load_weights",
    "register",
    "save_weights",
    "stream",
]

_MODULES = {
    "Firmware": "api.firmware",
    "Inputs": "api.inputs",
    "LearnedBits": "layers.learned_bits",
    "ModelConfig": "config",
    "UserError": "errors",
    "build_model": "models.build",
    "emulator": "api.emulator",
    "import_sal_t4hep": "models.build",
    "load_model": "models.tagger",
    "load_weights": "models.weights",
    "save_weights": "models.weights",
}
"""Where names come from, when they are first asked for: TensorFlow takes its time to load."""

# QKeras and hls4ml's reader are of Keras 2, which TensorFlow 2.16 and later keep as `tf_keras`.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def register() -> None:
    """Teaches hls4ml the SAL-T layers (Vivado and Vitis backends); call it as often as you like.

    In models that have one of them, the weights of QDense and the types of maxima are exact from
    then on, and hls4ml warns of an input without a precision, and of values off its grid.
    """
    from salt_hls.hls.register import register

    register()


def stream(graph: Any, particles_per_clock: int = 1) -> None:
    """Prepares a graph that hls4ml has converted with io_type "io_stream"; then write it.

    particles_per_clock: how many particles enter in one clock. Raises `UserError` for a graph of
    another io_type, and for a number that is not 1 ... particles.
    """
    from salt_hls.graph.network import check, network_of
    from salt_hls.hls.reader import read_graph
    from salt_hls.hls.streaming import depths_of, stream

    stream(graph, particles_per_clock)
    check(network_of(read_graph(graph)), depths_of(graph))


def __getattr__(name: str) -> Any:
    from salt_hls.layers import KERAS_CLASSES, keras_class

    if name in KERAS_CLASSES:
        return keras_class(name)
    if name not in _MODULES:
        raise AttributeError(f"module 'salt_hls' has no attribute {name!r}")
    return getattr(import_module(f"salt_hls.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    from salt_hls.layers import KERAS_CLASSES

    return sorted({*globals(), *__all__, *KERAS_CLASSES})
