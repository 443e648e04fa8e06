"""Which Python `make` sets its environment up with, and what it says when there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from salt_hls.system.paths import CHECKOUT as ROOT

PYTHON = """#!/bin/sh
case "$2" in
*ensurepip*) exit {venv} ;;
*print*) echo {version} ;;
*) case {version} in 3.1[0-3]) exit 0 ;; *) exit 1 ;; esac ;;
esac
"""
"""Answers as a Python of this version; it cannot make environments where `venv` is 1."""

BROKEN = "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"


def said(folder: Path, *arguments: str, **pythons: str) -> str:
    """The one line on the standard error of `make lint` where these are all the programs."""
    tools = folder / "tools"
    tools.mkdir()
    for name, text in pythons.items():
        program = tools / name.replace("_", ".")
        program.write_text(text)
        program.chmod(0o755)
    make = shutil.which("make") or "make"
    command = [make, "--no-print-directory", "lint", f"VENV={folder}/venv", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and not (folder / "venv").exists()
    line, ending = done.stderr.splitlines()
    assert "Error 1" in ending
    return line


def test_the_newest_that_runs_and_fits_is_taken(tmp_path: Path) -> None:
    """All but one run or fit; that one is known by what it cannot do."""
    line = said(
        tmp_path,
        python3_13=BROKEN,
        python3_12=PYTHON.format(version="3.12", venv=1),
        python3_11=PYTHON.format(version="3.11", venv=1),
        python3=PYTHON.format(version="3.14", venv=0),
    )
    assert line == (
        "salt-hls: python3.12 cannot make an environment; on Debian and Ubuntu: apt install "
        "python3.12-venv"
    )


@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7"])
def test_none_that_fits(version: str, tmp_path: Path) -> None:
    line = said(tmp_path, python3=PYTHON.format(version=version, venv=0))
    assert line.startswith("salt-hls: no Python 3.10 to 3.13 found; install one")


def test_one_given_that_does_not_fit_or_run(tmp_path: Path) -> None:
    old = PYTHON.format(version="3.9", venv=0)
    (tmp_path / "first").mkdir()
    line = said(tmp_path / "first", "PYTHON=python3", python3=old)
    assert line == "salt-hls: needs Python 3.10 to 3.13, PYTHON=python3 is 3.9; give another"
    (tmp_path / "second").mkdir()
    line = said(tmp_path / "second", "PYTHON=python3.12", python3_12=BROKEN)
    assert line == "salt-hls: PYTHON=python3.12 does not run"
