"""Trigger budgets: the YAML files, the choice of the best source, and what never passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from salt_hls.errors import UserError
from salt_hls.report.budget import (
    Budget,
    best_figures,
    conditions,
    device_of,
    judge,
    load_budget,
    load_parts,
)
from salt_hls.report.readers import read_reports
from salt_hls.report.records import BudgetVerdict, Module, Report, SynthesisRecord
from salt_hls.system.paths import SYNTH

from .support import DATA, FIGURES

PART = "xcvu13p-flga2577-2-e"
FITS: dict[str, Any] = {"source": "yosys", "stage": "rtl-synth", "part": PART, **FIGURES}


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


def test_parts_are_read_once_from_the_file_that_is_given(tmp_path: Path) -> None:
    load_parts.cache_clear()
    assert "xcvu13p" in load_parts() and load_parts() is load_parts()
    other = tmp_path / "parts.yaml"
    other.write_text("mine: {device: {lut: 10, ff: 20, dsp: 0, bram18: 0, uram: 0}}\n")
    parts = load_parts(other)
    assert list(parts) == ["mine"] and parts["mine"].device.lut == 10


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
    ("changes", "name", "verdict", "note"),
    [
        ({"latency_cycles": 41}, "latency_ns", "fail", "41 cycles x 2.5 ns"),
        ({"latency_cycles": (30, 31)}, "latency_ns", "fail", "range"),
        ({"latency_cycles": (30, None)}, "latency_ns", "fail", "range"),
        ({"latency_cycles": None}, "latency_ns", "unproven", "unknown: no report gives it"),
        ({"ii_cycles": 4}, "ii_cycles", "fail", None),
        ({"ii_cycles": (1, 2)}, "ii_cycles", "fail", "range"),
        ({"ii_cycles": None}, "ii_cycles", "unproven", "unknown: no report gives it"),
        ({"lut": 432_001}, "lut", "fail", None),
        ({"lut": None, "ff": None}, "lut", "unproven", "unknown: no report gives it"),
        ({"uram": None}, "uram", "unproven", "`salt-hls synth` or a vendor's report does"),
        ({"clock_estimated_ns": 2.6}, "clock_ns", "fail", "misses its target of 2.5 ns"),
        ({"clock_ns": 5.0}, "clock_ns", "fail", None),
        ({"clock_ns": 5.0, "clock_estimated_ns": None}, "clock_ns", "fail", "the target"),
        ({"clock_estimated_ns": None}, "clock_ns", "unproven", "the target; nobody timed"),
        ({"clock_ns": None, "clock_estimated_ns": None}, "clock_ns", "unproven", "unknown: nobody"),
        ({"whs_ns": -0.1}, "clock_ns", "fail", "hold time is violated by 0.1 ns"),
        ({"wns_ns": -0.2}, "clock_ns", "fail", "another clock of the design misses its period"),
        ({"part": "xcvu9p-flga2104-2L-e"}, "part", "fail", "another part"),
        ({"part": None}, "part", "unproven", "unknown"),
        ({"black_boxes": 2}, "lut", "unproven", "unknown"),
    ],
)
def test_what_is_not_kept_or_not_proven(
    changes: dict[str, Any], name: str, verdict: str, note: str | None
) -> None:
    found = judged(record(**changes))
    assert name in failures(found) and (note or "") in (failures(found)[name] or "")
    (check,) = (check for check in found.checks if check.name == name)
    assert (check.verdict, check.passed, found.passed) == (verdict, False, False)
    assert check in found.of(check.verdict)


def by_levels(levels: int, **changes: Any) -> SynthesisRecord:
    """As Yosys leaves it: nobody timed it, its levels of logic are counted."""
    return record(clock_estimated_ns=None, levels=levels, **changes)


@pytest.mark.parametrize(
    ("levels", "period", "verdict", "note"),
    [
        (6, 2.5, "pass", "estimated from 6 levels of logic, not placed and routed"),
        (7, 2.65, "fail", "estimated from 7 levels of logic, not placed and routed; misses its "
         "target of 2.5 ns"),
    ],
)  # fmt: skip
def test_levels_of_logic_are_an_estimated_clock(
    levels: int, period: float, verdict: str, note: str
) -> None:
    """0.2 ns of registers and 0.35 ns a level, called an estimate; latency takes the longer."""
    found = {check.name: check for check in judged(by_levels(levels)).checks}
    clock, latency = found["clock_ns"], found["latency_ns"]
    assert (clock.value, clock.verdict, clock.estimated) == (period, verdict, True)
    assert clock.note == note
    assert (latency.value, latency.verdict, latency.estimated) == (30 * period, "pass", True)
    assert latency.note == f"30 cycles x {period:g} ns, estimated from {levels} levels of logic"
    assert not any(c.estimated for n, c in found.items() if n not in ("clock_ns", "latency_ns"))


def test_stages_over_their_budget_are_named() -> None:
    """By the text of the verdict, which the page shows too, and in JSON; the slowest first."""
    delays = {"logic0": 2.25, "logic1": 2.3, "logic2": 2.9}
    modules = [Module(name=name, delay_ns=ns) for name, ns in delays.items()]
    about = {"modules": modules, "clock_by_delays_ns": 3.222, "stage_budget_ns": 2.25}
    slow = by_levels(6, **about)
    assert slow.over_budget == ["logic2", "logic1"]
    assert json.loads(slow.model_dump_json())["over_budget"] == slow.over_budget
    found = {check.name: check for check in judged(slow).checks}
    assert (found["clock_ns"].value, found["clock_ns"].verdict) == (3.222, "fail")
    assert found["clock_ns"].note == (
        "estimated from the delays of 6 levels of logic, not placed and routed; 2 of 3 stages over "
        "the 2.25 ns of a stage: logic2 2.9 ns, logic1 2.3 ns; misses its target of 2.5 ns"
    )
    assert "30 cycles x 3.222 ns, estimated from the delays" in (found["latency_ns"].note or "")
    many = [Module(name=f"s{k}", delay_ns=2.3) for k in range(10)]
    note = judged(by_levels(6, **about | {"modules": many})).checks[1].note or ""
    assert "10 of 10 stages over" in note and note.count("2.3 ns") == 8 and "2 more" in note
    fits = by_levels(6, **about | {"modules": modules[:1]})
    assert fits.over_budget == [] and "over" not in (judged(fits).checks[1].note or "")


def test_a_rule_of_thumb_is_never_a_tools_timing() -> None:
    thumb = by_levels(7)
    assert (thumb.clock_by_levels_ns, thumb.clock_estimated_ns, thumb.needed_ns) == (
        2.65,
        None,
        2.65,
    )
    timed = record(levels=7)
    assert (timed.needed_ns, timed.period_ns) == (2.3, 2.5)
    # Of an unregistered DSP slice it knows nothing.
    products = by_levels(2, dsp=5)
    assert products.clock_by_levels_ns is None
    assert "clock_ns" in failures(judged(products)) and products.latency_ns == 75.0


def test_a_record_that_timed_the_logic_outweighs_targets() -> None:
    """Of a better stage too: the target of HLS is no timing, Yosys' levels are an estimate."""
    hls = record(source="csynth.xml", stage="csynth", clock_estimated_ns=None)
    assert best_figures(Report(model="m", synthesis=[hls, by_levels(7)]))["clock_ns"].value == 2.65
    routed = record(source="t.rpt", stage="route", clock_estimated_ns=2.41)
    clock = best_figures(Report(model="m", synthesis=[routed, by_levels(7)]))["clock_ns"]
    assert (clock.value, clock.record) == (2.5, routed)


