"""How long work says where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, and how much of it is done of how much, if that is known."""

    def __call__(self, what: str, done: int = 0, total: int = 1) -> None: ...


def silent(what: str, done: int = 0, total: int = 1) -> None:
    """Progress that nobody is told."""
