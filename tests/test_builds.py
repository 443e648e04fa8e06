"""The folder of the builds: what may be replaced, what stays, what makes a build stale."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from salt_hls.cli import commands
from salt_hls.config import ModelConfig
from salt_hls.errors import UserError
from salt_hls.firmware import build as build_module
from salt_hls.firmware import manifest
from salt_hls.firmware.build import build_firmware, checked_firmware
from salt_hls.hls.csim import Csim
from salt_hls.models.tagger import Tagger, load_tagger
from salt_hls.report import folder as report_folder
from salt_hls.report.budget import load_budget
from salt_hls.report.folder import OWN, add, build_folder
from salt_hls.report.records import BitAccuracy, Report, SynthesisRecord
from salt_hls.system.store import locked

Make = Callable[..., Path]
BUDGET = load_budget("template")

pytestmark = pytest.mark.usefixtures("few_jets")


def quiet(*_: object) -> None:
    pass


NO_GRAPH = SimpleNamespace(graph=None, hls4ml=None)


class Stub:
    """Stands for hls4ml, g++ and the comparison: builds take no time. `content`: the firmware."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.content, self.mismatches, self.built = "one", 0, 0
        for name, stand_in in {
            "converted": lambda *_: NO_GRAPH,
            "split_outputs": lambda *_: [],
            "write_and_compile": self.write,
            "compare_all": self.compare,
            "write_testbench": quiet,
            "physics_of": lambda *_: None,
        }.items():
            monkeypatch.setattr(build_module, name, stand_in)
        monkeypatch.setattr(manifest, "graph_digest", lambda _: "graph")

    def write(self, tagger: Any, folder: Path, *_: object) -> Any:
        self.built += 1
        for name in ("firmware", "csim"):
            (folder / name).mkdir()
        (folder / "firmware/x.cpp").write_text(self.content)
        csim = Csim(folder / "csim/mine.so", "mine", {}, ())
        return SimpleNamespace(folder=folder / "firmware", converted=NO_GRAPH, csim=csim)

    def compare(self, model: Any, graph: Any, csim: Any, inputs: Any, *_: object) -> Any:
        examples: list[Any] = [{"event": 0, "index": [0], "expected": 0.0, "got": 1.0}]
        bits = BitAccuracy(
            pair="keras/csim",
            layer="x",
            events=len(inputs),
            values=len(inputs),
            mismatches=self.mismatches,
            max_lsb=0,
            examples=examples[: self.mismatches],
        )
        return [bits], np.zeros((len(inputs), 5))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(monkeypatch)


def built(path: Path, build: Path) -> Path:
    build_firmware(str(path), "Vitis", build, BUDGET, 1, quiet)
    return build / path.stem


def tree(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def figures(source: str) -> SynthesisRecord:
    return SynthesisRecord(source=source, stage="estimate", tool=source, lut=7)


# ---- what may be replaced


def test_the_commands_own_folders_are_known() -> None:
    used = re.findall(r'build / "(\w+)"', inspect.getsource(commands))
    assert {*used, commands.CACHE} <= {*OWN} and {"bench", "results"} <= {*used}
    from salt_hls.training.run import STATE, TRAINED

    assert {STATE, TRAINED} <= {*OWN}


@pytest.mark.parametrize("name", [*OWN, ".hidden", "x.failed", "x.old", "x.tmp", "x.lock"])
def test_names_that_the_folder_needs_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"model '{re.escape(name)}': .*rename the model's file"):
        build_folder(tmp_path, name)
    for good in ("salt_p4", "training", "x.old.y", "x_tmp"):
        assert build_folder(tmp_path, good) == tmp_path / good


@pytest.mark.parametrize("verb", ["firmware", "rtl", "synth", "diagnose"])
def test_such_a_model_deletes_nothing(verb: str, small_model: Make, tmp_path: Path) -> None:
    state = tmp_path / "build" / "train" / "small" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("of a night")
    before = tree(tmp_path / "build")
    path = small_model("train", weights=False)
    result = CliRunner().invoke(commands.app, [verb, str(path), "--build", str(tmp_path / "build")])
    assert isinstance(result.exception, UserError)
    assert "model 'train': the folder of the builds needs that name" in str(result.exception)
    assert tree(tmp_path / "build") == before


