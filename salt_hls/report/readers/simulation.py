"""Simulation reports: C/RTL co-simulation tables and latencies, csim and cosim logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from salt_hls.report.readers.text import Unreadable, ends_with_rule, integer, open_report, span
from salt_hls.report.records import SynthesisRecord

LINE_LIMIT = 1 << 16  # bytes; testbenches print whole tensors on one line

STATUSES = ("Fail", "Pass", "NA")  # of one language, the worst first
# What the tools print at the end of a run, from 2019 to 2025.
CSIM_START = re.compile(rb"CSIM start|Running: csim_design")
CSIM_DONE = re.compile(rb"CSim done with (\d{1,9}) errors?\.?")
CSIM_FAILED = re.compile(rb"CSim failed with errors|'csim_design' failed|csim_design.*Terminated")
COSIM_DONE = re.compile(rb"C/RTL co-simulation finished: (PASS|FAIL)")
DEFAULT_INPUT = b"Unable to open input/predictions file"


def read_cosim(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read <top>_cosim.rpt: latency and interval in clock cycles, as simulated."""
    runs = []
    for line in lines:
        if re.match(r"\s*\|\s*(VHDL|Verilog|SystemC)\s*\|", line):
            cells = [cell.strip() for cell in line.strip().split("|")[1:-1]]
            whole = line.rstrip().endswith("|") and len(cells) in (8, 9)
            if not whole or cells[1] not in STATUSES:
                raise Unreadable("has a damaged result row")
            runs.append(cells)
    if not runs or not ends_with_rule(lines):
        raise Unreadable("is cut off: it does not end with a finished table")
    # both languages may have run: one failure is a failure
    cells = min(runs, key=lambda run: STATUSES.index(run[1]))
    return _cosim_record(
        source,
        "cosim",
        [integer(cell) for cell in cells[2:5]],
        [integer(cell) for cell in cells[5:8]],
        rtl=None if cells[1] == "NA" else cells[0],
        status=None if cells[1] == "NA" else cells[1],
        total_cycles=integer(cells[8]) if len(cells) == 9 else None,
    )


def read_lat(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read lat.rpt, the simulator's `$MAX_LATENCY = "..."` lines, in clock cycles."""
    values: dict[str, str] = {}
    for line in (line for line in lines if line.strip()):
        found = re.fullmatch(r'\$(\w+) = "(\w*)"\s*', line)
        if found is None:
            raise Unreadable("has a damaged line")
        values[found[1]] = found[2]

    def three(what: str) -> list[int | None]:
        return [integer(values.get(f"{end}_{what}", "")) for end in ("MIN", "AVER", "MAX")]

    if None in three("LATENCY"):
        raise Unreadable("does not give its minimum, average and maximum latency")
    return _cosim_record(
        source,
        "cosim_lat",
        three("LATENCY"),
        three("THROUGHPUT"),
        total_cycles=integer(values.get("TOTAL_EXECUTE_TIME", "")),
    )


def read_transactions(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read result.transaction.rpt: latency and interval of each transaction, in clock cycles."""
    rows: list[tuple[int | None, int | None]] = []
    for line in (line for line in lines if line.strip()):
        found = re.fullmatch(r"\s*transaction\s+(\d+):\s+(\S+)\s+(\S+)\s*", line)
        if found and int(found[1]) == len(rows):
            rows.append((integer(found[2]), integer(found[3])))
        elif found or rows or line.split() != ["latency", "interval"]:
            raise Unreadable("has a damaged transaction row")
    if not rows:
        raise Unreadable("has no transaction")
    latency, interval = (list(column) for column in zip(*rows, strict=True))
    if interval[-1] is None:  # nothing followed the last transaction
        interval.pop()
    return _cosim_record(source, "cosim_transaction", _min_avg_max(latency), _min_avg_max(interval))


def _min_avg_max(values: Sequence[int | None]) -> list[int | None]:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return [None] * 3
    return [min(known), round(sum(known) / len(known)), max(known)]


def _cosim_record(
    source: str,
    kind: Literal["cosim", "cosim_lat", "cosim_transaction"],
    latency: list[int | None],
    interval: list[int | None],
    *,
    rtl: str | None = None,
    status: str | None = None,
    total_cycles: int | None = None,
) -> SynthesisRecord:
    # the simulator prints 0 for what it did not see, as the interval of a single transaction
    cycles, seen = (ends if all(ends) else [None] * 3 for ends in (latency, interval))
    notes = ["C/RTL co-simulation failed."] if status == "Fail" else []
    if rtl and status == "Pass" and cycles[0] is None:
        notes = ["No latency beside Pass: as written before the simulation, it is no verdict."]
    return SynthesisRecord(
        source=source,
        stage="csynth",
        kind=kind,
        rtl=rtl,
        status=status,
        latency_cycles=span(cycles[0], cycles[2]),
        ii_cycles=span(seen[0], seen[2]),
        latency_min_avg_max=latency,
        interval_min_avg_max=interval,
        total_cycles=total_cycles or None,
        notes=notes,
    )


def read_log(path: Path, source: str) -> list[SynthesisRecord]:
    """Read a csim, cosim or whole-run log for the verdicts of its simulations (the last ones)."""
    started = default_input = False
    csim: SynthesisRecord | None = None
    cosim: SynthesisRecord | None = None
    with open_report(path) as stream:
        while line := stream.readline(LINE_LIMIT):
            started = started or bool(CSIM_START.search(line))
            default_input = default_input or DEFAULT_INPUT in line
            if found := CSIM_DONE.search(line):
                errors = int(found[1])
                csim = _csim_record(source, errors, found[0].decode(), failed=errors > 0)
            elif CSIM_FAILED.search(line):
                csim = _csim_record(
                    source, None, line.decode("utf-8", "replace").strip()[:200], failed=True
                )
            elif found := COSIM_DONE.search(line):
                status = found[1].decode().capitalize()
                cosim = _cosim_record(source, "cosim", [None] * 3, [None] * 3, status=status)
    if started and csim is None:
        raise Unreadable("ends before the C simulation does")
    if csim is not None and default_input:
        csim.notes.append("C simulation ran on its default (zero) input: tb_data was missing.")
    return [record for record in (csim, cosim) if record is not None]


def _csim_record(source: str, errors: int | None, message: str, *, failed: bool) -> SynthesisRecord:
    return SynthesisRecord(
        source=source,
        stage="csynth",
        kind="csim",
        status="fail" if failed else "pass",
        errors=errors,
        message=message,
        notes=["C simulation failed."] if failed else [],
    )
