"""Figures in the documents are those of the committed reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_hls.config import MODELS, ROOT
from salt_hls.reports.budget import judge, load_budget
from salt_hls.reports.model import Report

REPORTS = sorted((ROOT / "docs/results/hardware").glob("*.json"))
PAGES = [ROOT / "README.md", ROOT / "docs/hardware.md"]


def row(report: Report) -> str:
    """A line of the table of measured figures."""
    by_source = {record.source: record for record in report.synthesis}
    measured, seen = by_source["yosys"], by_source["verilator"]
    verdict = judge(report, load_budget("cms_l1t_jet"))
    assert verdict is not None
    over = ", ".join(check.name for check in verdict.checks if not check.passed)
    cells = (
        f"`{report.model}`",
        report.n_particles,
        f"{measured.lut:,}",
        f"{measured.ff:,}",
        measured.dsp,
        seen.latency_cycles,
        seen.ii_cycles,
        f"{seen.latency_ns:g}",
        f"over: {over}" if over else "kept",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def test_every_shipped_model_is_measured() -> None:
    assert {p.stem for p in REPORTS} == {p.stem for p in MODELS.glob("*.yaml")}


@pytest.mark.parametrize("path", REPORTS, ids=lambda p: p.stem)
def test_tables_show_the_committed_reports(path: Path) -> None:
    report = Report.read(path)
    (rtl,) = (r for r in report.bit_accuracy if r.pair == "csim/rtl")
    assert rtl.events >= 2000
    assert all(r.mismatches == 0 for r in report.bit_accuracy)
    for page in PAGES:
        assert row(report) in page.read_text().splitlines(), (
            f"{page.name} should have {row(report)}"
        )
