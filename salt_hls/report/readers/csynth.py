"""C synthesis reports of Vivado HLS and Vitis HLS: csynth.xml, <top>_csynth.rpt, csynth.rpt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

from salt_hls.report.readers import export
from salt_hls.report.readers.text import (
    Table,
    Unreadable,
    check_zero,
    columns,
    decimal,
    ends_with_rule,
    field,
    find,
    headings,
    integer,
    open_report,
    read_table,
    size_notes,
    span,
)
from salt_hls.report.records import Cycles, Module, Resources, SynthesisRecord

# The names of one resource in reports of different years.
COLUMNS = {
    "BRAM_18K": "bram18",
    "BRAM": "bram18",
    "DSP48E": "dsp",
    "DSP": "dsp",
    "FF": "ff",
    "LUT": "lut",
    "URAM": "uram",
}
_Events = Iterator[tuple[str, ElementTree.Element]]
HEAD_LIMIT = 1 << 20  # bytes; the top's summary stands in the first few kB


def read_xml(path: Path, source: str) -> SynthesisRecord | None:
    """Read csynth.xml, or what Vivado made of an export (`export.py`); None for other XML.

    Only the top's own summary is parsed (it stands first; the modules after it can be 40 MB),
    the rest is just run through to see that the file is whole.
    """
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(
        ("start", "end")
    )
    sections: dict[str, ElementTree.Element] = {}
    depth, fed, tail = 0, 0, b""
    with open_report(path) as stream:
        while chunk := stream.read(1 << 16):
            tail = (tail + chunk)[-256:]
            if "AreaEstimates" in sections:
                continue
            if fed == 0 and b"<!DOCTYPE" in chunk:  # no HLS report has one
                return None
            fed += len(chunk)
            if fed > HEAD_LIMIT:
                raise Unreadable("has no <AreaEstimates> at its beginning")
            parser.feed(chunk)
            for event, element in cast(_Events, parser.read_events()):
                depth += 1 if event == "start" else -1
                if event == "start" and depth == 1 and element.tag != "profile":
                    if b"TopModelName" in chunk:
                        raise Unreadable("does not begin with <profile>")
                    return None
                if event == "end" and depth == 1:
                    sections.setdefault(element.tag, element)
            if sections.keys() & {"TimingReport", "AreaReport"}:
                return export.read_xml(path, source)
    if not tail.rstrip().endswith(b"</profile>"):
        raise Unreadable("is cut off before </profile>")
    return _xml_record(sections, source)


def _xml_record(top: Mapping[str, ElementTree.Element], source: str) -> SynthesisRecord:
    def section(name: str) -> ElementTree.Element:
        if name not in top:
            raise Unreadable(f"has no <{name}>")
        return top[name]

    def text(element: ElementTree.Element, path: str) -> str:
        return element.findtext(path) or ""

    given, speed, area = (
        section(name) for name in ("UserAssignments", "PerformanceEstimates", "AreaEstimates")
    )
    used, available = (
        _resources({child.tag: child.text or "" for child in area.iterfind(f"{name}/*")})
        for name in ("Resources", "AvailableResources")
    )
    unit = text(given, "unit")
    if unit not in ("", "ns"):
        raise Unreadable(f"gives clock periods in {unit}, not ns")
    latency = "SummaryOfOverallLatency/"
    absolute = [text(speed, f"{latency}{case}-caseRealTimeLatency") for case in ("Best", "Worst")]
    version = text(top["ReportVersion"], "Version") if "ReportVersion" in top else ""
    vitis = given.find("FlowTarget") is not None or area.find("Resources/DSP") is not None
    issue = text(speed, "SummaryOfViolations/IssueType")
    return _record(
        source=source,
        tool="Vitis HLS" if vitis else "Vivado HLS",
        version=version,
        top=text(given, "TopModelName"),
        part=text(given, "Part"),
        clocks=(
            text(given, "TargetClockPeriod"),
            text(speed, "SummaryOfTimingAnalysis/EstimatedClockPeriod"),
            text(given, "ClockUncertainty"),
        ),
        latency=[text(speed, f"{latency}{case}-caseLatency") for case in ("Best", "Worst")],
        interval=[text(speed, f"{latency}Interval-{end}") for end in ("min", "max")],
        absolute=absolute,
        pipeline_type=text(speed, "PipelineType"),
        used=used,
        available=available,
        pipeline_ii=integer(text(speed, f"{latency}PipelineInitiationInterval")),
        pipeline_depth=integer(text(speed, f"{latency}PipelineDepth")),
        notes=[] if issue in ("", "-") else [f"The tool reports: {issue}."],
    )


def read_rpt(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read <top>_csynth.rpt ("Vivado HLS Report for" or "Vitis HLS Report for")."""
    speed = find(lines, "== Performance Estimates")
    latency = find(lines, "+ Latency", speed)
    area = find(lines, "== Utilization Estimates", latency)
    if not ends_with_rule(lines):
        raise Unreadable("is cut off: it does not end with a finished table")
    clock = columns(*_summary_row(read_table(lines, find(lines, "* Summary", speed)), "clock"))
    for heading in {"Target", "Estimated", "Uncertainty"} - clock.keys():
        raise Unreadable(f"has no '{heading}' column")
    _, cells = _summary_row(read_table(lines, find(lines, "* Summary", latency)), "latency")
    if len(cells) not in (5, 7):  # 2019.1 has no absolute latency
        raise Unreadable(f"has a latency table of {len(cells)} columns, not 5 or 7")
    rows = _resource_rows(read_table(lines, find(lines, "* Summary", area)))
    head = lines[:speed]
    tool = re.search(r"== (\S+ HLS) Report for '(.+)'", "\n".join(head))
    return _record(
        source=source,
        tool=tool[1] if tool else None,
        version=field(head, r"^\* Version:\s+(\S+)") or "",
        top=tool[2] if tool else "",
        part=field(head, r"^\* Target device:\s+(\S+)") or "",
        clocks=(clock["Target"], clock["Estimated"], clock["Uncertainty"]),
        latency=cells[:2],
        interval=cells[-3:-1],
        absolute=cells[2:4] if len(cells) == 7 else [],
        pipeline_type=cells[-1],
        used=rows["Total"],
        available=rows["Available"],
        slr_available=rows.get("Available SLR"),
        slr_percent=rows.get("Utilization SLR (%)"),
        modules=_modules(lines, latency, area),
    )


