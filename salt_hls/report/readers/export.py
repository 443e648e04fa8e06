"""What Vivado made of an exported IP: export_impl.xml, export_syn.xml, <top>_export.rpt.

HLS writes them after logic synthesis, or place and route, of the design alone. Block RAM is
counted in 18-kbit halves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from salt_hls.report.readers.text import (
    Unreadable,
    decimal,
    field,
    find,
    integer,
    open_report,
    size_notes,
)
from salt_hls.report.records import Resources, SynthesisRecord

NAMES = {"LUT": "lut", "FF": "ff", "DSP": "dsp", "BRAM": "bram18", "URAM": "uram"}
MET = {"TRUE": True, "Timing met": True, "FALSE": False, "Timing not met": False}


def read_xml(path: Path, source: str) -> SynthesisRecord:
    """Read export_impl.xml or export_syn.xml; before Vitis HLS export.xml, with less in it."""
    texts: dict[str, str] = {}  # by path below the root
    about: dict[str, str] = {}
    top = None
    tags: list[str] = []
    with open_report(path) as stream:
        for event, element in ElementTree.iterparse(stream, ("start", "end")):
            if event == "start":
                tags.append(element.tag)
                continue
            texts.setdefault("/".join(tags[1:]), (element.text or "").strip())
            if tags[1:] == ["RtlModules", "RtlModule"] and element.get("IS_TOP") == "1":
                top = element.get("RTLNAME") or element.get("MODULENAME")
            if tags[1:] == ["GeneralInfo", "item"]:
                about[element.get("NAME", "")] = element.get("VALUE", "")
            tags.pop()
            element.clear()

    def timing(name: str) -> str:
        return texts.get(f"TimingReport/{name}", "")

    used, room = (
        _resources({name: texts.get(f"AreaReport/{part}/{name}", "") for name in NAMES})
        for part in ("Resources", "AvailableResources")
    )
    kind = texts.get("RunData/RUN_TYPE")
    return _record(
        source=source,
        version=texts.get("RunData/VIVADO_VERSION"),
        routed=None if kind is None else kind == "impl",
        top=top,
        part=about.get("Target device"),
        used=used,
        available=room,
        target=timing("TargetClockPeriod"),
        achieved=timing("AchievedClockPeriod"),
        met=MET.get(timing("TIMING_MET")),
        slack=decimal(timing("WNS_FINAL")),
        total_slack=decimal(timing("TNS_FINAL")),
    )


def read_rpt(lines: Sequence[str], source: str) -> SynthesisRecord:
    """Read <top>_export.rpt."""
    start = find(lines, "#=== Post-")
    routed = lines[start].lstrip().startswith("#=== Post-Implementation")
    end = find(lines, "#=== Final timing", start)
    rows = dict(
        (name.strip(), count.strip())
        for name, colon, count in (line.partition(":") for line in lines[start + 1 : end])
        if colon
    )
    step = "implementation" if routed else "synthesis"
    target, achieved = (
        field(lines[end:], rf"^\s*{name}:\s+(\S+)")
        for name in ("CP required", f"CP achieved post-{step}")
    )
    if achieved is None:
        raise Unreadable(f"is cut off: it does not say what was achieved post-{step}")
    verdict = next((text for text in map(str.strip, lines[end:]) if text in MET), None)
    name = source.rpartition("/")[2].removesuffix(".gz").removesuffix("_export.rpt")
    return _record(
        source=source,
        version=field(lines[:start], r"^Implementation tool: .*\bv\.(\S+)"),
        routed=routed,
        top=None if name.endswith(".rpt") else name,
        part=field(lines[:start], r"^Device target:\s+(\S+)"),
        used=_resources({name: rows.get(name, "") for name in NAMES}),
        available=Resources(),
        target=target or "",
        achieved=achieved,
        met=None if verdict is None else MET[verdict],
    )


def _resources(cells: Mapping[str, str]) -> Resources:
    return Resources(**{NAMES[name]: integer(cell) for name, cell in cells.items()})


def _record(
    *,
    source: str,
    version: str | None,
    routed: bool | None,
    top: str | None,
    part: str | None,
    used: Resources,
    available: Resources,
    target: str,
    achieved: str,
    met: bool | None,
    slack: float | None = None,
    total_slack: float | None = None,
) -> SynthesisRecord:
    """routed: None where the file does not say; figures of logic synthesis then."""
    for name in ("lut", "ff", "dsp"):
        if getattr(used, name) is None:
            raise Unreadable(f"gives no {name.upper()} count")
    clock, needed = decimal(target), decimal(achieved)
    if clock is None or clock <= 0:
        raise Unreadable("gives no target clock period")
    if slack is None and needed is not None:
        slack = round(clock - needed, 3)
    if slack is not None and met is not None and met != (slack >= 0):
        raise Unreadable(f"says timing is {'' if met else 'not '}met with a slack of {slack:g} ns")
    states = {True: "Routed", False: "Synthesized", None: None}
    notes = [] if slack is None or slack >= 0 else [f"Timing is not met: slack {slack:g} ns."]
    return SynthesisRecord(
        source=source,
        stage="route" if routed else "vsynth",
        kind="export",
        tool="Vivado",
        version=re.sub(r"^v\.", "", version) if version else None,
        top=top,
        part=part,
        design_state=states[routed],
        available=available if available != Resources() else None,
        clock_ns=clock,
        clock_estimated_ns=needed,
        wns_ns=slack,
        tns_ns=total_slack,
        constraints_met=met,
        notes=notes + size_notes(used, available),
        **used.model_dump(),
    )
