"""Entry point of the command `salt-hls`: faults are lines, signals end the run at once."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import typer

from salt_hls.cli.commands import app
from salt_hls.cli.console import Interrupted, errors, interrupted, tell, warn
from salt_hls.errors import UserError
from salt_hls.system.quiet import quiet_tensorflow
from salt_hls.system.store import DISK, disk_error
from salt_hls.system.wording import as_typed, option

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _Warnings(logging.Handler):
    """Prints what the program logs for its user."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


INTERRUPTED = "interrupted; nothing half-written is left, long work continues next time"
GRACE_S = 10.0
"""An interrupted run that has not ended by itself after so long is ended."""


def _tell_and_end(signals: int, told: threading.Event) -> None:
    """A thread: says at once that a signal came, even while the main thread is in a C function."""
    os.read(signals, 1)
    with suppress(OSError):  # the terminal may be gone
        tell(INTERRUPTED)
    told.set()
    time.sleep(GRACE_S)
    with suppress(OSError):
        errors.show_cursor()
    os._exit(1)  # what still runs is killed by the watcher of `processes`


UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # type: ignore[assignment]
"""Of Typer, which does not export it."""


def run(arguments: Sequence[str]) -> int:
    """Does what a command line says; returns the exit status.

    A `UserError`, a disk that fails or a wrong command line is a line on standard error.
    """
    try:
        status = app(list(arguments) or ["--help"], prog_name="salt-hls", standalone_mode=False)
    except UsageError as error:
        tell(_usage(error, arguments))
        return 2
    except Exception as error:
        fault = None if Interrupted.received else _fault(error)
        if fault is None:
            raise
        tell(fault)
        return 1
    return status or 0


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """What is wrong with a command line: the option as it was typed, and what it may be."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace("Value error, ", "").replace("Input should be", "must be")
    if found := re.match(r"Invalid value(?: for '(?:--([\w-]+))?.*?')?: (.*)", text):
        name, text = found.groups()
        if name:
            text = f"{option(name, _value_of(name, arguments))}: {text}"
    path = error.ctx.command_path if error.ctx else "salt-hls"
    return as_typed(f"{text}; see `{path} --help`")


def _value_of(name: str, arguments: Sequence[str]) -> str | None:
    """The value of the option --`name` in a command line."""
    for this, following in zip(arguments, [*arguments[1:], None], strict=True):
        if this == f"--{name}":
            return following
        if this.startswith(f"--{name}="):
            return this.partition("=")[2]
    return None


def main() -> None:
    """Entry point. A signal to end (Ctrl-C, a closed terminal) is a line, which comes at once."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(str(n) for n in sys.version_info[:2])
        errors.print(f"salt-hls: needs Python 3.10 to 3.13, found {found}")
        raise SystemExit(1)
    # What TensorFlow and QKeras warn about is not the user's doing; tests run with warnings on.
    warnings.simplefilter("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    ours = logging.getLogger("salt_hls")
    ours.addHandler(_Warnings())
    ours.propagate = False  # libraries print what reaches the root
    # While hls4ml converts and TensorFlow loads, what they print is held back; our lines are not.
    with suppress(OSError):
        errors.file = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    quiet_tensorflow()
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    told = threading.Event()
    threading.Thread(target=_tell_and_end, args=(signals, told), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupted)
    try:
        status = run(sys.argv[1:])
    except BaseException:
        if Interrupted.received:
            told.wait(GRACE_S)
            os._exit(1)  # Python and TensorFlow take their time to unload, and hear signals again
        raise
    raise SystemExit(status)


def _fault(error: BaseException) -> str | None:
    """The line about an error that is the user's to mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        return str(disk_error(error.filename or "a file", error))
    return None