@pytest.mark.parametrize("name", ["small", "small.failed"])
@pytest.mark.parametrize("kind", ["folder", "manifest", "file", "link"])
def test_what_is_no_build_stays(
    name: str, kind: str, small_model: Make, tmp_path: Path, stub: Stub
) -> None:
    place, elsewhere = tmp_path / "build" / name, tmp_path / "elsewhere"
    place.parent.mkdir()
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("mine")
    if kind == "file":
        place.write_text("mine")
    elif kind == "link":
        place.symlink_to(elsewhere)
    else:
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
        if kind == "manifest":  # of another program
            (place / "manifest.json").write_text('{"name": "mine", "version": 1}')
    before = tree(tmp_path / "build"), tree(elsewhere)
    with pytest.raises(UserError, match=rf"{place}: is .* and stays"):
        built(small_model(), tmp_path / "build")
    assert (tree(tmp_path / "build"), tree(elsewhere)) == before and stub.built == 0
    assert place.is_symlink() == (kind == "link")


def test_what_others_put_into_a_build_stays(small_model: Make, tmp_path: Path, stub: Stub) -> None:
    path, build = small_model(), tmp_path / "build"
    (build / "small/diagnose").mkdir(parents=True)  # `salt-hls diagnose` before any build
    (build / "small/diagnose/diagnose.json").write_text("signs")
    folder = built(path, build)
    (folder / "notes.txt").write_text("mine")
    (folder / "rtl").mkdir()
    (folder / "rtl/top.v").write_text("rtl of one")
    add([figures("yosys")], folder, BUDGET)

    built(path, build)  # the same firmware keeps its RTL and figures
    assert (folder / "rtl/top.v").read_text() == "rtl of one"
    assert [r.source for r in Report.read(folder / "report.json").synthesis] == ["yosys"]
    stub.content = "two"  # another makes them history
    built(path, build)
    assert not (folder / "rtl").exists()
    assert Report.read(folder / "report.json").synthesis == []
    (old,) = (folder / "history").iterdir()
    assert [r.source for r in Report.read(old).synthesis] == ["yosys"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "diagnose/diagnose.json").read_text() == "signs"

    before = tree(folder)
    stub.mismatches, stub.content = 1, "three"
    for _ in range(2):  # the second replaces the first's
        built(path, build)
        assert tree(folder) == before
        assert (build / "small.failed/firmware/x.cpp").read_text() == "three"
    left = {p.name for p in build.iterdir() if not p.name.endswith(".lock")}
    assert left == {"small", "small.failed"}


