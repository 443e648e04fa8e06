"""The CI jobs of docs/ci.md, run as a CI runs them in a project that uses salt-hls."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import yaml
from conftest import without_progress

from salt_hls.cli import main
from salt_hls.hls import csim
from salt_hls.system.paths import CHECKOUT as ROOT

Make = Callable[..., Path]
DOCS = ROOT / "docs" / "ci"
LSB = 2.0**-5
"""Of the weights of the last layer."""

Ended = tuple[str | None, str, list[str]]
"""The command that fails and ends the job, if any, what it prints, and its lines of errors."""


def github() -> list[str]:
    (job,) = yaml.safe_load((DOCS / "github.yml").read_text())["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step]


def gitlab() -> list[str]:
    (job,) = yaml.safe_load((DOCS / "gitlab.yml").read_text()).values()
    commands: list[str] = job["script"]
    return commands


class Project:
    """A project that uses salt-hls: a model, its weights, a budget."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        for suffix in (".yaml", ".weights.h5"):
            shutil.copy(model.with_name(f"small{suffix}"), self.file(suffix))
        shutil.copy(DOCS / "budget.yaml", self.folder)

    def file(self, suffix: str) -> Path:
        return self.folder / f"model{suffix}"


def in_a_shell(project: Project) -> Callable[..., Ended]:
    """As a CI does it; only what is installed is here already."""
    tools = project.folder.with_name("tools")
    tools.mkdir()
    start = (
        f"#!{sys.executable}\nif __name__ == '__main__':\n    from salt_hls.cli.main import main\n"
    )
    for name, text in {"pip": "#!/bin/sh\n", "salt-hls": f"{start}    main()\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def job(*commands: str) -> Ended:
        for command in commands:
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", command], cwd=project.folder,
                env=environment, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            lines = without_progress(done.stderr)
            if done.returncode:
                assert done.returncode == 1, done.stderr
                return command, done.stdout, lines
            assert not lines, lines
        return None, done.stdout, []

    return job


def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The same commands within this process, which has loaded TensorFlow."""

    def job(*commands: str) -> Ended:
        printed = ""
        for command in commands:
            program, *arguments = shlex.split(command)
            if program == "pip":
                continue
            assert program == "salt-hls"
            status = main.run(arguments)
            printed, said = capsys.readouterr()
            lines = without_progress(said)
            if status:
                assert status == 1, said
                return command, printed, lines
            assert not lines, lines
        return None, printed, []

    return job


def test_both_jobs_do_the_same() -> None:
    install, *commands = github()
    assert gitlab() == [install, *commands]
    assert install == 'pip install "salt-hls[rtl]"'
    assert [command.split()[1] for command in commands] == ["firmware", "golden", "synth", "report"]


@pytest.mark.slow
def test_the_job_in_a_shell(small_model: Make, tmp_path: Path) -> None:
    project = Project(tmp_path, small_model())
    is_green_and_can_be_red(project, in_a_shell(project), 500)


@pytest.mark.usefixtures("few_jets")
def test_the_job(
    small_model: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = Project(tmp_path, small_model())
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(csim, "COMPILE_FLAGS", ("-std=c++11", "-O0", "-fPIC", "-shared", "-w"))
    is_green_and_can_be_red(project, in_process(capsys), 300)


def is_green_and_can_be_red(project: Project, job: Callable[..., Ended], jets: int) -> None:
    commands = github()
    firmware, check, synth, report = commands[1:]

    failed, _, lines = job(*commands)
    assert failed == check and lines == [
        "salt-hls: model.golden.csv: no golden logits yet; `salt-hls golden model.yaml` writes them"
    ]

    assert job("salt-hls golden model.yaml") == (
        None, "model: new, in model.golden.csv\n", []
    )  # fmt: skip
    golden = project.file(".golden.csv").read_bytes()
    assert golden.count(b"\n") == jets + 3

    assert job(check) == (None, "model: no bit changed\n", [])
    failed, printed, _ = job(synth, report)
    assert failed is None and "pass, estimate" in printed

    budget = project.folder / "budget.yaml"
    budget.write_text(budget.read_text().replace("lut: 0.5", "lut: 0.001"))
    failed, printed, _ = job(report)
    assert failed == report and "fail, estimate" in printed

    with h5py.File(project.file(".weights.h5"), "r+") as weights:
        bias = weights["classes/bias"]
        bias[2] = bias[2] + (LSB if bias[2] < 0 else -LSB)
    failed, _, lines = job(*commands)
    assert failed == check, lines
    (line,) = lines
    found = re.fullmatch(
        rf"salt-hls: model: (\d+) of {5 * jets} logits changed in (\d+) of {jets} jets, "
        r"by up to 4 LSB, first in jet \d+; since then model.weights.h5 changed; "
        r"`salt-hls golden model.yaml` accepts them",
        line,
    )
    assert found and int(found[1]) == int(found[2]) > 0.8 * jets, line
    assert project.file(".golden.csv").read_bytes() == golden
