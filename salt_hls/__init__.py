"""salt-hls: FPGA trigger firmware of quantized SAL-T jet taggers, checked bit by bit."""

from __future__ import annotations

import os
from typing import Any

__version__ = "0.1.0"

# QKeras and hls4ml's reader are of Keras 2, which TensorFlow 2.16 and later keep as `tf_keras`.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def register() -> None:
    """Teaches hls4ml the SAL-T layers (Vivado and Vitis backends); call it as often as you like."""
    from salt_hls.hls.register import register

    register()


def stream(graph: Any, particles_per_clock: int = 1) -> None:
    """Prepares a graph that hls4ml has converted with io_type "io_stream"; then write it."""
    from salt_hls.graph.network import check, network_of
    from salt_hls.hls.reader import read_graph
    from salt_hls.hls.streaming import depths_of, stream

    stream(graph, particles_per_clock)
    check(network_of(read_graph(graph)), depths_of(graph))


def __getattr__(name: str) -> Any:
    # TensorFlow loads only when a float model is imported.
    if name == "import_sal_t4hep":
        from salt_hls.models import import_sal_t4hep

        return import_sal_t4hep
    raise AttributeError(f"module 'salt_hls' has no attribute {name!r}")
