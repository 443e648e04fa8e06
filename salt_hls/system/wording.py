"""Options and commands as the user typed them: `salt-hls` or `make`, whose Makefile says so."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

CALLER = "SALT_HLS_CALLER"
"""Environment variable that the Makefile sets to "make"."""

VARIABLES = (
    "backend", "budget", "check", "clock-ns", "cluster", "data", "estimate", "jets", "jobs",
    "multipliers", "scheduler", "seed", "ship", "steps", "storage", "strict", "target-lut", "tool",
    "trials",
)  # fmt: skip
"""Options that are variables of make as well, in capitals."""


def by_make() -> bool:
    """Whether the user typed `make`."""
    return os.environ.get(CALLER) == "make"


def option(name: str, value: Any = None) -> str:
    """An option and its value, if any: `--budget mine`, or `BUDGET=mine` for make.

    name: without hyphens in front. `model` is the argument, not an option: `model 'mine'`.
    """
    if by_make() and name in (*VARIABLES, "model"):
        return f"{variable(name)}={'' if value is None else value}"
    if name == "model":
        return f"model {str(value)!r}"
    return f"--{name}" if value is None else f"--{name} {value}"


def variable(name: str) -> str:
    """The variable of make for an option."""
    return name.upper().replace("-", "_")


def command(verb: str, model: Any = None, *flags: str) -> str:
    """The command line of a verb in backquotes, for the fix in a message."""
    words = ["make" if by_make() else "salt-hls", verb]
    if model is not None:
        quoted = shlex.quote(str(model))
        words.append(f"MODEL={quoted}" if by_make() else quoted)
    words += [f"{variable(flag)}=1" if by_make() else f"--{flag}" for flag in flags]
    return f"`{' '.join(words)}`"


def as_typed(text: str) -> str:
    """A text about options and commands of `salt-hls`, in the words of the caller."""
    if not by_make():
        return text
    text = re.sub(r"`salt-hls[^`]*--help`", "`make help`", text)
    text = re.sub(r"`salt-hls (\w+)`", r"`make \1`", text)
    pattern = rf"--({'|'.join(VARIABLES)})\b(?!-)"
    return re.sub(pattern, lambda found: variable(found[1]), text)
