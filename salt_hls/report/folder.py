"""A build folder, its report.json and report.html, and the reports of earlier firmware."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from salt_hls.errors import UserError
from salt_hls.report.budget import Budget, judge
from salt_hls.report.page import HISTORY, write_html
from salt_hls.report.records import BitAccuracy, Report, SynthesisRecord
from salt_hls.system.store import exists, locked, restore

JSON, PAGE, EARLIER = "report.json", "report.html", "history"
PROJECT, CSIM, RTL, DIAGNOSIS = "firmware", "csim", "rtl", "diagnose"
MANIFEST, SIMULATED, INTERFACE = "manifest.json", f"{CSIM}/simulated.npz", f"{CSIM}/interface.json"
"""Files and folders of a build."""

CACHE = "cache"
"""Beside the builds: compiled simulators and synthesized stages."""

OWN = ("bench", "cache", "explore", "results", "train", "trained")
"""Folders of the commands beside those of the models."""

_MARKS = (".failed", ".old", ".tmp", ".lock")


def build_folder(build: Path, model: str) -> Path:
    """The folder of a model's build; `UserError` for names that `build` uses itself."""
    if model in OWN or model.startswith(".") or model.endswith(_MARKS):
        raise UserError(
            f"model {model!r}: the folder of the builds needs that name itself (as {', '.join(OWN)}"
            f", .*, {', '.join(f'*{mark}' for mark in _MARKS)}); rename the model's file"
        )
    return build / model


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Only one process at a time changes the report of `folder`, or replaces the folder.

    Runs that take long lock the folder itself, so that reports can be read and judged meanwhile.
    """
    with locked(folder.with_name(f"{folder.name}.{JSON}")):
        restore(folder)
        yield


def publish(report: Report, folder: Path, budget: Budget) -> None:
    """Judges the report and writes it, as JSON and as a page with its history, into `folder`."""
    report.budget = judge(report, budget)
    report.write(folder / JSON)
    write_html(report, folder / PAGE, earlier(folder))


def add(
    records: Sequence[SynthesisRecord],
    folder: Path,
    budget: Budget,
    bits: Sequence[BitAccuracy] = (),
) -> Report:
    """The report of `folder` with these, each in place of one of the same source or pair."""
    if not exists(folder):
        Report.read(folder / JSON)  # raises; a lock would make the folder it is to be in
    with changing(folder):
        report = Report.read(folder / JSON)
        sources, pairs = {r.source for r in records}, {b.pair for b in bits}
        report.synthesis = [r for r in report.synthesis if r.source not in sources] + [*records]
        report.bit_accuracy = [b for b in report.bit_accuracy if b.pair not in pairs] + [*bits]
        publish(report, folder, budget)
        return report


def forget(sources: Sequence[str], pair: str, folder: Path) -> None:
    """Takes the figures of these sources and the bits of a pair out of the report of `folder`."""
    with changing(folder):
        report = Report.read(folder / JSON)
        report.synthesis = [r for r in report.synthesis if r.source not in sources]
        report.bit_accuracy = [b for b in report.bit_accuracy if b.pair != pair]
        report.write(folder / JSON)


def earlier(folder: Path) -> list[tuple[str, Report]]:
    """Reports of earlier firmware with their date and time (UTC), oldest first."""
    found = []
    for path in sorted((folder / EARLIER).glob("*.json")):
        try:
            found.append((path.stem.replace("_", ":").replace("T", " "), Report.read(path)))
        except UserError:  # of another version of salt-hls: nothing to compare with
            continue
    return found


def archive(old: Path, new: Path) -> None:
    """Puts what the folder `old` reported, now and earlier, into the history of `new`."""
    if (old / EARLIER).is_dir():
        shutil.copytree(old / EARLIER, new / EARLIER)
    if not (old / JSON).is_file():
        return
    (new / EARLIER).mkdir(exist_ok=True)
    written = datetime.fromtimestamp((old / JSON).stat().st_mtime, timezone.utc)
    shutil.copy2(old / JSON, new / EARLIER / f"{written:%Y-%m-%dT%H_%M_%S}.json")
    for path in sorted((new / EARLIER).glob("*.json"))[:-HISTORY]:
        path.unlink()
