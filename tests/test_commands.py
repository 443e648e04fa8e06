"""Verbs as a user calls them: what they print, what they write, and that it is right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_studies import PHASE, SMALL
from typer.testing import CliRunner

from salt_hls import config
from salt_hls.check import regression
from salt_hls.cli import commands, main
from salt_hls.cli.commands import app
from salt_hls.config import MODELS
from salt_hls.firmware import build as build_module
from salt_hls.jets.dataset import JetSet
from salt_hls.system.paths import CHECKOUT as ROOT


def called(*arguments: object) -> str:
    """What a command that must succeed prints, line breaks taken out."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


@pytest.mark.usefixtures("few_jets")
def test_golden_of_all_shipped_models(
    small_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here of a small one: none, new, changed, renewed; the firmware is built once."""
    path = small_model()
    for module in (config, commands):
        monkeypatch.setattr(module, "MODELS", path.parent)
    place = tmp_path / "golden" / "small.csv"
    monkeypatch.setattr(regression, "GOLDEN", place.parent)
    build = ("--build", tmp_path / "build")
    check = ["golden", "--check", *map(str, build)]
    assert main.run(check) == 1 and not (tmp_path / "build").exists()
    said = capsys.readouterr().err
    assert said == f"salt-hls: {place}: no golden logits yet; `salt-hls golden small` writes them\n"
    assert called("golden", *build) == f"small: new, in {place}"
    first, written = regression.read_golden(place, "small"), place.read_bytes()
    assert first.logits.shape == (300, 5) and len(np.unique(first.logits)) > 10
    assert [*first.digests] == ["small.yaml", "small.weights.h5"]
    monkeypatch.setattr(build_module, "build_firmware", None)
    assert called(*check) == "small: no bit changed"
    changed = first.logits.copy()
    changed[7, 2] += 5
    regression.write_golden(place, dataclasses.replace(first, logits=changed))
    difference = (
        "small: 1 of 1500 logits changed in 1 of 300 jets, by up to 5 LSB, first in jet 7; "
        "small.yaml and small.weights.h5 are the same: salt-hls, hls4ml or the compiler changed"
    )
    assert main.run(check) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == f"salt-hls: {difference}; `salt-hls golden small` accepts them"
    assert called("golden", "small", *build) == f"{difference}, in {place}"
    assert place.read_bytes() == written


@pytest.mark.usefixtures("few_jets")
def test_bench(small_model: Callable[..., Path], tmp_path: Path) -> None:
    printed = called("bench", small_model(), "--build", tmp_path / "build")
    path = tmp_path / "build" / "bench" / "small.json"
    result = json.loads(path.read_text())
    assert result["model"] == "small" and result["jets"] == 300
    rates, each = result["csim_jets_per_s"], result["csim_jets_per_s_per_core"]
    assert rates["1"] == each["1"] > 0 and rates.keys() == {"1", str(result["cores"])}
    assert all(rate == pytest.approx(rates[w] / int(w), abs=0.1) for w, rate in each.items())
    assert result["write_and_compile_s"] > 0 and result["peak_memory_mb"] > 100
    assert f"jets: {result['jets']}" in printed


def test_results_trains_a_row_and_writes_its_tables(tmp_path: Path) -> None:
    base = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    training = {"float_phases": [PHASE], "quantized_phases": [PHASE]}
    rows = {
        "base": {"group": "all", "what": "the base", "against": None, "seeds": 1},
        "first": {"group": "all", "what": "in order of pT", "seeds": 1},
    }
    rows["first"]["changes"] = {"inputs": {"order": "pt"}}
    study = {
        "training_jets": 200, "validation_jets": 60, "margin": 0.003,
        "base": {**base, **SMALL, "training": training}, "groups": {"all": "All rows"},
        "rows": rows,
    }  # fmt: skip
    path = tmp_path / "results" / "study.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    page = tmp_path / "results.md"
    page.write_text((ROOT / "docs" / "results.md").read_text())
    jets = JetSet.read(MODELS / "sample.h5", slice(0, 500))
    for split, rows in (("train", (0, 200)), ("validation", (200, 300)), ("test", (300, 500))):
        jets[slice(*rows)].write(tmp_path / f"{split}.h5")
    common = ("--study", path, "--data", tmp_path, "--build", tmp_path / "build", "--jobs", 1)
    printed = called("results", *common)
    assert str(page) in printed.replace(" ", "")
    record = json.loads(path.with_suffix(".json").read_text())
    first = page.read_text()
    assert "| in order of pT | 1 |" in first
    assert [r["row"] for r in record["runs"]] == ["base", "first"]
    called("results", "--render", *common)
    assert page.read_text() == first
    assert json.loads(path.with_suffix(".json").read_text()) == record


def test_data(tmp_path: Path) -> None:
    """A chunk that is lost is made again, and the others are kept; then more jets are wanted."""
    folder = tmp_path / "jets"
    files = [folder / f"{name}.h5" for name in ("train", "validation", "test", "sample")]

    def sizes(*options: object) -> list[list[int]]:
        printed = called("data", "--data", folder, *options)
        place = folder / "classes.png"
        assert printed.startswith(
            f"jets in {', '.join(map(str, files))}; plot in {place} simulated"
        )
        assert place.read_bytes()[:4] == b"\x89PNG"
        read = [JetSet.read(path) for path in files]
        assert all(np.all(jets.constituents[:, 0, 0] > 0) for jets in read)
        return [np.bincount(jets.labels).tolist() for jets in read]

    assert sizes("--jets", 103) == [[17, 17, 17, 16, 16], [2] * 5, [2] * 5, [2] * 5]
    whole = [path.read_bytes() for path in files]
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "chunks").iterdir()}
    lost = next(iter(stamps))
    lost.unlink()
    sizes("--jets", 103)
    again = {p: p.stat().st_mtime_ns for p in (folder / "chunks").iterdir()}
    assert [p for p in stamps if again[p] != stamps[p]] == [lost]
    assert [path.read_bytes() for path in files] == whole
    assert sizes("--jets", 150) == [[24] * 5, [3] * 5, [3] * 5, [3] * 5]


def test_data_needs_a_sensible_number(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "--jets", "99", "--data", str(tmp_path / "jets")])
    assert done.exit_code == 2 and not (tmp_path / "jets").exists()
