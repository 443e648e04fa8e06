"""Small streaming taggers of every kind, and what the streams of compiled C++ do, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

from salt_hls.config import MODELS, ModelConfig
from salt_hls.graph.graph import Graph
from salt_hls.graph.network import network_of
from salt_hls.hls.convert import Converted, convert
from salt_hls.hls.reader import read_graph
from salt_hls.models.build import build_model, snap_weights

SMALL = {"particles": 13, "partitions": 4, "width": 8, "heads": 2, "feed_forward": 8}
LINFORMER = {"keys": "dense", "values": "dense", "filter_heights": []}
SHALLOW = {
    "convolution": "separable",
    "softmax": {"stable": False, "normalize": "context", "scale": "table"},
    "block": "parallel",
    "head": "linear",
}
"""Every option that makes the circuit shallower."""


def shipped() -> dict[str, Any]:
    """The YAML of a shipped model, with types for all that it may be changed into."""
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    filtered = "ap_fixed<8,4,RND,SAT>"
    content["types"] |= {"query_filter": filtered, "key_filter": filtered}
    content["types"]["attention"]["context"] = "ap_fixed<10,6,RND,SAT>"
    return content


def built(folder: Path, particles_per_clock: int, **changes: Any) -> tuple[Any, Converted]:
    """A small Keras model and its streaming graph."""
    config = ModelConfig.model_validate({**shipped(), **SMALL, **changes})
    if config.attention == "full":
        types = config.types.model_dump(mode="json")
        types["attention"]["sum"] = "ap_ufixed<10,5>"
        config = ModelConfig.model_validate({**shipped(), **SMALL, **changes, "types": types})
    tf.keras.utils.set_random_seed(1)
    model = build_model(config, quantized=True)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    snap_weights(model)
    container = config.inputs.container
    made = convert(
        model, container, "small", folder / "project", "Vitis",
        io_type="io_stream", particles_per_clock=particles_per_clock,
    )  # fmt: skip
    return model, made


def graph_of(folder: Path, particles_per_clock: int, **changes: Any) -> Graph:
    return built(folder, particles_per_clock, **changes)[1].graph


VARIANTS = {
    "SAL-T": (1, {}),
    "two particles a clock": (2, {}),
    "four particles a clock": (4, {}),
    "a jet a clock": (13, {"partitions": 1}),
    "partitions limit the rate": (13, {}),
    "projection after the key matrix": (3, {"project_first": False}),
    "shared projections": (1, {"share_projections": True}),
    "Linformer": (2, LINFORMER),
    "full attention": (5, {"attention": "full", "filter_heights": [], "partitions": 13}),
    "two blocks": (2, {"blocks": 2}),
    "shallow": (3, SHALLOW),
    "fewer particles than the filter is high": (1, {"particles": 2, "partitions": 2}),
    "150 particles": (1, {"particles": 150}),
}


STREAM = """\
#pragma once
#include <cstdio>
#include <deque>
#include <string>

namespace hls {
template <class T> class stream {
    std::deque<T> data;
    std::string name;
    void log(char what) {
        FILE *file = fopen("@LOG@", "a"); // not static: statics are shared between libraries
        fprintf(file, "%c %s\\n", what, name.c_str());
        fclose(file);
    }

  public:
    explicit stream(const std::string &name = "nameless") : name(name) {}
    T read() {
        log('r');
        T value = data.at(0);
        data.pop_front();
        return value;
    }
    void write(const T &value) {
        log('w');
        data.push_back(value);
    }
};
} // namespace hls
"""


def log_streams(folder: Path) -> Path:
    """Puts an `hls_stream.h` there that writes every read and write to the file returned."""
    log = folder / "streams.txt"
    (folder / "hls_stream.h").write_text(STREAM.replace("@LOG@", str(log)))
    return log


def assert_loops_are_processes(graph: Any, events: list[str]) -> None:
    """The events of jets, in order, are those of the processes of hls4ml's graph, step by step."""
    processes = network_of(read_graph(graph)).processes.values()
    names = {t: v.name for n in graph.get_layers() for t, v in n.variables.items()}
    outputs = graph.get_output_variables()
    names |= {t: v.name for t, v in zip(graph.outputs, outputs, strict=True)}
    assert events
    while events:
        for process in sorted(processes, key=lambda p: bool(p.reads) + (not p.writes)):
            for step in range(process.steps):
                for what, channels in (("r", process.reads), ("w", process.writes)):
                    expected = [
                        f"{what} {names.get(channel, channel.split('/')[-1])}"
                        for channel, steps in channels.items()
                        if step in steps
                    ]
                    got, events = events[: len(expected)], events[len(expected) :]
                    assert sorted(got) == sorted(expected), f"{process.name}, step {step}"
