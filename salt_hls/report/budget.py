"""Trigger budgets: limits a user writes in YAML, applied to the best figures of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, RootModel, model_validator

from salt_hls.config import load_yaml
from salt_hls.errors import UserError
from salt_hls.report.records import (
    RESOURCES,
    BudgetCheck,
    BudgetVerdict,
    Report,
    Resources,
    Stage,
    Strict,
    SynthesisRecord,
    Verdict,
    latency_ns,
)
from salt_hls.system.paths import SYNTH
from salt_hls.system.wording import option

DEFAULT_BUDGET = "cms_l1t_jet"

STAGES: tuple[Stage, ...] = ("route", "vsynth", "csynth", "rtl-synth", "estimate")
"""From the most to the least trustworthy source of a figure."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class Shares(Strict):
    """Fractions, 0 to 1, of the resources of a device or SLR."""

    lut: Fraction | None = None
    ff: Fraction | None = None
    dsp: Fraction | None = None
    bram18: Fraction | None = None
    uram: Fraction | None = None


class Budget(Strict):
    """Room for one tagger: clock and latency in ns, II in clock cycles, shares of a device.

    name: that of its file. A limit that is null is not judged. `copies` instances must fit into
    the shares together.
    """

    name: str = ""
    part: str
    clock_ns: PositiveFloat | None = None
    latency_ns: PositiveFloat | None = None
    ii_cycles: PositiveInt | None = None
    share_of: Literal["device", "slr"] = "device"
    share: Shares = Shares()
    copies: PositiveInt = 1

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        limits = (self.clock_ns, self.latency_ns, self.ii_cycles)
        if limits == (None,) * 3 and self.share == Shares():
            raise ValueError("no limit given: clock_ns, latency_ns, ii_cycles or share")
        return self


class Part(Strict):
    """Resources of a device, and of one of its `slrs` dies where they are several and equal."""

    device: Resources
    slrs: PositiveInt = 1
    slr: Resources | None = None


class Parts(RootModel[dict[str, Part]]):
    """The content of parts.yaml."""


