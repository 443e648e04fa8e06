"""Vivado reports: utilization (synthesized, placed, routed) and timing summary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from salt_hls.report.readers.text import (
    Unreadable,
    check_zero,
    columns,
    decimal,
    find,
    integer,
    read_table,
    size_notes,
)
from salt_hls.report.records import Resources, Stage, SynthesisRecord

HEAD = 40  # lines in which the header box stands
SITES = {  # the names of one resource on different device families
    "lut": ("CLB LUTs", "Slice LUTs"),
    "ff": ("CLB Registers", "Slice Registers", "Registers"),
    "dsp": ("DSPs", "DSP Slices"),
    "bram_tile": ("Block RAM Tile",),
    "ramb36": ("RAMB36/FIFO", "RAMB36"),
    "ramb18": ("RAMB18",),
    "uram": ("URAM",),
}


def read_utilization(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read `report_utilization` (not its hierarchical form, which has other tables).

    Block RAM is given in 36-kbit tiles, halves included: `bram18` is twice that.
    """
    header = _header(lines)
    first = find(lines, "1. ", find(lines, "Table of Contents"))
    blank = next((i for i in range(first, len(lines)) if not lines[i].strip()), len(lines))
    titles = lines[first:blank]
    find(lines, titles[-1], blank)  # the last section listed is there: the file is whole
    rows = _site_rows(lines, blank)

    def cells(name: str) -> Mapping[str, str]:
        return next((rows[site] for site in SITES[name] if site in rows), {})

    def count(name: str, column: str) -> int | None:
        row = cells(name)
        value = integer(row.get(column, ""))
        check_zero(name, value, row.get("Util%") if column == "Used" else None)
        return value

    def halves(column: str) -> tuple[float | None, int | None]:
        row = cells("bram_tile")
        tiles = decimal(row.get(column, ""))
        check_zero("Block RAM Tile", tiles, row.get("Util%") if column == "Used" else None)
        return tiles, None if tiles is None else round(tiles * 2)

    used, available = (
        Resources(
            bram18=halves(column)[1],
            **{name: count(name, column) for name in ("lut", "ff", "dsp", "uram")},
        )
        for column in ("Used", "Available")
    )
    if used.lut is None or used.ff is None:
        raise Unreadable("gives no LUT or register count")
    state = header.get("Design State")
    if not state:
        raise Unreadable("does not give its design state")
    black_boxes = _black_boxes(lines, titles, blank)
    notes = [f"{black_boxes} black boxes are left out of these counts."] if black_boxes else []
    # logic synthesis moves what does not fit into LUTs, of which it counts any number
    notes += [
        f"{name.upper()} is capped at the {count:,} of the device."
        for name, count in (("dsp", used.dsp), ("bram18", used.bram18))
        if count and count == getattr(available, name)
    ]
    return SynthesisRecord(
        source=source,
        stage=_stage(state),
        kind="utilization",
        tool="Vivado",
        version=header["Version"],
        top=header.get("Design"),
        part=header["Device"],
        design_state=state,
        available=available,
        bram_tile=halves("Used")[0],
        ramb36=count("ramb36", "Used"),
        ramb18=count("ramb18", "Used"),
        black_boxes=black_boxes,
        notes=notes + size_notes(used, available),
        **used.model_dump(),
    )


