"""Reading report text: files gzip'd or not, numbers that may be unknown, ruled tables."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from salt_hls.report.records import Resources

TEXT_LIMIT = 32 * 2**20  # bytes read of one text report; every figure stands before this

Table = list[list[list[str]]]
"""Cells of a ruled table, by block between rules; the first block is the header."""


class Unreadable(Exception):
    """What is wrong with a report file, in one clause."""


def open_report(path: Path) -> IO[bytes]:
    """Open `path`, unpacking it when it is gzip'd, whatever its name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    if packed:
        return cast(IO[bytes], gzip.open(path))
    if path.suffix == ".gz":
        raise Unreadable("is not gzip data")
    return path.open("rb")


def read_lines(path: Path) -> list[str]:
    """The lines of a text report."""
    with open_report(path) as stream:
        return stream.read(TEXT_LIMIT).decode("utf-8", "replace").splitlines()


UNKNOWN = frozenset(("", "-", "?", "x", "na", "n/a", "undef", "inf", "-inf", "unknown"))


def integer(cell: str) -> int | None:
    """A count; None for what the tools print when they do not know."""
    if cell.strip().lower() in UNKNOWN:
        return None
    if not re.fullmatch(r"\d{1,15}", cell, re.ASCII):
        raise Unreadable(f"has {cell.strip()[:40]!r} where a whole number belongs")
    return int(cell)


def decimal(cell: str) -> float | None:
    """A number with or without unit ns; None for what the tools print when they do not know."""
    text = cell.strip().removesuffix("ns").strip()
    if text.lower() in UNKNOWN:
        return None
    if not re.fullmatch(r"[-+]?\d{1,15}(\.\d{0,15})?(e[-+]?\d{1,2})?", text, re.ASCII):
        raise Unreadable(f"has {cell.strip()[:40]!r} where a number belongs")
    return float(text)


def span(low: int | None, high: int | None) -> int | tuple[int | None, int | None] | None:
    """One value when both ends agree, unknown when neither is known, else the range."""
    if low == high:
        return low
    if low is not None and high is not None and low > high:
        raise Unreadable(f"has a range from {low} down to {high}")
    return low, high


def check_zero(name: str, used: int | float | None, percent: str | None) -> None:
    """A count of 0 beside a percentage above 0 is damage, not a figure."""
    if used == 0 and percent is not None and re.search(r"[1-9~<]", percent):
        raise Unreadable(f"says {name} 0 but {percent.strip()} %")


def find(lines: Sequence[str], text: str | tuple[str, ...], start: int = 0) -> int:
    """Index of the first line at or after `start` that begins with (one of) `text`, indentation
    aside."""
    for index in range(start, len(lines)):
        if lines[index].lstrip().startswith(text):
            return index
    name = text if isinstance(text, str) else text[0]
    raise Unreadable(f"has no '{name.strip()}' section")


def field(lines: Sequence[str], pattern: str) -> str | None:
    """First group of `pattern` in the first line that matches it."""
    for line in lines:
        if match := re.search(pattern, line):
            return match[1].strip()
    return None


def read_table(lines: Sequence[str], start: int) -> Table:
    """The first ruled table at or after `start`; empty where the report says N/A."""
    index = start
    while index < len(lines) and not lines[index].lstrip().startswith("+-"):
        if lines[index].strip() == "N/A":
            return []
        index += 1
    blocks: Table = []
    for line in _table_lines(lines, index):
        if line.startswith("+"):
            blocks.append([])
        else:
            blocks[-1].append([cell.strip() for cell in line[1:-1].split("|")])
    if len(blocks) < 2 or blocks.pop():  # a whole table ends with a rule
        raise Unreadable("ends in the middle of a table")
    return blocks


def _table_lines(lines: Sequence[str], start: int) -> Iterator[str]:
    for index in range(start, len(lines)):
        line = lines[index].strip()
        damaged = line[-1:] != line[:1] or len(line) < 3
        if not line.startswith(("|", "+")):
            if not ("|" in line or "-+-" in line):
                return
            damaged = True
        if damaged:
            raise Unreadable(f"has a damaged table row at line {index + 1}")
        yield line


def headings(lines: Sequence[str], start: int) -> list[str]:
    """Names of the columns of the first ruled table at or after `start`.

    The rule says where columns are; a cell of a header line may span several, and gives its text
    to each: `Latency` over `(cycles)` and `(ns)`.
    """
    top = next((i for i in range(start, len(lines)) if lines[i].lstrip().startswith("+-")), None)
    if top is None:
        raise Unreadable("has no table")
    edges = [i for i, sign in enumerate(lines[top]) if sign == "+"]
    words: list[list[str]] = [[] for _ in edges[1:]]
    for line in lines[top + 1 :]:
        if not line.lstrip().startswith("|"):
            break
        for column, right in enumerate(edges[1:]):
            left = line.rfind("|", 0, right)
            end = line.find("|", left + 1)
            words[column].append(line[left + 1 : end].strip())
    return [" ".join(filter(None, column)) for column in words]


def ends_with_rule(lines: Sequence[str]) -> bool:
    """Whether the last line closes a table, as in every whole HLS report."""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.startswith("+-") and last.endswith("-+")


def columns(table: Table, row: Sequence[str]) -> dict[str, str]:
    """Cells of `row` by the last header line of `table`."""
    header = table[0][-1] if table and table[0] else []
    if len(header) != len(row):
        raise Unreadable(f"has a table row of {len(row)} cells under {len(header)} headings")
    return dict(zip(header, row, strict=True))


def size_notes(used: Resources, available: Resources) -> list[str]:
    """What to mind in counts against the device: over-use, and counts that stop at it."""
    notes = []
    for name, count in used:
        room = getattr(available, name)
        if count and room is not None and count > room:
            share = (
                f"{100 * count / room:.0f} % of the device" if room else "but the device has none"
            )
            notes.append(f"{name.upper()} {count:,} is {share}.")
    return notes