def load_budget(name: str | Path, folder: Path = SYNTH / "budgets") -> Budget:
    """The budget `name` of `folder`, or the YAML file at path `name`."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(
            f"{option('budget', name)}: no such budget; known: {known}; or give the path of a YAML "
            "file"
        )
    budget = load_yaml(path, Budget).model_copy(update={"name": path.stem})
    for resource, share in budget.share:
        if share is not None and getattr(_room(budget, path), resource) is None:
            raise UserError(f"{path}: share.{resource}: parts.yaml does not say how many there are")
    return budget


@cache
def load_parts(path: Path = SYNTH / "parts.yaml") -> dict[str, Part]:
    """Devices of parts.yaml, by device name without package and speed grade."""
    return load_yaml(path, Parts).root


class Best(NamedTuple):
    """A figure and the record it is from; None and None when no record knows it."""

    value: Any
    record: SynthesisRecord | None


def best_figures(report: Report) -> dict[str, Best]:
    """The figures to judge a design by: cycles, ns and resource counts, by field name.

    Each is taken from the best stage that knows it (route > vsynth > csynth > rtl-synth >
    estimate), and there from the worst record. Pieces of a design, failed simulations and
    counts that leave out black boxes are no figures. `latency_ns` is the cycles times the
    period of the best source of the clock, `clock_ns` that period: max(target, needed), of a
    record that timed the logic where there is one.
    """
    whole = [r for r in report.synthesis if r.part_of is None and not r.failed]
    counted = [r for r in whole if not r.black_boxes]
    clock = _best([r for r in whole if r.needed_ns is not None] or whole, "period_ns")
    cycles = _best(whole, "latency_cycles", told=True)
    ns = latency_ns(cycles.value, clock.value or report.clock_ns)
    if ns is None and cycles.record is not None and cycles.value is not None:
        ns = cycles.record.latency_ns  # a summary that gives cycles and ns, but no clock
    return {
        "clock_ns": clock,
        "latency_cycles": cycles,
        "latency_ns": Best(ns, cycles.record),
        "ii_cycles": _best(whole, "ii_cycles", told=True),
        **{name: _best(counted, name) for name in RESOURCES},
    }


def judge(report: Report, budget: Budget) -> BudgetVerdict | None:
    """Apply `budget` to the best figures of `report`; None when it has no synthesis record.

    What nobody knows or timed is unproven. A range fails, and so does a failed simulation.
    """
    if not report.synthesis:
        return None
    best = best_figures(report)
    checks = [_check_part(budget.part, report, best["lut"].record)]
    if budget.clock_ns is not None:
        checks.append(_check_clock(budget.clock_ns, best["clock_ns"]))
    if budget.latency_ns is not None:
        checks.append(_check_latency(budget.latency_ns, best, report.clock_ns))
    if budget.ii_cycles is not None:
        checks.append(_check("ii_cycles", budget.ii_cycles, best["ii_cycles"]))
    room = _room(budget)
    for resource, share in budget.share:
        if share is not None:
            limit = math.floor(share * getattr(room, resource) + 1e-9)
            used, note = best[resource], None
            if used.value is not None and budget.copies > 1:
                note = f"{budget.copies} copies of {used.value:,}"
                used = used._replace(value=used.value * budget.copies)
            checks.append(_check(resource, limit, used, note))
    failed = [describe(record) for record in report.synthesis if record.failed]
    if failed:
        checks.append(
            BudgetCheck(
                name="simulation",
                limit="pass",
                value="fail",
                verdict="fail",
                note=f"failed: {', '.join(map(str, failed))}",
            )
        )
    sources = dict.fromkeys(check.source for check in checks if check.source)
    return BudgetVerdict(
        name=budget.name,
        source=", ".join(sources) or "unknown",
        passed=all(check.passed for check in checks),
        checks=checks,
    )


def limit_of(budget: Budget, figure: Literal["lut", "latency_ns"]) -> float | None:
    """The limit of a figure of one instance, if the budget has one."""
    if figure == "latency_ns":
        return budget.latency_ns
    share, room = budget.share.lut, _room(budget).lut
    return None if share is None or room is None else math.floor(share * room) / budget.copies


def describe(record: SynthesisRecord | None) -> str | None:
    """Stage and source of a record, e.g. `vsynth (vivado_synth.rpt)`."""
    return None if record is None else f"{record.stage} ({record.source})"


def slow(record: SynthesisRecord, most: int = 8) -> str:
    """Names the stages whose delay is over the stage budget, the slowest first."""
    stages = record.slow_stages
    names = [f"{stage.name} {stage.delay_ns:g} ns" for stage in stages[:most]]
    if len(stages) > most:
        names.append(f"{len(stages) - most} more")
    among = f"{len(stages)} of {len(record.modules)} stages"
    return f"{among} over the {record.stage_budget_ns:g} ns of a stage: {', '.join(names)}"


def conditions(best: dict[str, Best]) -> str:
    """What to say beside the figures: the clock they are for, and whether it was routed."""
    record = best["clock_ns"].record
    target = f"at a {record.clock_ns:g} ns target, " if record and record.clock_ns else ""
    routed = record is not None and record.stage == "route"
    return f"{target}{'' if routed else 'not '}placed and routed"


def _best(records: Iterable[SynthesisRecord], figure: str, *, told: bool = False) -> Best:
    """The worst value of the field `figure` in the best stage that knows it, and its record.

    With `told`, a C synthesis report that does not know counts, as the worst: `?` there means
    that the value depends on the data, and one simulation of it is no proof.
    """
    found = [Best(getattr(r, figure), r) for r in records]
    for stage in STAGES:
        of_stage = [
            (value, record)
            for value, record in found
            if record is not None
            and record.stage == stage
            and (value is not None or (told and record.kind == "csynth"))
        ]
        # implementation writes reports when placed and again when routed: the later is better
        routed = [pair for pair in of_stage if "rout" in (pair[1].design_state or "").lower()]
        if of_stage:
            return Best(*max(routed or of_stage, key=lambda pair: _badness(*pair)))
    return Best(None, None)


def _badness(value: object, record: SynthesisRecord) -> tuple[int, float, bool]:
    """Orders figures: one value < a range < unknown; of equal ones, the fuller report last."""
    full = record.kind != "csynth_summary"
    if isinstance(value, (int, float)):
        return 0, value, full
    return (1, 0, full) if isinstance(value, tuple) else (2, 0, full)


def _check(name: str, limit: float, best: Best, note: str | None = None) -> BudgetCheck:
    value, record = best
    verdict: Verdict = "pass"
    if value is None:
        verdict = "unproven"
        note = (
            "unknown: no report gives it; `salt-hls synth` or a vendor's report does"
            if record is None
            else f"unknown: {describe(record)} does not know it; it may depend on the data"
        )
    elif isinstance(value, tuple):
        verdict, note = "fail", "a range is not trigger-ready: it must be one fixed value"
    elif value > limit + 1e-9:
        verdict = "fail"
    return BudgetCheck(
        name=name,
        limit=limit,
        value=value,
        verdict=verdict,
        estimated=record is not None and record.stage == "estimate",
        source=describe(record),
        note=note,
    )


def _check_part(wanted: str, report: Report, record: SynthesisRecord | None) -> BudgetCheck:
    """Whether the resources were counted for the wanted device."""
    part = (record.part if record else None) or report.part
    short, long = sorted((_spell(wanted), _spell(part or "")), key=len)
    fits = long.startswith(short) and short.startswith(_spell(device_of(wanted)))
    return BudgetCheck(
        name="part",
        limit=wanted,
        value=part,
        verdict="unproven" if part is None else "pass" if fits else "fail",
        source=describe(record),
        note=None if fits else "built for another part" if part else "unknown: no report names it",
    )


def _spell(part: str) -> str:
    """`xcvu13p-flga2577-2-e` as Vivado of every year spells it: vu13pflga25772e or a start."""
    return re.sub("[^a-z0-9]", "", part.lower()).removeprefix("xc")


def _check_clock(limit: float, best: Best) -> BudgetCheck:
    check, record = _check("clock_ns", limit, best), best.record
    if record is None:
        check.note = "unknown: nobody timed the logic; place and route does"
        return check
    target, needed = record.clock_ns, record.needed_ns
    if record.whs_ns is not None and record.whs_ns < 0:
        check.verdict, check.note = "fail", f"hold time is violated by {-record.whs_ns:g} ns"
        return check
    if needed is None:
        if check.passed:
            check.verdict = "unproven"
        check.note = f"the target; {UNTIMED}"
        return check
    notes = [TIMED[record.stage]] if record.stage in TIMED else []
    if record.clock_estimated_ns is None:
        check.estimated = True
        notes = [f"estimated from {record.timed_by}, not placed and routed"]
        if record.slow_stages:
            notes.append(slow(record))
    if target is not None and needed > target:
        notes.append(f"misses its target of {target:g} ns")
    elif record.wns_ns is not None and record.wns_ns < 0:
        check.verdict = "fail"
        notes.append(f"another clock of the design misses its period by {-record.wns_ns:g} ns")
    elif check.passed and needed + (record.clock_uncertainty_ns or 0) > limit + 1e-9:
        check.verdict = "unproven"
        total = needed + (record.clock_uncertainty_ns or 0)
        notes.append(f"with the tool's uncertainty {total:g} ns, above the limit")
    check.note = "; ".join(notes) or None
    return check


UNTIMED = "nobody timed the logic: `salt-hls synth` estimates it, place and route proves it"
TIMED: dict[Stage, str] = {
    "vsynth": "timed by logic synthesis, not placed and routed",
    "csynth": "estimated by HLS, not placed and routed",
}


def _check_latency(limit: float, best: dict[str, Best], target: float | None) -> BudgetCheck:
    """In ns, at the best known clock period; `target` where no record knows one."""
    cycles, clock = best["latency_cycles"].value, best["clock_ns"]
    period, timer = clock.value or target, clock.record
    at = f"{cycles:,} cycles x {period:g} ns" if isinstance(cycles, int) and period else None
    check = _check("latency_ns", limit, best["latency_ns"], at)
    if not (at and isinstance(check.value, float)):
        return check
    if timer is None or timer.needed_ns is None:
        check.note = f"{at}, the target; {UNTIMED}"
        if check.passed:
            check.verdict = "unproven"
    elif timer.clock_estimated_ns is None:
        check.estimated = True
        check.note = f"{at}, estimated from {timer.timed_by}"
    return check


def _room(budget: Budget, path: Path | None = None) -> Resources:
    """What the shares of `budget` are shares of."""
    where = f"{path or 'budget ' + budget.name}: "
    part = load_parts().get(device_of(budget.part))
    if part is None:
        raise UserError(f"{where}part '{budget.part}' is not in {SYNTH.name}/parts.yaml; add it")
    if budget.share_of == "device":
        return part.device
    if part.slr is None:
        raise UserError(f"{where}share_of: parts.yaml has no 'slr' for {budget.part}; use device")
    return part.slr


def device_of(part: str) -> str:
    """The device of parts.yaml that `part` (with package and speed or not) is; else `part`."""
    known = [name for name in load_parts() if _spell(part).startswith(_spell(name))]
    return max(known, key=len, default=part)