def read_timing(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read `report_timing_summary`: worst slacks in ns, and the clock that decides."""
    header = _header(lines)
    summary = find(lines, "| Design Timing Summary")
    clocks = find(lines, "| Clock Summary", summary)
    details = find(lines, "| Intra Clock Table", clocks)
    row = _rows(lines, find(lines, "WNS(ns)", summary))
    if not row or len(row[0]) != 12:
        raise Unreadable("has no row of 12 figures in its design timing summary")
    wns, tns, _, _, whs = (decimal(cell) for cell in row[0][:5])
    failing, endpoints = integer(row[0][2]), integer(row[0][3])
    if failing == 0 and tns is not None and tns < 0:
        raise Unreadable(f"says no endpoint fails but {tns:g} ns of slack are missing")
    verdict = " ".join(lines[summary:clocks])
    met = "All user specified timing constraints are met" in verdict
    if not met and "Timing constraints are not met" not in verdict and wns is not None:
        raise Unreadable("does not say whether its constraints are met")
    name, period, slack = _deciding_clock(lines, clocks, details)
    slack = wns if slack is None else slack
    state = header.get("Design State") or _net_state(lines[details:])
    speed = header.get("Speed File", "").split(" ")[0]
    record = SynthesisRecord(
        source=source,
        stage=_stage(state),
        kind="timing",
        tool="Vivado",
        version=header["Version"],
        top=header.get("Design"),
        part=f"{header['Device']} ({speed})" if speed else header["Device"],
        design_state=state,
        clock=name,
        clock_ns=period,
        clock_estimated_ns=(None if period is None or slack is None else round(period - slack, 3)),
        wns_ns=wns,
        tns_ns=tns,
        tns_failing_endpoints=failing,
        tns_total_endpoints=endpoints,
        whs_ns=whs,
        constraints_met=None if wns is None else met,
    )
    if record.constraints_met is False:
        record.notes.append(
            f"Timing is not met: worst setup slack {wns:g} ns, worst hold slack {whs:g} ns, "
            f"{failing} failing endpoints."
            if whs is not None
            else f"Timing is not met: worst setup slack {wns:g} ns."
        )
    return record


def _header(lines: Sequence[str]) -> dict[str, str]:
    """The "| Key : value" box at the top of every Vivado report."""
    pairs = (re.match(r"\| ([\w ]+?)\s*: (.*)", line) for line in lines[:HEAD])
    header = {pair[1]: pair[2].strip() for pair in pairs if pair}
    version = re.match(r"Vivado v\.(\S+)", header.get("Tool Version", ""))
    if version is None or not header.get("Device"):
        raise Unreadable("has a damaged header")
    return {**header, "Version": version[1]}


def _stage(design_state: str | None) -> Stage:
    """Placed and routed figures are of the implementation run; anything less is synthesis."""
    implemented = re.search("(?<!un)(plac|rout)", (design_state or "").lower())
    return "route" if implemented else "vsynth"


def _site_rows(lines: Sequence[str], start: int) -> dict[str, dict[str, str]]:
    """Rows of the "Site Type | Used | ... | Available | Util%" tables, by name without '*'.

    The SLR tables at the end repeat the names, but have no Used column.
    """
    rows: dict[str, dict[str, str]] = {}
    index = start
    while index < len(lines):
        if not lines[index].startswith("+-"):
            index += 1
            continue
        table = read_table(lines, index)
        header = table[0][-1] if table[0] else []
        if header[:1] == ["Site Type"] and {"Used", "Available", "Util%"} <= set(header):
            for row in (row for block in table[1:] for row in block):
                rows.setdefault(row[0].rstrip("*"), columns(table, row))
        index += sum(len(block) for block in table) + len(table) + 1
    return rows


def _black_boxes(lines: Sequence[str], titles: Sequence[str], start: int) -> int | None:
    title = next((title for title in titles if title.endswith("Black Boxes")), None)
    if title is None:
        return None
    table = read_table(lines, find(lines, title, start))
    return sum(integer(row[-1]) or 0 for block in table[1:] for row in block)


def _rows(lines: Sequence[str], heading: int) -> list[list[str]]:
    """Rows of a table ruled by dashes, from below its heading to the next blank line."""
    rows = []
    for line in lines[heading + 2 :]:
        if not line.strip():
            break
        rows.append(line.split())
    return rows


def _deciding_clock(
    lines: Sequence[str], clocks: int, details: int
) -> tuple[str | None, float | None, float | None]:
    """Name, period and worst setup slack, in ns, of the clock with most endpoints."""
    periods: dict[str, float | None] = {}
    for line in lines[clocks:details]:
        if found := re.match(r"\s*(\S+)\s+\{[^}]*\}\s+(\S+)\s+\S+\s*$", line):
            periods[found[1]] = decimal(found[2])
    if not periods:
        return None, None, None
    slacks = {}
    below = (i for i in range(details, len(lines)) if re.match(r"Clock +WNS\(ns\)", lines[i]))
    for row in _rows(lines, next(below, len(lines))):
        if len(row) > 4 and row[0] in periods:
            slacks[row[0]] = (integer(row[4]) or 0, decimal(row[1]))
    name = max(periods, key=lambda clock: slacks.get(clock, (-1, None))[0])
    return name, periods[name], slacks.get(name, (0, None))[1]


def _net_state(lines: Sequence[str]) -> str | None:
    """How far the design was, from the first net delay (headers before 2020 do not say)."""
    for line in lines:
        if found := re.search(r"net \(fo=\d+, (routed|estimated|unplaced)\)", line):
            return {"routed": "Routed", "estimated": "Placed", "unplaced": "Synthesized"}[found[1]]
    return None
