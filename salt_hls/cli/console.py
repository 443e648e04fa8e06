"""What is printed: lines, progress, and what an interruption says."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from salt_hls.system.progress import Progress

PIPED = 10_000
"""Width where no terminal limits it: nothing is cut or folded in a pipe or a file."""

console = Console(width=None if sys.stdout.isatty() else PIPED)
errors = Console(width=None if sys.stderr.isatty() else PIPED, stderr=True)


PULSE_S = 5.0
"""Between two lines of progress, where no terminal is."""


def say(text: str) -> None:
    """A line of output as it is: names and paths are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def tell(text: str) -> None:
    """A line on standard error, for the user."""
    errors.print(f"salt-hls: {text}", markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line about what does not stop the run."""
    tell(f"warning: {text}")


class Interrupted(BaseException):
    """Not an `Exception`: hls4ml's writer passes over those raised while it imports Keras.

    Extension modules (TensorFlow, h5py) may drop any exception raised inside their calls, so the
    next step of the progress raises it again.
    """

    received = False


def interrupted(*_: object) -> None:
    """Handles the first signal; while the run ends, more of them change nothing."""
    if not Interrupted.received:
        Interrupted.received = True
        sys.unraisablehook = lambda _: None  # where it is dropped, in a `__del__`, nobody is told
        raise Interrupted


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display fed by (description, done, total): a bar, or lines every few seconds."""
    with _bar() if errors.is_terminal else _pulse() as show:

        def update(what: str, done: int = 0, total: int = 1) -> None:
            if Interrupted.received:
                raise Interrupted
            show(what, done, total)

        yield update


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int = 0, total: int = 1) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


@contextmanager
def _pulse() -> Iterator[Progress]:
    ended, begun, state = threading.Event(), time.monotonic(), "start"

    def show(what: str, done: int = 0, total: int = 1) -> None:
        nonlocal state
        state = what if total < 2 else f"{what} {done:,}/{total:,}"

    def pulse() -> None:
        while not ended.wait(PULSE_S):
            with suppress(OSError, ValueError):  # nobody reads it any more
                tell(f"{state} ({time.monotonic() - begun:.0f} s)")

    thread = threading.Thread(target=pulse, daemon=True)
    thread.start()
    try:
        yield show
    finally:
        ended.set()
        thread.join(1)
