"""`salt-hls quickstart`: trained and built from what is shipped, nothing shipped touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import without_progress

from salt_hls.cli import commands, main
from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.hls import csim
from salt_hls.jets.dataset import CLASSES
from salt_hls.report.records import Report
from salt_hls.training.run import Result


def runs(folder: Path, jets: int, capsys: pytest.CaptureFixture[str]) -> None:
    """jets: all that it has, to train, validate and test."""
    shipped = {p: p.stat().st_mtime_ns for p in MODELS.rglob("*")}
    assert main.run(["quickstart"]) == 0
    printed, said = capsys.readouterr()
    assert without_progress(said) == []
    assert {p: p.stat().st_mtime_ns for p in MODELS.rglob("*")} == shipped
    build = folder / "build"
    assert [p.name for p in folder.iterdir()] == ["build"]
    result = Result.model_validate_json((build / "trained/quickstart.metrics.json").read_text())
    report = Report.read(build / "quickstart/report.json")
    assert report.bit_exact and report.physics is not None and report.physics.events == jets
    tested = result.quantized.events
    assert result.training_jets + 2 * tested == jets
    assert f"trained on {result.training_jets:,} jets of sample.h5" in printed
    assert f"a demonstration, no good tagger. Judge it by the {tested} test jets" in printed
    assert "report build/quickstart/report.html" in printed
    assert "`salt-hls train mine.yaml` of a copy of build/trained/quickstart.yaml" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("few_jets")
def test_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(commands.QUICKSTART.read_text())
    phase = {"batch": 128, "epochs": 1, "patience": 1, "learning_rate": 0.01}
    content["training"] = {"float_phases": [phase], "quantized_phases": [phase]}
    path = tmp_path / "short" / "quickstart.yaml"
    for place in (path.parent, tmp_path / "here"):
        place.mkdir()
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(commands, "QUICKSTART", path)
    monkeypatch.setattr(csim, "COMPILE_FLAGS", ("-std=c++11", "-O0", "-fPIC", "-shared", "-w"))
    monkeypatch.chdir(tmp_path / "here")
    runs(tmp_path / "here", 300, capsys)


@pytest.mark.slow
def test_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs(tmp_path, 6000, capsys)
    result = Result.model_validate_json(Path("build/trained/quickstart.metrics.json").read_text())
    assert result.quantized.accuracy > 0.4  # a guess is 0.2


def test_its_model() -> None:
    config = load_yaml(commands.QUICKSTART, ModelConfig)
    assert config.classes == len(CLASSES) and config.training and config.types
    assert commands.QUICKSTART.is_relative_to(MODELS)
