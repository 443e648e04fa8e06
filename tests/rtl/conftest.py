"""Graphs shared by the RTL tests: built once."""

from __future__ import annotations

from typing import Any

import pytest

from .graphs import convert, tagger


@pytest.fixture(scope="session")
def tagger_graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return convert(tagger(), tmp_path_factory.mktemp("tagger") / "project")
