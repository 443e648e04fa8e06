"""report.json: the stable interface, ranges and unknowns, reading and writing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from salt_hls.errors import UserError
from salt_hls.report.readers import read_reports
from salt_hls.report.records import (
    BitAccuracy,
    BudgetCheck,
    BudgetVerdict,
    Module,
    Physics,
    Report,
    RocCurve,
    SynthesisRecord,
    json_schema,
    latency_ns,
)
from salt_hls.system.paths import CHECKOUT as ROOT

from .support import DATA

REPORT = Report(
    model="salt_p4",
    backend="Vitis",
    io_type="io_parallel",
    part="xcvu13p-flga2577-2-e",
    clock_ns=2.5,
    n_particles=32,
    n_partitions=4,
    versions={"hls4ml": "1.3.0", "alkaid": "0.8.2"},
    inputs_sha256="0" * 64,
    bit_accuracy=[
        BitAccuracy(pair="keras/csim", layer="out", events=10, values=50, mismatches=0, max_lsb=0)
    ],
    physics=Physics.model_validate(
        {
            "dataset": "d",
            "events": 10,
            "accuracy": {"float": 0.6, "csim": 0.59},
            "auc": {"quantized": 0.9},
            "roc": [{"label": "t", "model": "csim", "signal": [0, 1], "background": [0.01, 1]}],
        }
    ),
    synthesis=[
        SynthesisRecord(
            source="yosys",
            stage="rtl-synth",
            lut=1,
            latency_cycles=(3, 4),
            clock_ns=2.5,
            modules=[Module(name="dense", latency_cycles=2)],
        )
    ],
)


def test_keys_of_the_stable_interface() -> None:
    data = json.loads(REPORT.to_json())
    assert list(data) == [
        "schema", "model", "backend", "io_type", "part", "clock_ns", "n_particles",
        "n_partitions", "versions", "inputs_sha256", "bit_accuracy", "physics", "synthesis",
        "budget", "verdict", "bit_exact",
    ]  # fmt: skip
    assert (data["schema"], data["verdict"], data["bit_exact"]) == (3, "unproven", True)
    assert set(data["physics"]["accuracy"]) == {"float", "quantized", "csim"}
    (record,) = data["synthesis"]
    assert list(record)[:11] == [
        "source", "stage", "lut", "ff", "dsp", "bram18", "uram", "latency_cycles", "ii_cycles",
        "clock_ns", "latency_ns",
    ]  # fmt: skip
    assert record["ff"] is None  # unknown is null, never 0 and never left out
    assert record["latency_ns"] == [7.5, 10.0]
    assert "wns_ns" not in record  # what the source does not give is not written


def test_write_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    REPORT.write(path)
    assert Report.read(path) == REPORT
    first = path.read_bytes()
    REPORT.write(path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    mixed = REPORT.model_copy(update={"versions": dict(reversed(REPORT.versions.items()))})
    assert mixed.to_json().encode() == first


def test_every_vendor_record_survives_json() -> None:
    records = [r for p in DATA.iterdir() if p.is_dir() for r in read_reports(p)]
    report = Report(model="m", synthesis=records)
    assert Report.model_validate_json(report.to_json()) == report


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    REPORT.write(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UserError, match="disk full"):
        REPORT.model_copy(update={"model": "other"}).write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        ('{"schema": 1', "Invalid JSON"),
        (
            '{"schema": 4, "model": 7, "new": 1}',
            "schema 4 of a newer salt-hls",
        ),
        ('{"schema": 0, "model": "m"}', "schema: Input should be 3, got '0'"),
        ('{"schema": "3", "model": "m"}', "schema: Input should be 3, got '3'"),
        ('{"schema": 3, "model": 7}', "model: "),
        ("[3]", "Input should be an object"),
        ('{"schema": 1}', "the key 'model' is missing"),
        ('{"model": "m", "extra": 0}', "unknown key 'extra'"),
        ('{"model": "m", "synthesis": [{"source": "s", "stage": "maybe"}]}', "synthesis.0.stage"),
        ('{"model": "m", "clock_ns": NaN}', "clock_ns"),
    ],
)
def test_bad_files_are_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        Report.read(path)
    assert words in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`salt-hls firmware` of the model"):
        Report.read(tmp_path / "report.json")


def test_earlier_reports_are_read_and_written_again_as_the_present_one(tmp_path: Path) -> None:
    data = json.loads(REPORT.to_json())
    for key in ("verdict", "bit_exact"):
        del data[key]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**data, "schema": 1}))
    read = Report.read(path)
    assert read == REPORT
    read.write(path)
    assert path.read_text() == REPORT.to_json()


def test_what_is_computed_is_never_read() -> None:
    data = json.loads(REPORT.to_json())
    lie = Report.model_validate({**data, "verdict": "pass", "bit_exact": False})
    assert (lie.verdict, lie.bit_exact) == ("unproven", True)
    assert Report(model="m").bit_exact is None
    wrong = REPORT.bit_accuracy[0].model_copy(update={"mismatches": 1})
    assert Report(model="m", bit_accuracy=[*REPORT.bit_accuracy, wrong]).bit_exact is False


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [(["pass", "pass"], "pass"), (["pass", "unproven"], "unproven"),
     (["unproven", "fail", "pass"], "fail")],
)  # fmt: skip
def test_the_verdict_is_the_worst_of_the_limits(verdicts: list[str], whole: str) -> None:
    checks = [
        BudgetCheck.model_validate({"name": "lut", "limit": 1, "value": 1, "verdict": v})
        for v in verdicts
    ]
    passed = all(check.passed for check in checks)
    judged = BudgetVerdict(name="b", source="s", passed=passed, checks=checks)
    assert Report(model="m", budget=judged).verdict == whole


def test_the_documented_schema_is_that_of_the_records() -> None:
    """docs/report.schema.json for programs, docs/report.md for people, every key of both."""
    schema = json_schema()
    path = ROOT / "docs" / "report.schema.json"
    assert json.loads(path.read_text()) == schema, f"salt-hls report --schema > {path}"
    page = (ROOT / "docs" / "report.md").read_text()
    assert f"schema {schema['properties']['schema']['const']}" in page
    parts = {part.split("\n")[0].strip("` "): part for part in page.split("\n## ")}
    for name, record in {**schema["$defs"], "report": schema}.items():
        told = set(re.findall(r"^\| (`[^|]*) \|", parts[name], re.MULTILINE))
        listed = {key for cell in told for key in re.findall(r"`(\w+)`", cell)}
        assert listed == set(record["properties"]), name


def test_latency_arithmetic() -> None:
    assert latency_ns(14409, 18.982) == 273511.638
    assert latency_ns((5, None), 2.0) == (10.0, None)
    assert latency_ns(None, 2.0) is None
    assert latency_ns(3, None) is None
    slow = SynthesisRecord(
        source="s", stage="csynth", latency_cycles=10, clock_ns=2.5, clock_estimated_ns=3.1
    )
    assert slow.latency_ns == 31.0


def test_levels_become_a_clock_of_their_own() -> None:
    record = SynthesisRecord(
        source="yosys", stage="rtl-synth", latency_cycles=86, clock_ns=2.5, levels=7
    )
    data = json.loads(record.model_dump_json())
    assert (data["clock_by_levels_ns"], data["latency_ns"]) == (2.65, 227.9)
    assert "clock_estimated_ns" not in data
    assert SynthesisRecord.model_validate(data) == record
    # Earlier versions counted the levels, but wrote the latency at the target.
    del data["clock_by_levels_ns"]
    assert SynthesisRecord.model_validate(data | {"latency_ns": 215.0}) == record


def test_verdicts_of_earlier_versions_are_read() -> None:
    check = {"name": "lut", "limit": 5, "value": 6, "source": "yosys", "note": None}
    for passed, verdict in ((True, "pass"), (False, "fail")):
        read = BudgetCheck.model_validate(check | {"passed": passed})
        assert (read.verdict, read.passed, read.estimated) == (verdict, passed, False)
    for verdict in ("pass", "fail", "unproven"):
        made = BudgetCheck.model_validate(check | {"verdict": verdict})
        data = json.loads(made.model_dump_json())
        assert data["passed"] == (verdict == "pass") and data["verdict"] == verdict
        assert BudgetCheck.model_validate(data) == made
    for wrong in ({}, {"verdict": "maybe"}, {"passed": True, "extra": 1}):
        with pytest.raises(ValidationError):
            BudgetCheck.model_validate(check | wrong)


def test_impossible_figures_are_refused() -> None:
    with pytest.raises(ValidationError):
        SynthesisRecord(source="s", stage="csynth", lut=-1)
    with pytest.raises(ValidationError):
        SynthesisRecord(source="s", stage="csynth", clock_ns=float("inf"))
    with pytest.raises(ValidationError, match="equal lengths"):
        RocCurve(label="t", model="csim", signal=[0.1], background=[])
