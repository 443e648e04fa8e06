"""Running other programs: live output, a log file, a time limit, nothing left running."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0
"""Between the polite and the final signal."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


class TimedOut(Exception):
    """The program ran past its limit and was stopped."""


def run(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    timeout_s: float | None = None,
    on_line: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs `command` in `folder`; returns its exit status, negative for a signal.

    Standard output and error go to `log` together, and line by line to `on_line`. Whatever ends
    the wait (time limit, Ctrl-C, an error in `on_line`) ends the program and all it started.
    Raises `TimedOut`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children can be stopped with it
        )
        try:
            for line in _lines(process, deadline):
                sink.write(line)
                sink.flush()
                if on_line is not None:
                    on_line(line.decode(errors="replace").rstrip())
            return process.wait()
        finally:
            _stop(process)


def _lines(process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[bytes]:
    """Output lines as they come, until the program ends; what it started may live on, silent."""
    stream = process.stdout
    if stream is None:
        return
    pending = b""
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut
            ended = process.poll() is not None
            if not selector.select(timeout=0.0 if ended else 0.1):
                if ended:
                    break
                continue
            data = os.read(stream.fileno(), 65536)
            if not data:
                break
            *whole, pending = (pending + data).split(b"\n")
            yield from (line + b"\n" for line in whole)
    if pending:
        yield pending
    # The stream may close before the program ends.
    while process.poll() is None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOut
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the program's whole process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            if number == signal.SIGTERM and not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True
