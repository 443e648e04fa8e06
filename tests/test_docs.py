"""Figures in the documents are those of the committed reports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from salt_hls.config import MODELS, ROOT
from salt_hls.reports.budget import judge, load_budget
from salt_hls.reports.model import Report
from salt_hls.rtl.scaling import Scaling

REPORTS = sorted((ROOT / "docs/results/hardware").glob("*.json"))
PAGES = [ROOT / "README.md", ROOT / "docs/hardware.md"]


def row(report: Report) -> str:
    """A line of the table of measured figures."""
    by_source = {record.source: record for record in report.synthesis}
    measured, seen = by_source["yosys"], by_source["verilator"]
    verdict = judge(report, load_budget("cms_l1t_jet"))
    assert verdict is not None
    over = ", ".join(check.name for check in verdict.checks if not check.passed)
    assert report.n_particles is not None and seen.ii_cycles is not None
    cells = (
        f"`{report.model}`",
        report.n_particles,
        math.ceil(report.n_particles / seen.ii_cycles),
        f"{seen.clock_ns:g}",
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
    """<model>.json at its own clock; others, <model>-<what>.json, are what they say."""
    assert {p.stem for p in REPORTS if "-" not in p.stem} == {p.stem for p in MODELS.glob("*.yaml")}


def test_table_of_the_scaling_study() -> None:
    path = ROOT / "docs/results/scaling.json"
    text = (ROOT / "docs/hardware.md").read_text().splitlines()
    for p in Scaling.model_validate_json(path.read_text()).points:
        cells = (p.particles, p.particles_per_clock, p.ii_cycles, p.latency_cycles, f"{p.lut:,}")
        line = "| " + " | ".join(map(str, (*cells, f"{p.ff:,}"))) + " |"
        assert line in text, f"hardware.md should have {line}"


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