def test_figures_of_other_jets_are_not_kept(
    small_model: Make, tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the firmware are the same, but its RTL was simulated with other inputs."""
    folder = built(small_model(), tmp_path / "build")
    add([figures("verilator")], folder, BUDGET)
    load = build_module.sample_inputs

    def fewer(tagger: Any) -> Any:
        inputs, labels = load(tagger)
        return inputs[:-1], labels[:-1]

    monkeypatch.setattr(build_module, "sample_inputs", fewer)
    built(small_model(), tmp_path / "build")
    assert Report.read(folder / "report.json").synthesis == []


# ---- what makes a build stale


def test_checked_firmware_is_that_of_the_present_model(
    small_model: Make, tmp_path: Path, stub: Stub
) -> None:
    """A saved Keras model: whatever its YAML says counts, not only what is in the graph."""
    path, build = tmp_path / "mine.keras", tmp_path / "build"
    load_tagger(str(small_model())).quantized.save(path)
    content = yaml.safe_load((tmp_path / "small.yaml").read_text())

    def builds() -> int:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
        before = stub.built
        checked_firmware(str(path), None, build, BUDGET, 1, quiet)
        return stub.built - before

    assert builds() == 1
    assert builds() == 0
    content["firmware"] = {"clock_ns": 5.0}
    assert builds() == 1
    (build / "mine/csim/simulated.npz").unlink()
    assert builds() == 1


def test_the_key_of_a_build(
    small_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(small_model(weights=False).read_text())
    files = [tmp_path / name for name in ("small.weights.h5", "ordering.py")]
    for file in files:
        file.write_text("1")
    told = {"graph": "graph", "compiler": "g++ 12"}
    monkeypatch.setattr(manifest, "graph_digest", lambda _: told["graph"])
    monkeypatch.setattr(manifest, "compiler", lambda: told["compiler"])
    monkeypatch.setattr(manifest, "FIRMWARE_CODE", files[1:])
    backend: Any = "Vitis"

    def key() -> str:
        config = ModelConfig.model_validate(content)
        tagger = Tagger("small", config, None, None, (files[0],))
        return manifest.key_of(tagger, None, backend)

    keys = [key()]
    assert key() == keys[0]
    content["firmware"] = {"clock_ns": 5.0}
    keys.append(key())
    content["firmware"] = {"part": "xcu250-figd2104-2L-e"}
    keys.append(key())
    content["firmware"] = {"io_type": "io_stream", "particles_per_clock": 2}
    keys.append(key())
    content["inputs"]["order"] = "pt"
    keys.append(key())
    content["inputs"]["pt"] = {**content["inputs"]["pt"], "scale": 0.3}
    keys.append(key())
    content["inputs"]["pt"] = {**content["inputs"]["pt"], "curve": "linear"}
    keys.append(key())
    for file in files:
        file.write_text("2")
        keys.append(key())
    for what in told:
        told[what] = "other"
        keys.append(key())
    backend = "Vivado"
    keys.append(key())
    assert len(set(keys)) == len(keys) == 12


def test_the_compilers_version_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "g++"
    program.write_text("#!/bin/sh\necho 'g++ (mine) 99.1'\necho more\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifest.compiler() == "g++ (mine) 99.1"
    program.unlink()
    assert manifest.compiler() is None


# ---- several at a time, and killed


def test_a_build_that_a_killed_run_took_away_is_there_again(
    small_model: Make, tmp_path: Path, stub: Stub
) -> None:
    path, build = small_model(), tmp_path / "build"
    folder = built(path, build)
    before = tree(folder)
    old = folder.with_name(".small.old")
    for use in (
        lambda: checked_firmware(str(path), None, build, BUDGET, 1, quiet),
        lambda: add([], folder, BUDGET),
    ):
        folder.rename(old)
        use()
        assert tree(folder) == before and not old.exists()
    assert stub.built == 1


def test_a_report_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `salt-hls firmware` of the model first"):
        add([], tmp_path / "build" / "small", BUDGET)
    assert not (tmp_path / "build").exists()


ADD = """
import sys
from pathlib import Path
from salt_hls.report.budget import load_budget
from salt_hls.report.folder import add
from salt_hls.report.records import SynthesisRecord
for n in range(10):
    record = SynthesisRecord(source=f"{sys.argv[2]}{n}", stage="estimate", tool="x", lut=n)
    add([record], Path(sys.argv[1]), load_budget("template"))
"""


def test_reports_that_change_at_once_lose_nothing(tmp_path: Path) -> None:
    Report(model="small").write(tmp_path / "small/report.json")
    runs = [
        subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path / "small"), name])
        for name in ("a", "b")
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    sources = [r.source for r in Report.read(tmp_path / "small/report.json").synthesis]
    assert sorted(sources) == sorted(f"{name}{n}" for name in "ab" for n in range(10))


def test_a_report_can_be_judged_while_a_synthesis_runs(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    Report(model="small").write(folder / "report.json")
    judged: list[Report] = []
    with locked(folder):  # as `salt-hls synth` does for an hour
        other = threading.Thread(target=lambda: judged.append(add([], folder, BUDGET)))
        other.start()
        other.join(60)
        assert len(judged) == 1
        with report_folder.changing(folder):  # but not while the folder is replaced
            other = threading.Thread(target=lambda: judged.append(add([], folder, BUDGET)))
            other.start()
            other.join(0.5)
            assert len(judged) == 1
        other.join(60)
        assert len(judged) == 2


def test_the_second_run_says_that_it_waits(small_model: Make, tmp_path: Path) -> None:
    """And can be interrupted while it does."""
    build = tmp_path / "build"
    command = [Path(sys.executable).with_name("salt-hls"), "firmware", small_model()]
    with locked(build / "small"):
        run = subprocess.Popen(
            [*map(str, command), "--build", str(build)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "20"},
        )
        assert run.stderr is not None
        assert (
            run.stderr.readline() == f"salt-hls: waiting for another run on {build}/small to end\n"
        )
        run.send_signal(signal.SIGINT)
        _, rest = run.communicate(timeout=60)
    assert run.returncode == 1 and "interrupted" in rest and "Traceback" not in rest
    assert tree(build) == {}
