"""`salt-hls rtl` and `synth`: from a model to figures in its report, and how they fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from salt_hls.amd.synthesis import plan, synthesize_hls
from salt_hls.check.checked import Checked
from salt_hls.cli.commands import app
from salt_hls.errors import UserError
from salt_hls.firmware import build as build_module
from salt_hls.firmware.build import build_firmware, checked_firmware
from salt_hls.report.budget import load_budget
from salt_hls.report.records import Report
from salt_hls.rtl.build import Options, build_rtl, estimate, synthesize_rtl
from salt_hls.rtl.project import RtlProject
from salt_hls.system.jobs import Runner

SMALL = {
    "particles": 4, "partitions": 2, "width": 4, "heads": 2, "feed_forward": 4,
    "firmware": {"clock_ns": 10},
}  # fmt: skip
BUDGET = load_budget("cms_l1t_jet")
COMMITTED = Path(__file__).with_name("small.json")
GROWTH = 1.02
"""Greatest ratio to the committed figures."""

Make = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("few_jets")


def quiet(*_: object) -> None:
    pass


@pytest.fixture
def firmware(small_model: Make, tmp_path: Path) -> Checked:
    path = small_model(**SMALL)
    return checked_firmware(str(path), None, tmp_path / "build", BUDGET, 1, quiet)


def report_of(firmware: Checked) -> Report:
    return Report.read(firmware.folder / "report.json")


def sources(report: Report) -> list[str]:
    return [record.source for record in report.synthesis]


@pytest.mark.slow
def test_figures_of_a_small_model_hold(
    firmware: Checked, small_model: Make, tmp_path: Path, runner: Runner
) -> None:
    """LUTs, registers and cycles, measured, against the committed ones; every bit simulated."""
    report = synthesize_rtl(firmware, Options(), BUDGET, tmp_path / "cache", 2, runner, quiet)
    assert sources(report) == ["alkaid", "verilator", "yosys"]
    (bits,) = (r for r in report.bit_accuracy if r.pair == "csim/rtl")
    assert bits.mismatches == 0 and bits.events == 300 + 157
    assert report.budget is not None and "yosys" in report.budget.source
    *_, record = report.synthesis
    got = {name: getattr(record, name) for name in ("lut", "ff", "latency_cycles", "ii_cycles")}
    committed = json.loads(COMMITTED.read_text())
    grown = {k: v for k, v in got.items() if v > GROWTH * committed[k]}
    assert not grown, f"grown by more than 2 %: {grown}; {COMMITTED.name} has {committed}"
    shrunk = {k: v for k, v in got.items() if GROWTH * v < committed[k]}
    assert not shrunk, f"smaller: good; commit it to {COMMITTED.name}: {got}"

    # Firmware that has not changed keeps its figures and its RTL, and is not built again.
    build = tmp_path / "build"
    again = build_firmware(str(tmp_path / "small.yaml"), "Vitis", build, BUDGET, 1, quiet)
    assert again.synthesis == report.synthesis and again.budget == report.budget
    assert RtlProject.load(firmware.folder / "rtl").top == record.top
    # Another RTL of it drops them; other firmware makes them history.
    assert sources(estimate(firmware, Options(clock_ns=5.0), BUDGET, quiet)) == ["alkaid"]
    path = small_model(seed=2, **SMALL)
    other = checked_firmware(str(path), None, build, BUDGET, 1, quiet)
    assert report_of(other).synthesis == [] and not (other.folder / "rtl").exists()
    (old,) = (other.folder / "history").iterdir()
    assert sources(Report.read(old)) == ["alkaid"]
    assert "this report" in (other.folder / "report.html").read_text()


def test_wrong_rtl_is_named_and_reported(firmware: Checked, tmp_path: Path) -> None:
    firmware.outputs[7, 1] += 2.0**-7
    with pytest.raises(UserError, match=r"csim/rtl: first difference in layer logits.*event 7"):
        build_rtl(firmware, Options(), BUDGET, tmp_path / "cache", 2, quiet)
    report = report_of(firmware)
    assert [r.status for r in report.synthesis] == [None, "Fail"]
    assert "Not bit-exact" in (firmware.folder / "report.html").read_text()


def test_checked_firmware_is_built_once(
    firmware: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Report:
        raise AssertionError("built again")

    monkeypatch.setattr(build_module, "build_firmware", never)
    path = str(tmp_path / "small.yaml")
    same = checked_firmware(path, None, tmp_path / "build", BUDGET, 1, quiet)
    assert (same.inputs == firmware.inputs).all() and (same.outputs == firmware.outputs).all()
    with pytest.raises(AssertionError, match="built again"):
        checked_firmware(path, "Vivado", tmp_path / "build", BUDGET, 1, quiet)


STAND_IN = """#!/bin/sh
mkdir -p small_prj/solution1/syn/report
echo "PASS 0 values differ" > tb_data/csim_verdict.txt
cp "$REPORT" small_prj/solution1/syn/report/csynth.xml
"""


def test_reports_of_a_vendor_tool_are_read_and_judged(
    firmware: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin/vitis_hls"
    tool.parent.mkdir()
    tool.write_text(STAND_IN)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    report_file = tmp_path / "csynth.xml"
    monkeypatch.setenv("REPORT", str(report_file))
    report_file.write_text(CSYNTH)
    steps = plan("vitis", "csim, csynth")
    report = synthesize_hls(firmware, steps, Options(), BUDGET, quiet)
    assert (firmware.folder / "firmware/tb_data/tb_golden.dat").exists()
    (record,) = report.synthesis
    assert record.source == "firmware/small_prj/solution1/syn/report/csynth.xml"
    assert (record.lut, record.latency_cycles, record.ii_cycles) == (1234, 17, 1)
    assert report.budget is not None and report.budget.source.startswith("csynth (firmware/")
    report_file.write_text(CSYNTH[:300])
    with pytest.raises(UserError, match="cut off"):
        synthesize_hls(firmware, steps, Options(), BUDGET, quiet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tool", "vitis"), "none of vitis-run, vitis_hls is on PATH"),
        (("--tool", "vivado", "--steps", "route"), "step route: vivado is not on PATH"),
        (("--tool", "vitis", "--steps", "place"), "--steps place: must be some of csim, csynth"),
        (("--budget", "nosuch"), "--budget nosuch: no such budget"),
    ],
)
def test_what_is_missing_is_said_at_once(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["synth", "salt_p4", *arguments])
    assert isinstance(result.exception, UserError) and message in str(result.exception)


CSYNTH = """<?xml version="1.0"?>
<profile>
<section name="Report Version"/>
<ReportVersion><Version>2023.2</Version></ReportVersion>
<UserAssignments><unit>ns</unit><ProductFamily>virtexuplus</ProductFamily>
<Part>xcvu13p-flga2577-2-e</Part><TopModelName>small</TopModelName>
<TargetClockPeriod>2.50</TargetClockPeriod><ClockUncertainty>0.68</ClockUncertainty>
</UserAssignments>
<PerformanceEstimates><PipelineType>yes</PipelineType>
<SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>1.812</EstimatedClockPeriod>
</SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><unit>clock cycles</unit>
<Best-caseLatency>17</Best-caseLatency><Average-caseLatency>17</Average-caseLatency>
<Worst-caseLatency>17</Worst-caseLatency><PipelineInitiationInterval>1</PipelineInitiationInterval>
<PipelineDepth>18</PipelineDepth><Interval-min>1</Interval-min><Interval-max>1</Interval-max>
</SummaryOfOverallLatency></PerformanceEstimates>
<AreaEstimates><Resources><LUT>1234</LUT><FF>567</FF><DSP>0</DSP><BRAM_18K>0</BRAM_18K>
<URAM>0</URAM></Resources>
<AvailableResources><LUT>1728000</LUT><FF>3456000</FF><DSP>12288</DSP><BRAM_18K>5376</BRAM_18K>
<URAM>1280</URAM></AvailableResources></AreaEstimates>
</profile>
"""
