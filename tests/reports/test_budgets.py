"""Trigger budgets: the YAML files, the choice of the best source, and what never passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from salt_hls.errors import UserError
from salt_hls.reports.budget import (
    SYNTH,
    Budget,
    best_figures,
    device_of,
    judge,
    load_budget,
    load_parts,
)
from salt_hls.reports.model import BudgetVerdict, Report, SynthesisRecord
from salt_hls.reports.vendor import read_reports

from .support import DATA

PART = "xcvu13p-flga2577-2-e"
FITS: dict[str, Any] = {
    "source": "yosys",
    "stage": "rtl-synth",
    "part": PART,
    "lut": 200_000,
    "ff": 60_000,
    "dsp": 0,
    "bram18": 0,
    "uram": 0,
    "latency_cycles": 30,
    "ii_cycles": 1,
    "clock_ns": 2.5,
    "clock_estimated_ns": 2.3,
}


def record(**changes: Any) -> SynthesisRecord:
    return SynthesisRecord.model_validate(FITS | changes)


def judged(*records: SynthesisRecord, budget: str = "cms_l1t_jet", **report: Any) -> BudgetVerdict:
    made = Report(model="m", synthesis=list(records), **report)
    verdict = judge(made, load_budget(budget))
    assert verdict is not None
    return verdict


def failures(verdict: BudgetVerdict) -> dict[str, str | None]:
    assert verdict.passed == all(check.passed for check in verdict.checks)
    return {check.name: check.note for check in verdict.checks if not check.passed}


@pytest.mark.parametrize("name", ["cms_l1t_jet", "atlas_gep", "template"])
def test_committed_budgets_load(name: str) -> None:
    budget = load_budget(name)
    assert budget.name == name
    assert device_of(budget.part) in load_parts()


def test_limits_of_the_committed_budgets() -> None:
    limits = {check.name: check.limit for check in judged(record()).checks}
    assert limits == {
        "part": "xcvu13p",
        "clock_ns": 2.5,
        "latency_ns": 100.0,
        "ii_cycles": 3,
        "lut": 432_000,
        "ff": 864_000,
        "dsp": 3072,
        "bram18": 1344,
        "uram": 320,
    }
    limits = {c.name: c.limit for c in judged(record(), budget="atlas_gep").checks}
    assert limits["lut"] == 59_112  # 5 % of 1,182,240
    assert limits["latency_ns"] == 1200.0
    assert "clock_ns" not in limits


def test_parts_agree_with_the_reports_they_are_from() -> None:
    for path in DATA.iterdir():
        if not path.is_dir():
            continue
        for read in read_reports(path):
            part = load_parts().get(device_of(read.part)) if read.part else None
            if part and read.available:
                known = read.available.model_dump(exclude_none=True)
                assert part.device.model_dump(include=set(known)) == known, read.part
            if part and read.slr_available:
                assert part.slr == read.slr_available
    for part in load_parts().values():
        if part.slr:
            whole = {name: count * part.slrs for name, count in part.slr}
            assert whole == part.device.model_dump()


def test_a_design_that_fits() -> None:
    verdict = judged(record())
    assert failures(verdict) == {}
    assert verdict.source == "rtl-synth (yosys)"
    latency = next(check for check in verdict.checks if check.name == "latency_ns")
    assert (latency.value, latency.note) == (75.0, "30 cycles x 2.5 ns")


@pytest.mark.parametrize(
    ("changes", "name", "note"),
    [
        ({"latency_cycles": 41}, "latency_ns", "41 cycles x 2.5 ns"),
        ({"latency_cycles": (30, 31)}, "latency_ns", "range"),
        ({"latency_cycles": (30, None)}, "latency_ns", "range"),
        ({"latency_cycles": None}, "latency_ns", "unknown"),
        ({"ii_cycles": 4}, "ii_cycles", None),
        ({"ii_cycles": (1, 2)}, "ii_cycles", "range"),
        ({"ii_cycles": None}, "ii_cycles", "unknown"),
        ({"lut": 432_001}, "lut", None),
        ({"lut": None, "ff": None}, "lut", "unknown"),
        ({"uram": None}, "uram", "unknown"),
        ({"clock_estimated_ns": 2.6}, "clock_ns", "misses its target"),
        ({"clock_ns": 5.0}, "clock_ns", None),
        ({"clock_ns": None, "clock_estimated_ns": None}, "clock_ns", "unknown"),
        ({"whs_ns": -0.1}, "clock_ns", "hold time"),
        ({"part": "xcvu9p-flga2104-2L-e"}, "part", "another part"),
        ({"part": None}, "part", "unknown"),
        ({"black_boxes": 2}, "lut", "unknown"),
    ],
)
def test_what_fails(changes: dict[str, Any], name: str, note: str | None) -> None:
    found = failures(judged(record(**changes)))
    assert name in found
    assert (note or "") in (found[name] or "")


def test_a_slower_clock_lengthens_the_latency() -> None:
    verdict = judged(record(clock_estimated_ns=3.103, latency_cycles=30))
    assert {c.name: c.value for c in verdict.checks}["latency_ns"] == pytest.approx(93.09)


@pytest.mark.parametrize(
    "spelling",
    ["xcvu13pfhga2104-3", "xcvu13p-fhga2104 (-3)", "XCVU13P-flga2577-2-e", "xcvu13p"],
)
def test_spellings_of_a_part(spelling: str) -> None:
    assert "part" not in failures(judged(record(part=spelling)))


def test_package_and_speed_count_when_the_budget_names_them(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("part: xcvu13p-flga2577-2-e\nlatency_ns: 100\n")
    for part, passed in (("xcvu13pflga2577-2", True), (PART, True), ("xcvu13pfhga2104-3", False)):
        verdict = judged(record(part=part), budget=str(path))
        assert verdict.passed == passed


def test_the_best_source_wins_and_is_named() -> None:
    estimate = record(source="alkaid", stage="estimate", lut=1)
    csynth = record(source="csynth.xml", stage="csynth", lut=400_000, latency_cycles=35)
    vsynth = record(source="synth.rpt", stage="vsynth", lut=100_000, latency_cycles=None)
    placed = record(source="placed.rpt", stage="route", design_state="Fully Placed", lut=90_000)
    routed = record(source="routed.rpt", stage="route", design_state="Routed", lut=95_000)
    for records, lut in (
        ([estimate, record()], 200_000),
        ([estimate, record(), csynth], 400_000),
        ([csynth, vsynth], 100_000),
        ([csynth, vsynth, placed], 90_000),
        ([csynth, vsynth, routed, placed], 95_000),
    ):
        assert best_figures(Report(model="m", synthesis=records))["lut"].value == lut
    verdict = judged(csynth, vsynth)
    assert verdict.source == "vsynth (synth.rpt), csynth (csynth.xml)"
    sources = {check.name: check.source for check in verdict.checks}
    assert sources["lut"] == "vsynth (synth.rpt)"
    assert sources["latency_ns"] == "csynth (csynth.xml)"


def test_of_equal_stages_the_worst_counts() -> None:
    csynth = {"stage": "csynth", "kind": "csynth"}
    best = best_figures(
        Report(
            model="m",
            synthesis=[
                record(**csynth, source="a", lut=5, latency_cycles=40),
                record(**csynth, source="b", lut=9, latency_cycles=(10, 20)),
            ],
        )
    )
    assert best["lut"].value == 9
    assert best["latency_cycles"].value == (10, 20)


def test_one_simulation_does_not_prove_a_latency_the_tool_does_not_know() -> None:
    csynth = record(source="csynth.xml", stage="csynth", kind="csynth", latency_cycles=None)
    cosim = SynthesisRecord(source="c", stage="csynth", kind="cosim", latency_cycles=20)
    assert failures(judged(csynth, cosim))["latency_ns"] == "unknown"


def test_failed_simulations_and_pieces_of_a_design_are_no_figures() -> None:
    piece = record(source="part.rpt", stage="csynth", part_of="top", lut=1, latency_cycles=1)
    failed = SynthesisRecord(
        source="cosim.rpt", stage="csynth", kind="cosim", status="Fail", latency_cycles=1
    )
    verdict = judged(record(), piece, failed)
    assert verdict.source == "rtl-synth (yosys)"
    assert set(failures(judged(failed))) >= {"latency_ns", "lut", "part"}


def test_copies_must_fit_together(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("part: xcvu13p\nshare_of: slr\nshare: {lut: 0.5}\ncopies: 2\n")
    (_, lut) = judged(record(lut=108_001), budget=str(path)).checks
    assert (lut.limit, lut.value, lut.passed) == (216_000, 216_002, False)
    assert lut.note == "2 copies of 108,001"
    assert judged(record(lut=108_000), budget=str(path)).passed


def test_nothing_to_judge() -> None:
    assert judge(Report(model="m"), load_budget("template")) is None


def test_real_reports_with_traps() -> None:
    """Sample 12: black-box zeros and a submodule must not make the design look small."""
    verdict = judged(*read_reports(next(DATA.glob("12*"))))
    values = {check.name: check.value for check in verdict.checks}
    assert values["lut"] == 20386
    assert values["latency_ns"] == 9_446_100.0
    assert values["ii_cycles"] == (41032, 922001)
    assert not verdict.passed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("part: xcvu13p\nlatency: 100\n", "unknown key 'latency'"),
        ("part: xcvu13p\nlatency_ns: -1\n", "latency_ns: Input should be greater than 0"),
        ("part: xcvu13p\nshare: {lut: 1.5}\n", "share.lut"),
        ("part: xcvu13p\nshare: {luts: 0.5}\n", "unknown key 'share.luts'"),
        ("part: xcvu13p\n", "no limit given"),
        ("latency_ns: 100\n", "the key 'part' is missing"),
        ("part: xcvu13p\nlatency_ns: [1\n", "not valid YAML at line 3"),
        ("part: xcvu13p\nlatency_ns: 1\nlatency_ns: 2\n", "the key 'latency_ns' is there twice"),
        ("- part\n", "expected keys and values"),
        ("part: nosuch\nshare: {lut: 1}\n", "not in synth/parts.yaml"),
        ("part: xc7z020\nshare_of: slr\nshare: {lut: 1}\n", "no 'slr'"),
        ("part: xcvu13p\nlatency_ns: .nan\n", "latency_ns"),
    ],
)
def test_mistakes_are_one_line_with_file_key_and_fix(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_budget(str(path))
    assert words in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_unknown_budget_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="atlas_gep, cms_l1t_jet, template"):
        load_budget("nosuch")


def test_every_key_is_explained_in_the_template() -> None:
    text = (SYNTH / "budgets" / "template.yaml").read_text()
    assert set(yaml.safe_load(text)) == set(Budget.model_fields) - {"name"}