def read_summary(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read csynth.rpt of Vitis HLS ("Synthesis Summary Report of"): one row per module.

    It gives no clock, and '-' where a module has none of a resource.
    """
    start = find(lines, ("+ Performance & Resource Estimates", "* Performance & Resource"))
    table, names = read_table(lines, start), headings(lines, start)
    if len(table) < 2 or not table[1]:
        raise Unreadable("has no row for the top module")
    row = table[1][0]
    if len(names) != len(row):
        raise Unreadable(f"has a table row of {len(row)} cells under {len(names)} headings")
    cells = dict(zip(names, row, strict=True))
    top = re.fullmatch(r"\+\s*(.+?)\*?", row[0])
    if top is None:
        raise Unreadable("does not begin its table with the top module")
    for missing in {"Latency (cycles)", "Interval", "LUT", "FF"} - cells.keys():
        raise Unreadable(f"has no '{missing}' column")
    used = {}
    for name in COLUMNS.keys() & cells.keys():
        count, _, percent = cells[name].partition(" (")
        used[name] = "0" if count == "-" else count
        check_zero(name, integer(count), percent)
    head = lines[:start]
    latency, interval = _ends(cells["Latency (cycles)"]), _ends(cells["Interval"])
    shown = _ends(cells.get("Latency (ns)", ""))
    _check_zeros(latency, interval, shown)
    absolute = [decimal(end) for end in shown]
    return SynthesisRecord(
        source=source,
        stage="csynth",
        kind="csynth_summary",
        tool="Vitis HLS",
        version=field(head, r"^\s*\* Version:\s+(\S+)"),
        top=top[1],
        part=field(head, r"^\s*\* Target device:\s+(\S+)"),
        latency_cycles=_cycles(latency),
        latency_ns=absolute[0] if absolute[0] == absolute[1] else (absolute[0], absolute[1]),
        ii_cycles=_cycles(interval),
        pipeline_type=cells.get("Pipelined") or None,
        slack_ns=decimal(cells.get("Slack", "")),
        **_resources(used).model_dump(),
    )


def _record(
    *,
    source: str,
    tool: str | None,
    version: str,
    top: str,
    part: str,
    clocks: tuple[str, str, str],
    latency: Sequence[str],
    interval: Sequence[str],
    absolute: Sequence[str],
    pipeline_type: str,
    used: Resources,
    available: Resources,
    slr_available: Resources | None = None,
    slr_percent: Resources | None = None,
    pipeline_ii: int | None = None,
    pipeline_depth: int | None = None,
    modules: Sequence[Module] = (),
    notes: Sequence[str] = (),
) -> SynthesisRecord:
    for name, value in (("top", top), ("part", part), ("version", version)):
        if not value:
            raise Unreadable(f"does not name its {name}")
    for name in ("lut", "ff", "dsp", "bram18"):
        if getattr(used, name) is None:
            raise Unreadable(f"gives no {name.upper()} count")
    interval = _known_interval(latency, interval, pipeline_type)
    cycles, ii = _cycles(latency), _cycles(interval)
    _check_zeros(latency, interval, absolute)
    target, estimated, uncertainty = (decimal(cell) for cell in clocks)
    if target is None or target <= 0:
        raise Unreadable("gives no target clock period")
    return SynthesisRecord(
        source=source,
        stage="csynth",
        kind="csynth",
        tool=tool,
        version=version,
        top=top,
        part=part,
        clock_ns=target,
        clock_estimated_ns=estimated,
        clock_uncertainty_ns=uncertainty,
        latency_cycles=cycles,
        ii_cycles=ii,
        absolute_latency=(
            list(absolute) if absolute and all(re.match(r"\d", a) for a in absolute) else None
        ),
        pipeline_type=pipeline_type or None,
        pipeline_ii=pipeline_ii,
        pipeline_depth=pipeline_depth,
        available=available,
        slr_available=slr_available,
        slr_percent=slr_percent,
        modules=list(modules),
        notes=[
            *notes,
            *_clock_notes(target, estimated, uncertainty),
            *size_notes(used, available),
        ],
        **used.model_dump(),
    )


def _known_interval(
    latency: Sequence[str], interval: Sequence[str], pipeline_type: str
) -> Sequence[str]:
    """The interval; of a pipelined loop the .rpt prints 0 where the tool's .xml has a number."""
    zero = integer(interval[0]) == 0 and integer(interval[1]) == 0
    takes_time = any(integer(end) != 0 for end in latency)
    return ("?", "?") if zero and takes_time and "loop" in pipeline_type else interval


def _check_zeros(latency: Sequence[str], interval: Sequence[str], absolute: Sequence[str]) -> None:
    """A latency of 0 cycles takes no time; only what takes none can have an interval of 0."""
    for cycles, shown in zip(latency, absolute, strict=False):
        if integer(cycles) == 0 and re.search("[1-9]", shown):
            raise Unreadable(f"says latency 0 but {shown}")
    for cycles, end in zip(latency, interval, strict=True):
        if integer(end) == 0 and integer(cycles) != 0:
            raise Unreadable(f"says interval 0 but latency {cycles}")


def _clock_notes(target: float, estimated: float | None, uncertainty: float | None) -> list[str]:
    if estimated is None:
        return []
    if estimated > target:
        return [f"The estimated clock of {estimated:g} ns misses the target of {target:g} ns."]
    if uncertainty is not None and estimated + uncertainty > target + 1e-9:
        total = estimated + uncertainty
        return [f"Estimate + uncertainty, {total:.3f} ns, is above the target of {target:g} ns."]
    return []


def _cycles(ends: Sequence[str]) -> Cycles:
    return span(integer(ends[0]), integer(ends[1]))


def _ends(cell: str) -> tuple[str, str]:
    """'649 ~ 667' or '649', as min and max."""
    low, _, high = cell.partition("~")
    return low.strip(), (high or low).strip()


def _resources(cells: Mapping[str, str]) -> Resources:
    return Resources(
        **{COLUMNS[name]: integer(cell) for name, cell in cells.items() if name in COLUMNS}
    )


def _summary_row(table: Table, what: str) -> tuple[Table, list[str]]:
    if len(table) < 2 or not table[1]:
        raise Unreadable(f"has no {what} row")
    if len(table[0][-1]) != len(table[1][0]):
        raise Unreadable(f"has a damaged {what} row")
    return table, table[1][0]


def _resource_rows(table: Table) -> dict[str, Resources]:
    """Rows of the utilization summary, by first cell: Total, Available, Available SLR, ..."""
    rows = {row[0]: columns(table, row) for block in table[1:] for row in block}
    for name in ("Total", "Available", "Utilization (%)"):
        if name not in rows:
            raise Unreadable(f"has no '{name}' row in its utilization summary")
    for label in COLUMNS.keys() & rows["Total"].keys():
        check_zero(label, integer(rows["Total"][label]), rows["Utilization (%)"][label])
    return {
        # "~0" is a percentage below 1: not a count, so not known as one
        name: _resources({k: "?" if v == "~0" else v for k, v in row.items()})
        for name, row in rows.items()
        if name in ("Total", "Available", "Available SLR", "Utilization SLR (%)")
    }


def _modules(lines: Sequence[str], latency: int, area: int) -> list[Module]:
    """The instances of the top, in the report's order, with latency and resources."""
    sizes = _instances(lines[area:])
    used = {
        row[0]: _resources(columns(sizes, row)) for block in sizes[1:] for row in block if row[1]
    }
    modules = []
    for row in (row for block in _instances(lines[latency:area])[1:] for row in block):
        if len(row) not in (7, 9):
            raise Unreadable(f"has an instance row of {len(row)} cells")
        modules.append(
            Module(
                name=row[1],
                latency_cycles=_cycles(row[2:4]),
                ii_cycles=_cycles(_known_interval(row[2:4], row[-3:-1], row[-1])),
                **used.get(row[0], Resources()).model_dump(),
            )
        )
    return modules


def _instances(lines: Sequence[str]) -> Table:
    label = "* Instance:"
    here = any(line.lstrip().startswith(label) for line in lines)
    return read_table(lines, find(lines, label)) if here else []
