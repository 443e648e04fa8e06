"""The report of a build folder: report.json, report.html and the reports of earlier firmware."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from salt_hls.errors import UserError
from salt_hls.reports.budget import Budget, judge
from salt_hls.reports.html import HISTORY, write_html
from salt_hls.reports.model import Report, SynthesisRecord

JSON, PAGE, EARLIER = "report.json", "report.html", "history"


def publish(report: Report, folder: Path, budget: Budget) -> None:
    """Judges the report and writes it, as JSON and as a page with its history, into `folder`."""
    report.budget = judge(report, budget)
    report.write(folder / JSON)
    write_html(report, folder / PAGE, earlier(folder))


def add(records: Sequence[SynthesisRecord], folder: Path, budget: Budget) -> Report:
    """The report of `folder` with these records, each in place of one of the same source."""
    report = Report.read(folder / JSON)
    new = {record.source for record in records}
    report.synthesis = [r for r in report.synthesis if r.source not in new] + [*records]
    publish(report, folder, budget)
    return report


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
