"""What each way to a shallower SAL-T saves in the circuit: alkaid's estimates, no synthesis.

Every variant is salt_p4 (N = 32) with one option of its YAML changed, or several, and its trained
weights as they are; a separable kernel is the nearest one of rank one. "Logic" is the longest path
through the operations that are cut into stages, in ns; cycles are at 2.5 ns, II 1.
Accuracy is on the shipped jets, without any retraining, where the float function is the same.
Writes docs/results/shallow_attention.json, prints its table; half an hour on one core. Run:
.venv/bin/python docs/studies/shallow_attention.py [variant ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tensorflow as tf
import yaml

import salt_hls
from salt_hls.config import MODELS, ModelConfig
from salt_hls.firmware.build import converted
from salt_hls.models.build import build_model, snap_weights
from salt_hls.models.tagger import Tagger, load_tagger, sample_inputs
from salt_hls.models.weights import named_weights
from salt_hls.rtl import project
from salt_hls.rtl.operations import own_delay

MODEL = "salt_p4"
RESULT = Path(__file__).parents[1] / "results" / "shallow_attention.json"

CONTEXT = {
    "softmax": {"normalize": "context"},
    "types": {"attention": {"context": "ap_fixed<10,6>"}},
}
BOUNDED = {
    "softmax": {"stable": False},
    "types": {
        "attention": {
            "conv": "ap_fixed<6,3,RND,SAT>",
            "exp": "ap_ufixed<8,3,RND,SAT>",
            "sum": "ap_ufixed<8,5>",
            "reciprocal": "ap_ufixed<8,0,RND,SAT>",
            "attention": "ap_ufixed<8,1,RND>",
        }
    },
}
NARROW = {"types": {"attention": {"conv": "ap_fixed<6,3,RND,SAT>"}}}
TABLE = {
    "softmax": {"scale": "table"},
    "types": {"attention": {"logits": "ap_fixed<8,6,RND,SAT>", "conv": "ap_fixed<6,4,RND,SAT>"}},
}
QUERIES = {
    "convolution": "queries",
    "types": {
        "query_filter": "ap_fixed<8,4,RND,SAT>",
        "attention": {"logits": "ap_fixed<8,4,RND,SAT>"},
    },
}
SEPARABLE = {
    "convolution": "separable",
    "types": {
        "query_filter": "ap_fixed<8,4,RND,SAT>",
        "key_filter": "ap_fixed<8,3,RND,SAT>",
        "attention": {"logits": "ap_fixed<8,4,RND,SAT>"},
    },
}
BOTH = {"types": {"attention": {"context": "ap_fixed<10,9>", "logits": "ap_fixed<8,5,RND,SAT>"}}}
"""Wider sums: exp is not at most 1."""
SIX = {"types": {"attention": {"logits": "ap_fixed<6,3,RND,SAT>"}}}
"""Logits that go to exp without a convolution, as narrow as convolved ones."""
PARALLEL, LINEAR = {"block": "parallel"}, {"head": "linear"}


def merged(*changes: dict[str, Any]) -> dict[str, Any]:
    """Nested keys of all; of the same key the last."""
    result: dict[str, Any] = {}
    for change in changes:
        for key, value in change.items():
            nested = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if nested else value
    return result


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("salt_p4", {}),
    "context": ("normalized after the context", CONTEXT),
    "bounded": ("exp without the row's maximum, logits of 6 bits", BOUNDED),
    "softmax": ("both", merged(CONTEXT, BOUNDED, BOTH)),
    "narrow": ("logits of 6 bits", NARROW),
    "table": ("1/sqrt(D) in the table, logits of 6 bits", TABLE),
    "queries": ("filters of the queries alone", QUERIES),
    "separable": ("filters of queries and keys", SEPARABLE),
    "heights_3": ("filter heights 1, 3", {"filter_heights": [1, 3]}),
    "no_filter": ("no convolution", merged({"filter_heights": []}, NARROW, {"types": {
        "attention": {"logits": "ap_fixed<8,4,RND,SAT>"}}})),
    "parallel": ("attention and feed-forward side by side", PARALLEL),
    "linear": ("head without a hidden layer", LINEAR),
    "attention": ("softmax and queries", merged(CONTEXT, BOUNDED, BOTH, QUERIES, SIX)),
    "all": ("softmax, queries, parallel, linear",
            merged(CONTEXT, BOUNDED, BOTH, QUERIES, SIX, PARALLEL, LINEAR)),
}  # fmt: skip
SAME_FUNCTION = ("base", "context", "bounded", "narrow", "table", "softmax")


def tagger_of(changes: dict[str, Any], trained: Tagger) -> Tagger:
    """The variant with the trained weights of all layers that it shares."""
    content = yaml.safe_load((MODELS / f"{MODEL}.yaml").read_text())
    config = ModelConfig.model_validate(merged(content, changes))
    model = build_model(config, quantized=True)
    given = {
        (layer.name, name): weight.numpy()
        for layer in trained.quantized.layers
        for name, weight in named_weights(layer).items()
    }
    kernel = given["block1_attention", "kernel"]
    rows, values, columns = np.linalg.svd(kernel)
    # The larger filter fills the range of its type.
    size = values[0] ** 0.5
    outer = {"query": rows[:, 0] * size, "key": columns[0] * size}
    for what, filter_ in outer.items():
        given[f"block1_{what}_filter", "kernel"] = np.tile(filter_, (config.heads, 1))
    up, height = (len(kernel) - 1) // 2, max(config.filter_heights, default=0)
    top = up - (height - 1) // 2
    given["block1_attention", "kernel"] = kernel[top : top + height]
    for layer in model.layers:
        for name, weight in named_weights(layer).items():
            weight.assign(given[layer.name, name])
    snap_weights(model)
    return Tagger(MODEL, config, model, None, ())


def longest_path(logic: Any) -> float:
    """Through the operations, in ns."""
    ends: list[float] = []
    for op in logic.ops:
        ends.append(max((ends[i] for i in op.addr), default=0.0) + own_delay(logic, op))
    return max(ends)


def figures(tagger: Tagger) -> dict[str, Any]:
    """Of the parallel circuit."""
    types, firmware = tagger.feature_types, tagger.config.firmware
    cut: list[Any] = []
    schedule = project._schedule

    def scheduled(logic: Any, budget: float) -> Any:
        cut.append(logic)
        return schedule(logic, budget)

    with tempfile.TemporaryDirectory() as folder, patch.object(project, "_schedule", scheduled):
        graph = converted(tagger, Path(folder) / "firmware", "Vitis").graph
        made = project.generate(
            graph, Path(folder) / "rtl", clock_ns=firmware.clock_ns, feature_types=types
        )
    record = made.estimate()
    return {
        "logic_ns": round(longest_path(*cut), 1),
        "cycles": record.latency_cycles,
        "latency_ns": record.latency_ns,
        "lut": record.lut,
        "ff": record.ff,
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| | logic, ns | cycles | latency, ns | LUT | FF | accuracy, not retrained |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in found.items():
        accuracy = "" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        cells = (f"`{name}`: {row['what']}", row["logic_ns"], row["cycles"], row["latency_ns"],
                 f"{row['lut']:,}", f"{row['ff']:,}", accuracy)  # fmt: skip
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Adds the variants named on the command line, all if none, to the result."""
    salt_hls.register()
    trained = load_tagger(MODEL)
    jets, labels = sample_inputs(trained)
    for name in sys.argv[1:] or VARIANTS:
        what, changes = VARIANTS[name]
        tf.keras.backend.clear_session()
        tagger = tagger_of(changes, trained)
        accuracy = None
        if name in SAME_FUNCTION and labels is not None:
            logits = tagger.quantized.predict(jets, batch_size=1000, verbose=0)
            accuracy = round(float(np.mean(logits.argmax(axis=1) == labels)), 4)
        row = {"what": what, **figures(tagger), "accuracy": accuracy}
        sys.stderr.write(f"{name} {row}\n")
        known = json.loads(RESULT.read_text())["variants"] if RESULT.exists() else {}
        known[name] = row
        found = {key: known[key] for key in VARIANTS if key in known}
        RESULT.write_text(json.dumps({"model": MODEL, "variants": found}, indent=1) + "\n")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