def test_a_latency_at_a_clock_that_nobody_timed_is_unproven() -> None:
    untimed = record(clock_estimated_ns=None)
    for records, report in (([untimed], {}), ([record(clock_ns=None, clock_estimated_ns=None)],
                                              {"clock_ns": 2.5})):  # fmt: skip
        (latency,) = (c for c in judged(*records, **report).checks if c.name == "latency_ns")
        assert (latency.value, latency.verdict) == (75.0, "unproven")
        assert latency.note and latency.note.startswith("30 cycles x 2.5 ns, the target; nobody")
    late = record(clock_estimated_ns=None, latency_cycles=50)
    assert "latency_ns" in {check.name for check in judged(late).of("fail")}


@pytest.mark.parametrize(
    ("stage", "words"),
    [("csynth", "estimated by HLS, not placed and routed"),
     ("vsynth", "timed by logic synthesis, not placed and routed"), ("route", None)],
)  # fmt: skip
def test_how_a_clock_was_timed_is_said(stage: str, words: str | None) -> None:
    (clock,) = (c for c in judged(record(stage=stage)).checks if c.name == "clock_ns")
    assert (clock.verdict, clock.note) == ("pass", words)


@pytest.mark.parametrize(("uncertainty", "verdict"), [(0.2, "pass"), (0.21, "unproven")])
def test_a_clock_with_its_uncertainty_above_the_limit_is_unproven(
    uncertainty: float, verdict: str
) -> None:
    hls = record(stage="csynth", clock_uncertainty_ns=uncertainty)
    (clock,) = (c for c in judged(hls).checks if c.name == "clock_ns")
    assert clock.verdict == verdict
    assert ("uncertainty 2.51 ns, above the limit" in (clock.note or "")) == (verdict != "pass")


