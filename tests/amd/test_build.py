"""`make synth TOOL=vitis`: what a tool left joins the report, whatever else cannot be read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from salt_hls.amd.synthesis import Plan, synthesize_hls
from salt_hls.errors import UserError
from salt_hls.report.budget import load_budget
from salt_hls.report.records import Report
from salt_hls.rtl.build import Options

SAMPLES = Path(__file__).parents[1] / "report/samples"
TOOL = """#!/bin/sh
# Stand-in: leaves what csim, csynth and cosim of an hls4ml project leave.
s=small_prj/solution1
mkdir -p $s/syn/report $s/sim/report/verilog tb_data
cp ../reports/csynth* ../reports/*_csynth.rpt $s/syn/report/
cp ../reports/*_cosim.rpt $s/sim/report/
cp ../reports/*.transaction.xml $s/sim/report/verilog/
cp ../reports/rtl_cosim_results.log tb_data/
for step in csim cosim; do echo "PASS 0 of 8 values differ" > tb_data/${step}_verdict.txt; done
cp ../reports/vivado_synth.rpt . 2>/dev/null
exit 0
"""


@pytest.fixture
def firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A built firmware, a stand-in for the tool on PATH, and the reports it leaves."""
    project, reports, tool = tmp_path / "firmware", tmp_path / "reports", tmp_path / "bin/vitis-run"
    for folder in (project, reports, tool.parent):
        folder.mkdir()
    (project / "build_prj.tcl").write_text("source build_opt.tcl\n")
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    xml = (
        SAMPLES / "08-vitishls2023.1-zu49dr-iostream-cosimfail/myproject_csynth.xml"
    ).read_bytes()
    (reports / "csynth.xml").write_bytes(xml)
    for path in (*SAMPLES.glob("25*/csynth.rpt.gz"), *SAMPLES.glob("08*/*csynth.rpt.gz")):
        (reports / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    for path in SAMPLES.glob("27*/*"):
        (reports / path.name).write_bytes(path.read_bytes())
    Report(model="small").write(tmp_path / "report.json")
    return SimpleNamespace(folder=tmp_path)


def synthesize(firmware: Any, told: list[str]) -> Report:
    plan = Plan("vitis", ("csim", "csynth", "cosim"), route=False)
    budget = load_budget("cms_l1t_jet")
    return synthesize_hls(firmware, plan, Options(), budget, lambda _: None, warn=told.append)


def sources(report: Report) -> list[str]:
    return [record.source.rpartition("/")[2] for record in report.synthesis]


READ = ["myproject_cosim.rpt", "myproject.performance.result.transaction.xml"]


def test_a_run_with_cosimulation_is_read(firmware: Any) -> None:
    """The testbench's own rtl_cosim_results.log is no report."""
    told: list[str] = []
    report = synthesize(firmware, told)
    synthesis = ["csynth.rpt", "csynth.xml", "myproject_csynth.rpt"]
    assert sources(report) == [*READ, *synthesis] and told == []
    assert Report.read(firmware.folder / "report.json") == report


def test_a_summary_that_cannot_be_read_is_a_warning(firmware: Any) -> None:
    (firmware.folder / "reports/csynth.rpt").write_text("of some later year\n")
    told: list[str] = []
    report = synthesize(firmware, told)
    assert sources(report) == [*READ, "csynth.xml", "myproject_csynth.rpt"]
    (warning,) = told
    assert warning.endswith("run the tool again") and "csynth.rpt: " in warning


def test_a_damaged_report_does_not_cost_the_others(firmware: Any) -> None:
    (firmware.folder / "reports/vivado_synth.rpt").write_text("cut")
    with pytest.raises(UserError, match="vivado_synth.rpt: is not a report"):
        synthesize(firmware, [])
    assert len(Report.read(firmware.folder / "report.json").synthesis) == 5


def test_a_failed_cosimulation_joins_no_report(firmware: Any) -> None:
    path = firmware.folder / "reports/myproject_cosim.rpt"
    path.write_text(path.read_text().replace("|      Pass|", "|      Fail|"))
    with pytest.raises(UserError, match="cosim failed: myproject_cosim.rpt"):
        synthesize(firmware, [])
    assert Report.read(firmware.folder / "report.json").synthesis == []
