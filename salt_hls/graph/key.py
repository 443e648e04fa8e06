"""Keys of what is made from a graph: what is in them, and which code."""

from __future__ import annotations

from pathlib import Path

from salt_hls.graph.graph import Graph
from salt_hls.system.digest import digest
from salt_hls.system.paths import HLS_TEMPLATES, PACKAGE


def _code(*patterns: str, without: tuple[str, ...]) -> list[Path]:
    left_out = {path for pattern in without for path in PACKAGE.glob(pattern)}
    found = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    return sorted(found - left_out | {*HLS_TEMPLATES.glob("*.h")})


_TEST_CASES = "layers/**/cases.py"
CODE = _code(
    "fixed.py",
    "graph/*.py",
    "layers/**/*.py",
    "hls/*.py",
    "check/*.py",
    "firmware/*.py",
    "rtl/*.py",
    "rtl/*.v",
    "rtl/*.cpp",
    "rtl/*.json",
    without=(_TEST_CASES,),
)
"""What makes firmware and RTL from a graph, and simulates them."""

FIRMWARE_CODE = _code(
    "**/*.py",
    "rtl/*.v",
    "rtl/*.cpp",
    "rtl/*.json",
    without=(
        _TEST_CASES,
        "cli/*.py",
        "jets/generator.py",
        "jets/plots.py",
        "jets/readers/**/*.py",
        "studies/*.py",
        "training/run.py",
        "training/train.py",
    ),
)
"""What makes checked firmware and its report from a model and the shipped jets: no training, no
reading of other jets."""


def graph_digest(graph: Graph) -> str:
    """Digest of a graph: operations, wiring, types, weights, and the code that makes RTL of it."""
    return digest(graph, CODE)