def test_conditions_of_the_figures() -> None:
    def told(*records: SynthesisRecord) -> str:
        return conditions(best_figures(Report(model="m", synthesis=list(records))))

    assert told(by_levels(7)) == "at a 2.5 ns target, not placed and routed"
    assert told(record(stage="route", clock_ns=3)) == "at a 3 ns target, placed and routed"
    assert told(record(clock_ns=None, clock_estimated_ns=None)) == "not placed and routed"


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


def test_unknown_is_worse_than_a_range_which_is_worse_than_a_value() -> None:
    told = {"stage": "csynth", "kind": "csynth"}
    known, ranged, unknown = (
        record(**told, source=name, latency_cycles=cycles)
        for name, cycles in (("a", 90), ("b", (10, 20)), ("c", None))
    )
    for records, worst in (([known, ranged], (10, 20)), ([ranged, unknown, known], None)):
        for order in (records, records[::-1]):
            best = best_figures(Report(model="m", synthesis=order))["latency_cycles"]
            assert best.value == worst and best.record is not None


def test_one_simulation_does_not_prove_a_latency_the_tool_does_not_know() -> None:
    csynth = record(source="csynth.xml", stage="csynth", kind="csynth", latency_cycles=None)
    cosim = SynthesisRecord(source="c", stage="csynth", kind="cosim", latency_cycles=20)
    note = failures(judged(csynth, cosim))["latency_ns"]
    assert note == "unknown: csynth (csynth.xml) does not know it; it may depend on the data"


def test_failed_simulations_and_pieces_of_a_design_are_no_figures() -> None:
    piece = record(source="part.rpt", stage="csynth", part_of="top", lut=1, latency_cycles=1)
    failed = SynthesisRecord(
        source="cosim.rpt", stage="csynth", kind="cosim", status="Fail", latency_cycles=1
    )
    verdict = judged(record(), piece, failed)
    assert verdict.source == "rtl-synth (yosys)"
    assert set(failures(judged(failed))) >= {"latency_ns", "lut", "part"}
    (simulation,) = verdict.of("fail")
    assert (simulation.name, simulation.note) == ("simulation", "failed: csynth (cosim.rpt)")


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
