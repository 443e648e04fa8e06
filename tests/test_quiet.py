"""TensorFlow loads without a word; what salt-hls says meanwhile is heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHATTERING = """
import os, pathlib, time
os.write(2, b"oneDNN custom operations are on\\n")
pathlib.Path(__file__).with_name("loading").touch()
time.sleep({seconds})
"""


def started(program: str, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A program that finds a `tensorflow` that chatters and takes its time."""
    place = folder / "packages"
    place.mkdir()
    (place / "tensorflow.py").write_text(CHATTERING.format(seconds=seconds))
    path = os.pathsep.join([str(place), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def test_only_its_own_loading_is_silent(tmp_path: Path) -> None:
    program = (
        "import os; from salt_hls.system.quiet import quiet_tensorflow; quiet_tensorflow()\n"
        "os.write(2, b'before, '); import tensorflow; os.write(2, b'after')"
    )
    assert started(program, tmp_path, 0).communicate(timeout=60)[1] == "before, after"


def test_an_interruption_meanwhile_is_told(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = ['firmware', 'salt_p4', '--build', 'build']\n"
        "from salt_hls.cli.main import main; main()"
    )
    process = started(program, tmp_path, 60)
    marker = tmp_path / "packages" / "loading"
    deadline = time.monotonic() + 60
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "salt-hls: interrupted" in said
    assert "oneDNN" not in said and "Traceback" not in said
