"""Graphs shared by the RTL tests: built once."""

from __future__ import annotations

import pytest

from salt_hls.graph.graph import Graph
from salt_hls.hls.reader import read_graph

from .graphs import convert, tagger


@pytest.fixture(scope="session")
def tagger_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return read_graph(convert(tagger(), tmp_path_factory.mktemp("tagger") / "project"))
