"""Verbs as a user calls them: what they print, what they write, and that it is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_ablations import PHASE, SMALL
from typer.testing import CliRunner

from salt_hls.cli import app
from salt_hls.config import MODELS, ROOT
from salt_hls.firmware import csim, golden
from salt_hls.jets import generator
from salt_hls.jets.dataset import CLASSES, JetSet


def called(*arguments: object) -> str:
    """What a command that must succeed prints, line breaks taken out."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csim, "COMPILE_FLAGS", ("-std=c++11", "-O0", "-fPIC", "-shared", "-w"))


@pytest.mark.usefixtures("quick_compiler")
def test_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renews a changed file and says what changed; then nothing has."""
    committed = golden.read_golden("salt_p4_n16")
    monkeypatch.setattr(golden, "GOLDEN", tmp_path)
    changed = committed.copy()
    changed[7, 2] += 5
    golden.write_golden("salt_p4_n16", changed)
    printed = called("golden", "salt_p4_n16", "--build", tmp_path / "build")
    assert printed == ("salt_p4_n16: 1 of 2500 logits changed in 1 of 500 jets, by up to 5 LSB")
    assert np.array_equal(golden.read_golden("salt_p4_n16"), committed)


@pytest.mark.usefixtures("quick_compiler", "few_jets")
def test_bench(small_model: Callable[..., Path], tmp_path: Path) -> None:
    printed = called("bench", small_model(), "--build", tmp_path / "build")
    path = tmp_path / "build" / "bench" / "small.json"
    result = json.loads(path.read_text())
    assert result["model"] == "small" and result["jets"] > 300
    rates, each = result["csim_jets_per_s"], result["csim_jets_per_s_per_core"]
    assert rates["1"] == each["1"] > 0 and rates.keys() == {"1", str(result["cores"])}
    assert all(rate == pytest.approx(rates[w] / int(w), abs=0.1) for w, rate in each.items())
    assert result["write_and_compile_s"] > 0 and result["peak_memory_mb"] > 100
    assert f"jets: {result['jets']}" in printed


def test_results_trains_a_row_and_writes_its_tables(tmp_path: Path) -> None:
    base = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    training = {"float_phases": [PHASE], "quantized_phases": [PHASE]}
    row = {"group": "all", "what": "the base", "against": None, "seeds": 1}
    study = {
        "training_jets": 200, "validation_jets": 60, "margin": 0.003,
        "base": {**base, **SMALL, "training": training}, "groups": {"all": "All rows"},
        "rows": {"base": row},
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
    printed = called("results", "base", *common)
    assert str(page) in printed.replace(" ", "")
    record = json.loads(path.with_suffix(".json").read_text())
    first = page.read_text()
    assert "the base" in first and "base-1" in json.dumps(record)
    called("results", "--render", *common)
    assert page.read_text() == first
    assert json.loads(path.with_suffix(".json").read_text()) == record


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "EVENTS_PER_CHUNK", 3)
    printed = called("data", "--jets", 100, "--data", tmp_path / "jets")
    names = {f"{split}.h5" for split in (*generator.SPLITS, "sample")}
    assert names <= {path.name for path in (tmp_path / "jets").iterdir()}
    assert all(name in printed for name in names)
    assert (tmp_path / "jets" / "classes.png").stat().st_size > 1000
    train = JetSet.read(tmp_path / "jets" / "train.h5")
    assert train.classes == CLASSES and set(train.labels) == set(range(5))
    assert np.all(train.constituents[:, 0, 0] > 0)
    stamp = (tmp_path / "jets" / "train.h5").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "jets" / "chunks", ignore_errors=True)
    assert stamp > 0


def test_data_needs_a_sensible_number(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "--jets", "99", "--data", str(tmp_path / "jets")])
    assert done.exit_code == 2 and not (tmp_path / "jets").exists()
