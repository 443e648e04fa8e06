"""Jobs for tests: functions that worker processes import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from salt_hls.errors import UserError
from salt_hls.system.processes import run, tell
from salt_hls.system.store import replacing


def square(number: int, folder: Path, output: Path) -> None:
    """Tells it, and leaves a trace of every call in `folder`."""
    tell(f"at {number}")
    (folder / f"{number}.{os.getpid()}.{time.monotonic_ns()}").touch()
    if number < 0:
        raise UserError(f"{number} is negative")
    with replacing(output) as partial:
        partial.write_text(str(number**2))


def defect(output: Path) -> None:
    raise TypeError(f"a defect in {output.name}")


def deadly(times: int, tries: Path, output: Path) -> None:
    """Dies so many times."""
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    output.write_text("done")


def large(size: int, output: Path) -> None:
    held = bytearray(os.urandom(4096)) * (size // 4096)
    time.sleep(1000)
    output.write_text(str(len(held)))


def wait_for(path: Path, output: Path) -> None:
    """A long job: begins, and ends when there is a file."""
    with path.with_suffix(".begun").open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not path.exists():
        time.sleep(0.05)
    output.write_text(path.read_text())


def program(note: Path, output: Path) -> None:
    """A program that starts another one."""
    script = f"sleep 1000 & echo $! >> {note}; echo $$ >> {note}; wait"
    run(["sh", "-c", script], note.parent, output.with_suffix(".log"))


def reads(path: Path, output: Path) -> None:
    output.write_text(path.read_text())


def writes_nothing(output: Path) -> None:
    pass
