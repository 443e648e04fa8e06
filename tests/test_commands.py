"""Verbs as a user calls them: what they print, what they write, and that it is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_ablations import PHASE, SMALL
from typer.testing import CliRunner

from salt_hls import config
from salt_hls.cli import app
from salt_hls.config import MODELS
from salt_hls.firmware import csim, golden
from salt_hls.jets import generator
from salt_hls.jets.dataset import JetSet
from salt_hls.paths import CHECKOUT as ROOT


def called(*arguments: object) -> str:
    """What a command that must succeed prints, line breaks taken out."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csim, "COMPILE_FLAGS", ("-std=c++11", "-O0", "-fPIC", "-shared", "-w"))


@pytest.mark.usefixtures("quick_compiler", "few_jets")
def test_golden(
    small_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all shipped models, here a small one: new, then changed and renewed."""
    monkeypatch.setattr(config, "MODELS", small_model().parent)
    monkeypatch.setattr(golden, "GOLDEN", tmp_path / "golden")
    (tmp_path / "golden").mkdir()
    build = ("--build", tmp_path / "build")
    assert called("golden", *build) == "small: new"
    logits = golden.read_golden("small")
    assert logits.shape == (300, 5) and len(np.unique(logits)) > 10
    changed = logits.copy()
    changed[7, 2] += 5
    golden.write_golden("small", changed)
    difference = "1 of 1500 logits changed in 1 of 300 jets, by up to 5 LSB"
    assert called("golden", "small", *build) == f"small: {difference}"
    assert np.array_equal(golden.read_golden("small"), logits)


@pytest.mark.usefixtures("quick_compiler", "few_jets")
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


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 12 collisions; one that is lost is made again, and the others are kept."""
    calls: list[tuple[int, int]] = []
    generate = generator.generate

    def small(jets: int, folder: Path, workers: int, progress: Callable[[int, int], None]) -> Any:
        def told(done: int, total: int) -> None:
            calls.append((done, total))
            progress(done, total)

        return generate(jets, folder, workers, told, collisions=12)

    monkeypatch.setattr(generator, "generate", small)
    folder = tmp_path / "jets"
    printed = called("data", "--jets", 100, "--data", folder)
    files = [folder / f"{name}.h5" for name in ("train", "validation", "test", "sample")]
    place = folder / "classes.png"
    assert printed.replace(" ", "") == f"jetsin{','.join(map(str, files))};plotin{place}"
    assert place.read_bytes()[:4] == b"\x89PNG" and calls[0] == (0, 180) and calls[-1] == (180, 180)
    for path in files:
        jets = JetSet.read(path)
        assert set(jets.labels) == set(range(5)) and np.all(jets.constituents[:, 0, 0] > 0)
    assert len(JetSet.read(files[0])) > 5 * 12
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "chunks").iterdir()}
    lost = next(iter(stamps))
    lost.unlink()
    calls.clear()
    called("data", "--jets", 100, "--data", folder)
    assert calls[0] == (168, 180)
    again = {p: p.stat().st_mtime_ns for p in (folder / "chunks").iterdir()}
    assert [p for p in stamps if again[p] != stamps[p]] == [lost]


def test_data_needs_a_sensible_number(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "--jets", "99", "--data", str(tmp_path / "jets")])
    assert done.exit_code == 2 and not (tmp_path / "jets").exists()
