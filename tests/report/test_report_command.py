"""`salt-hls report`: what it prints, writes and ends with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from salt_hls.cli import tables
from salt_hls.cli.commands import app
from salt_hls.errors import UserError
from salt_hls.report.records import BitAccuracy, Report, SynthesisRecord, json_schema

from .support import DATA, FIGURES

KEPT: dict[str, Any] = {
    "source": "routed",
    "stage": "route",
    "part": "xcvu13p-flga2577-2-e",
    **FIGURES,
}


def build(folder: Path, **changes: Any) -> Path:
    record = SynthesisRecord.model_validate(KEPT | changes)
    Report(model="small", synthesis=[record]).write(folder / "small" / "report.json")
    return folder


def run(*arguments: str | Path, columns: int = 200) -> Result:
    environment = {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env=environment)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "pass", "figures at a 2.5 ns target, placed and routed"),
        ({"lut": 500_000}, "fail", "500,000"),
        ({"ii_cycles": (1, 2)}, "fail", "ii_cycles: a range is not trigger-ready"),
        ({"uram": None}, "unproven", "uram: unknown: no report gives it"),
        ({"clock_estimated_ns": None}, "unproven", "clock_ns: the target; nobody timed the logic"),
        ({"clock_estimated_ns": None, "levels": 6}, "pass, estimate", "estimated from 6 levels"),
        ({"clock_estimated_ns": None, "levels": 7}, "fail, estimate", "estimated from 7 levels"),
        ({"status": "Fail"}, "fail", "simulation: failed: route (routed)"),
    ],
)
def test_strict_accepts_only_what_is_proven(
    changes: dict[str, Any], verdict: str, words: str, tmp_path: Path
) -> None:
    folder = build(tmp_path, **changes)
    plain = run("small", "--build", folder)
    assert plain.exit_code == 0, plain.output
    assert words in plain.output and f" {verdict} " in plain.output
    strict = run("small", "--strict", "--build", folder)
    assert strict.exit_code == (0 if verdict.startswith("pass") else 1)
    assert strict.output == plain.output
    judged = Report.read(folder / "small/report.json").budget
    assert judged is not None and judged.passed == verdict.startswith("pass")
    assert "Budget cms_l1t_jet" in (folder / "small/report.html").read_text()


FIGURES = ("1,040,307", "1,311,435", "398", "995.0", "864,000")


def test_a_narrow_terminal_cuts_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path, lut=1_040_307, ff=1_311_435, latency_cycles=398)
    monkeypatch.setattr(tables, "console", Console(width=80))
    shown = run("small", "--build", folder).output
    assert "\u2026" not in shown and max(map(len, shown.splitlines()[:30])) <= 80
    assert all(figure in shown for figure in FIGURES)


@pytest.mark.parametrize("columns", [20, 80])
def test_a_pipe_folds_nothing(columns: int, tmp_path: Path) -> None:
    source = "/".join(["a", "long", "path"] * 9)
    folder = build(tmp_path, lut=1_040_307, ff=1_311_435, latency_cycles=398, source=source)
    shown = run("small", "--build", folder, columns=columns).output
    (row,) = (line for line in shown.splitlines() if line.startswith(f"│ {source} │ route"))
    assert [cell.strip() for cell in row.split("│")[3:5]] == ["1,040,307", "1,311,435"]


def test_json_is_report_json_and_nothing_else(tmp_path: Path) -> None:
    folder = build(tmp_path)
    bits = BitAccuracy(pair="a/b", layer="x", events=1, values=1, mismatches=0, max_lsb=0)
    for changes, verdict in (
        ({}, "pass"),
        ({"lut": 500_000}, "fail"),
        ({"uram": None}, "unproven"),
    ):
        record = SynthesisRecord.model_validate(KEPT | changes)
        path = folder / "small" / "report.json"
        Report(model="small", synthesis=[record], bit_accuracy=[bits]).write(path)
        result = run("small", "--json", "--strict", "--build", folder)
        assert result.stdout == path.read_text()
        data = json.loads(result.stdout)
        assert (data["verdict"], data["bit_exact"]) == (verdict, True)
        assert data["bit_accuracy"][0]["mismatches"] == 0
        assert result.exit_code == (verdict != "pass")


def test_the_schema_is_printed() -> None:
    assert json.loads(run("--schema").stdout) == json_schema()


def test_nothing_to_judge_is_not_proven(tmp_path: Path) -> None:
    Report(model="small").write(tmp_path / "small/report.json")
    assert "no figures to judge" in run("small", "--build", tmp_path).output
    assert run("small", "--strict", "--build", tmp_path).exit_code == 1


def test_another_budget(tmp_path: Path) -> None:
    budget = tmp_path / "mine.yaml"
    budget.write_text("part: xcvu13p\nlatency_ns: 50\n")
    result = run("small", "--strict", "--budget", budget, "--build", build(tmp_path))
    assert result.exit_code == 1 and "budget mine" in result.output
    assert "30 cycles x 2.5 ns" in result.output


def test_reports_of_a_folder_alone(tmp_path: Path) -> None:
    sample = next(DATA.glob("26*"))
    result = run("--from", sample, "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["synthesis"]
    assert [row["source"] for row in rows] == ["export_impl.xml.gz", "solveCooling_export.rpt.gz"]
    assert all(row["stage"] == "route" and row["lut"] == 176 for row in rows)
    assert Report.model_validate_json(result.stdout).verdict == "fail"
    assert run("--from", sample, "--strict").exit_code == 1  # another part, no latency
    assert list(tmp_path.iterdir()) == []


def test_reports_of_a_folder_join_a_build(tmp_path: Path) -> None:
    folder, sample = build(tmp_path), next(DATA.glob("27*"))
    result = run("small", "--from", sample, "--json", "--build", folder)
    sources = ["myproject.performance.result.transaction.xml", "myproject_cosim.rpt"]
    assert [row["source"] for row in json.loads(result.stdout)["synthesis"]] == sources
    for _ in range(2):  # again: in place of those of the same source
        run("small", "--from", sample, "--build", folder)
        read = Report.read(folder / "small/report.json").synthesis
        assert [r.source for r in read] == ["routed", *sources]
    whole = json.loads(run("small", "--json", "--build", folder).stdout)["synthesis"]
    assert [row["source"] for row in whole] == ["routed", *sources]


def test_what_cannot_be_read_is_an_error_or_a_warning(tmp_path: Path) -> None:
    shutil.copy(next(DATA.glob("01*/csynth.xml")), tmp_path / "csynth.xml")
    (tmp_path / "csynth.rpt").write_text("== Synthesis Summary Report of 'myproject'\n")
    result = run("--from", tmp_path)
    assert result.exit_code == 0
    assert f"salt-hls: warning: {tmp_path / 'csynth.rpt'}: " in result.stderr
    (tmp_path / "vivado_synth.rpt").write_text("cut")
    result = run("--from", tmp_path)
    assert result.exit_code == 1
    assert f"salt-hls: {tmp_path / 'vivado_synth.rpt'}: " in result.stderr
    assert "122,749" in result.stdout  # what is readable is shown all the same


def test_wrong_use(tmp_path: Path) -> None:
    assert run().exit_code == 2
    for arguments, words in (
        (("salt_p4", "--build", tmp_path), "no such build; `salt-hls firmware salt_p4` makes it"),
        (("salt_p5", "--build", tmp_path), "not one of the shipped models"),
        (("--from", tmp_path / "none"), "no such folder"),
        (("--from", tmp_path), "no vendor report found"),
        (
            ("small", "--budget", "nosuch", "--build", build(tmp_path / "b")),
            "--budget nosuch: no such budget",
        ),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, UserError) and words in str(result.exception)
