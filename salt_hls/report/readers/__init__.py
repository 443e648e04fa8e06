"""The reports that Vivado HLS, Vitis HLS and Vivado leave behind, read into records.

Files are known by what they say, not by name, so that any top name and any renaming works.
Each file gives its own record: nothing is merged, and every figure keeps its source.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from pydantic import ValidationError

from salt_hls.config import first_fault
from salt_hls.errors import UserError
from salt_hls.report.readers import csynth, export, simulation, vivado
from salt_hls.report.readers.text import Unreadable, open_report, read_lines
from salt_hls.report.records import SynthesisRecord

__all__ = ["Scan", "read_file", "read_reports", "scan_reports"]

SUFFIXES = (".xml", ".rpt", ".log")
# Names the tools and hls4ml give: such a file must be readable, others may be something else.
EXPECTED = re.compile(
    r"(csim|cosim)(?!_results).*\.log$"
    r"|(csynth(?!_design_size)|\.transaction\b|\bexport(_[a-z]+)?\b).*\.xml$"
    r"|(_export\b|csynth(?!_design_size)|cosim|util|timing|vivado_synth|^lat\b|\.transaction\b).*\.rpt$"
)
HEAD = 100  # lines in which a report says what it is
RPT_READERS: tuple[tuple[str, Callable[[Sequence[str], str], SynthesisRecord]], ...] = (
    (r"HLS Report for '", csynth.read_rpt),
    (r"== Synthesis Summary Report of '", csynth.read_summary),
    (r"Utilization Design Information(?![\s\S]*Utilization by Hierarchy)", vivado.read_utilization),
    (r"\nTiming Summary Report", vivado.read_timing),
    (r"(?m)^#=== Post-(Synthesis|Implementation) Resource usage", export.read_rpt),
    (r"RTL\s+\+\s+Status", simulation.read_cosim),
    (r"^\$(MAX|MIN|AVER)_LATENCY = ", simulation.read_lat),
    (r"^\s*latency\s+interval\s*\n", simulation.read_transactions),
)
# Vivado's other reports that share a name with the expected ones.
OTHER_VIVADO = re.compile(
    r"Utilization by Hierarchy|\| Command +: report_(clock_utilization|ram_utilization|timing) "
)


class Scan(NamedTuple):
    """Records of the readable reports in a folder, and one line for each unreadable one: a
    problem, or a warning where another report has the same figures."""

    records: list[SynthesisRecord]
    problems: list[str]
    warnings: list[str]


def read_reports(folder: Path) -> list[SynthesisRecord]:
    """Every vendor report under `folder` (or the one file), one record per file.

    A UserError has one line for each file that is empty, truncated or damaged and whose figures
    are in no other, or says that there is no report at all.
    """
    scan = scan_reports(folder)
    if scan.problems:
        raise UserError("\n".join(scan.problems))
    return scan.records


def scan_reports(folder: Path) -> Scan:
    """Like `read_reports`, but what is readable beside the lines on what is not."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; give the folder with the tool's reports")
    root = folder if folder.is_dir() else folder.parent
    scan = Scan([], [], [])
    unreadable: dict[str, str] = {}
    for path in _candidates(folder):
        source = path.relative_to(root).as_posix()
        try:
            scan.records.extend(read_file(path, source))
        except UserError as error:
            unreadable[source] = str(error)
    for source, fault in unreadable.items():
        told = _told_elsewhere(source, scan.records)
        (scan.warnings if told else scan.problems).append(fault)
    if not scan.records and not unreadable:
        raise UserError(
            f"{folder}: no vendor report found; looked for csynth, cosim, csim, utilization, "
            f"timing and export reports ({', '.join(SUFFIXES)}, gzip'd or not)"
        )
    _mark_parts(scan.records)
    return scan


def _candidates(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")):
        hidden = any(step.startswith(".") for step in path.relative_to(folder).parts)
        if not hidden and _plain_name(path).endswith(SUFFIXES) and path.is_file():
            yield path


def _plain_name(path: Path) -> str:
    return path.name.removesuffix(".gz").lower()


def read_file(path: Path, source: str) -> list[SynthesisRecord]:
    """Records of one file, named `source` in them; none when it is no report of ours."""
    fix = "delete it or copy it again"
    try:
        return _read(path, source)
    except Unreadable as error:
        what = str(error)
    except ElementTree.ParseError as error:
        what = f"is damaged or cut off ({error})"
    except ValidationError as error:
        what = f"has a figure out of bounds ({first_fault(error)})"
    except (LookupError, ValueError) as error:  # damage can break what no check foresees
        what = f"is damaged ({error})"
    except (OSError, EOFError, zlib.error) as error:
        what = f"cannot be read ({error})"
    raise UserError(f"{path}: {what}; {fix}, or run the tool again".replace("\n", " "))


def _read(path: Path, source: str) -> list[SynthesisRecord]:
    name = _plain_name(path)
    expected = EXPECTED.search(name) is not None
    with open_report(path) as stream:
        start = stream.read(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start and (expected or not name.endswith(".log")):
        raise Unreadable("is empty")
    if name.endswith(".xml") and start.startswith(b"<"):
        record = csynth.read_xml(path, source)
        if record is not None or not expected:
            return [] if record is None else [record]
    elif name.endswith(".log"):
        records = simulation.read_log(path, source)
        if records or not expected:
            return records
    else:  # also the simulator's tables, which are called .xml but are not
        lines = read_lines(path)
        head = "\n".join(lines[:HEAD])
        for sign, reader in RPT_READERS:
            if re.search(sign, head):
                return [reader(lines, source)]
        if OTHER_VIVADO.search(head) or not (expected or name.endswith(".xml")):
            return []
    raise Unreadable("is not a report that can be read")


def _told_elsewhere(source: str, records: Sequence[SynthesisRecord]) -> bool:
    """Whether a C synthesis report that cannot be read is one of several of the same design: the
    one that the folder's csynth.xml or csynth.rpt names, and its figures are among `records`."""
    folder, _, name = source.rpartition("/")
    group = [r for r in records if r.source.rpartition("/")[0] == folder]
    tops = {r.top for r in group if r.source.rpartition("/")[2].startswith("csynth.")}
    return "csynth" in name and any(r.kind == "csynth" and r.top in tops for r in group)


def _mark_parts(records: list[SynthesisRecord]) -> None:
    """Mark the C synthesis records that are of a piece of another record's design.

    HLS writes one report for each module beside the top's: the top is the one csynth.xml
    names, else the one that no other report of the folder lists as an instance.
    """
    folders: dict[str, list[SynthesisRecord]] = {}
    for record in records:
        if record.kind in ("csynth", "csynth_summary"):
            folders.setdefault(record.source.rpartition("/")[0], []).append(record)
    for group in folders.values():
        named = {r.top for r in group if r.source.rpartition("/")[2].startswith("csynth.")}
        called = {module.name for r in group for module in r.modules}
        tops = named or {r.top for r in group} - called
        if len(tops) == 1:
            (top,) = tops
            for record in group:
                if record.top != top:
                    record.part_of = top
