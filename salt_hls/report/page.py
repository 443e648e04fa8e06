"""report.html: one self-contained page of a report, verdict first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from salt_hls.report.budget import STAGES, Best, best_figures, conditions, slow
from salt_hls.report.records import (
    RESOURCES,
    BudgetCheck,
    Module,
    Physics,
    Report,
    RocCurve,
    SynthesisRecord,
    write_text,
)

LABELS = {
    "part": "Part",
    "clock_ns": "Clock",
    "latency_ns": "Latency",
    "latency_cycles": "Latency",
    "ii_cycles": "II",
    "lut": "LUT",
    "ff": "FF",
    "dsp": "DSP",
    "bram18": "BRAM 18k",
    "uram": "URAM",
    "simulation": "Simulation",
}
UNITS = {"clock_ns": "ns", "latency_ns": "ns", "latency_cycles": "cycles", "ii_cycles": "cycles"}
KINDS = {
    "csim": "C simulation",
    "cosim": "C/RTL co-simulation",
    "cosim_lat": "C/RTL co-simulation",
    "cosim_transaction": "C/RTL co-simulation",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9")  # Okabe and Ito
DASHES = {"csim": "", "quantized": "7 4", "float": "1.5 4"}
HISTORY = 5  # earlier reports shown
PARTS = 48  # pipeline parts shown
STAGES_AS_BARS = 24  # of a pipeline with more, a profile is shown


def write_html(report: Report, path: Path, history: Sequence[tuple[str, Report]] = ()) -> None:
    """Write the page of `report`; `history` is (label, earlier report), oldest first."""
    write_text(path, render_html(report, history))


def render_html(report: Report, history: Sequence[tuple[str, Report]] = ()) -> str:
    """The page as text; sections without content are left out."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=_figure, short=_short_name)
    best = best_figures(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        labels=LABELS,
        verdict=_verdict(report),
        conditions=conditions(best) if report.synthesis else "",
        key_figures=_key_figures(report, best),
        checks=[_bar(check) for check in report.budget.checks] if report.budget else [],
        pipeline=_pipeline(report.synthesis),
        bits=_bits(report),
        roc=_roc(report.physics),
        sources=_sources(report.synthesis),
        history=_history([*history[-HISTORY:], ("this report", report)]) if history else None,
    )


def _figure(value: Any, unit: str = "") -> str:
    """A number as people read it; a range with a dash; unknown as such."""
    if value is None:
        return "unknown"
    if isinstance(value, (tuple, list)):
        low, high = ("?" if end is None else _figure(end) for end in value)
        text = f"{low}\u2013{high}"
    elif isinstance(value, str):
        return value
    elif isinstance(value, int) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.4g}"
    return f"{text}\u00a0{_unit(value, unit)}" if unit else text


def _unit(value: Any, unit: str) -> str:
    if value is None:
        return ""
    return unit.removesuffix("s") if value == 1 and unit != "ns" else unit


def _short_name(name: str) -> str:
    """`dense_array_ap_fixed_32u_..._config4_s` of HLS as `dense config4`."""
    found = re.match(r"(.+?)_(?:array_|ap_u?fixed_)\w*?_?(config\d+)(?:_s)?$", name)
    return f"{found[1]} {found[2]}" if found else name


class _Verdict(NamedTuple):
    tone: str  # good, bad, warn or open
    headline: str
    bits: str
    budget: str


def _verdict(report: Report) -> _Verdict:
    wrong = [entry for entry in report.bit_accuracy if entry.mismatches]
    failed = [record for record in report.synthesis if record.failed]
    values = sum(entry.values for entry in report.bit_accuracy)
    if wrong:
        bits = (
            f"{sum(entry.mismatches for entry in wrong):,} of {values:,} compared values differ, "
            f"first in {wrong[0].layer} ({wrong[0].pair})."
        )
    elif values:
        bits = f"Bit-exact: {values:,} values compared, none differs."
    else:
        bits = "No bits were compared."
    bits += "".join(f" {note}" for record in failed for note in record.notes)

    budget = report.budget
    if budget is None:
        text = "No budget was applied." if report.synthesis else "No hardware figures yet."
    elif budget.passed:
        text = f"Every limit of {budget.name} is kept."
    else:
        kept = [
            f"{len(checks)} {phrase} ({_names(checks)})"
            for checks, phrase in (
                (budget.of("fail"), "not kept"),
                (budget.of("unproven"), "not proven"),
            )
            if checks
        ]
        text = f"{budget.name}, of {len(budget.checks)} limits: {', '.join(kept)}."
    estimated = [check for check in budget.checks if check.estimated] if budget else []
    if estimated:
        text += f" By estimate, not measured: {_names(estimated)}."

    if wrong:
        return _Verdict("bad", "Not bit-exact", bits, text)
    if failed:
        return _Verdict("bad", "Simulation failed", bits, text)
    if budget is not None and budget.of("fail"):
        return _Verdict("bad", _failure(budget.of("fail")), bits, text)
    if budget is not None and not budget.passed:
        return _Verdict("warn", "Budget not proven", bits, text)
    if budget is not None:
        headline = "Fits its budget, by estimate" if estimated else "Fits its budget"
        headline = headline if values else f"{headline}; bits not compared"
        return _Verdict("good" if values and not estimated else "open", headline, bits, text)
    if values:
        return _Verdict("good", "Bit-exact", bits, text)
    return _Verdict("open", "Not judged", bits, text)


def _names(checks: Sequence[BudgetCheck]) -> str:
    return ", ".join(LABELS.get(check.name, check.name) for check in checks)


def _failure(failures: Sequence[BudgetCheck]) -> str:
    if any(isinstance(check.value, (int, float)) for check in failures):
        return "Over budget"
    if any(isinstance(check.value, tuple) for check in failures):
        return "Not trigger-ready"
    return "Built for another part"


def _key_figures(report: Report, best: dict[str, Best]) -> list[dict[str, Any]]:
    timer = best["clock_ns"].record
    by_levels = timer is not None and timer.needed_ns != timer.clock_estimated_ns
    figures = [
        {
            "label": LABELS[name],
            "text": _figure(best[name].value),
            "unit": _unit(best[name].value, UNITS.get(name, "")),
            "range": isinstance(best[name].value, tuple),
            "stage": record.stage,
            "estimated": name in ("clock_ns", "latency_ns") and by_levels,
        }
        for name in ("latency_ns", "clock_ns", "ii_cycles", *RESOURCES)
        if (record := best[name].record) is not None
    ]
    if report.physics is not None:
        scores = report.physics.accuracy
        for model, score in (
            ("C-simulation", scores.csim),
            ("quantized model", scores.quantized),
            ("float model", scores.float_),
        ):
            if score is not None:
                text = f"{100 * score:.2f}"
                figures.append(
                    {"label": "Accuracy", "text": text, "unit": "%", "stage": model}
                    | {"range": False, "estimated": False}
                )
                break
    return figures


def _bar(check: BudgetCheck) -> dict[str, Any]:
    """Geometry of one limit in percent of the row: fill up to the value, mark at the limit."""
    numeric = isinstance(check.value, (int, float)) and isinstance(check.limit, (int, float))
    unit = UNITS.get(check.name, "")
    bar = {
        "check": check,
        "label": LABELS.get(check.name, check.name),
        "value": _figure(check.value),
        "limit": _figure(check.limit, unit),
        "stage": (check.source or "").split(" ")[0],
        "fill": None,
    }
    if numeric:
        value, limit = float(check.value or 0), float(check.limit)  # type: ignore[arg-type]
        scale = max(value, limit * 1.25) or 1
        bar |= {
            "fill": f"{100 * value / scale:.2f}",
            "mark": f"{100 * limit / scale:.2f}",
            "share": f"{100 * value / limit:,.0f}\u00a0%" if limit else "",
        }
    return bar


def _pipeline(records: Sequence[SynthesisRecord]) -> dict[str, Any] | None:
    """Bars of the parts of the design, in percent of its length in clock cycles."""

    def ends(module: Module) -> tuple[int, int] | None:
        cycles = module.latency_cycles
        low, high = cycles if isinstance(cycles, tuple) else (cycles, cycles)
        return None if low is None or high is None else (low, high)

    timed_records = [r for r in records if any(ends(m) is not None for m in r.modules)]
    record = min(
        (r for r in timed_records if r.part_of is None),
        key=lambda r: STAGES.index(r.stage),
        default=None,
    )
    if record is None:
        return None
    timed = [(m, span) for m in record.modules if (span := ends(m)) is not None]
    placed = all(module.start_cycle is not None for module, _ in timed)
    length = max((m.start_cycle or 0) + high for m, (_, high) in timed) or 1
    rows = []
    for module, (low, high) in timed[:PARTS]:
        start = module.start_cycle or 0 if placed else 0
        rows.append(
            {
                "name": module.name,
                "cycles": _figure(module.latency_cycles, "cycles"),
                "lut": module.lut,
                "levels": module.levels,
                "left": f"{100 * start / length:.2f}",
                "width": f"{100 * low / length:.2f}",
                "spread": f"{100 * (high - low) / length:.2f}",
            }
        )
    return {
        "record": record,
        "rows": rows,
        "placed": placed,
        "length": length,
        "hidden": len(timed) - len(rows),
        "slow": slow(record) if record.slow_stages else "",
        "profile": _profile(record) if placed and len(timed) > STAGES_AS_BARS else None,
    }


def _profile(record: SynthesisRecord) -> dict[str, Any]:
    """LUTs of each clock cycle as columns; the colour says how deep the logic is."""
    stages = [module for module in record.modules if module.start_cycle is not None]
    most = max((module.lut or 0 for module in stages), default=0) or 1
    deepest = max((module.levels or 0 for module in stages), default=0)
    length = max((module.start_cycle or 0) for module in stages) + 1
    step = WIDTH / length
    return {
        "columns": [
            {
                "x": f"{step * (module.start_cycle or 0):.1f}",
                "width": f"{0.8 * step:.2f}",
                "height": f"{HEIGHT / 2 * (module.lut or 0) / most:.1f}",
                "strength": f"{(module.levels or 0) / deepest if deepest else 1:.2f}",
                "text": f"{module.name}: {_figure(module.lut)} LUT"
                + (f", {_figure(module.levels, 'levels')}" if module.levels is not None else ""),
            }
            for module in stages
        ],
        "width": WIDTH,
        "height": HEIGHT // 2,
        "most": _figure(most),
        "deepest": deepest,
        "length": length,
    }


def _ends(values: Iterable[int]) -> int | tuple[int, int]:
    """One value when all agree, else their range."""
    known = set(values)
    return known.pop() if len(known) == 1 else (min(known), max(known))


def _bits(report: Report) -> dict[str, Any]:
    """Layers down, pairs of implementations across."""
    entries = report.bit_accuracy
    pairs = list(dict.fromkeys(entry.pair for entry in entries))
    layers = list(dict.fromkeys(entry.layer for entry in entries))
    cells = {(entry.layer, entry.pair): entry for entry in entries}
    events = {
        pair: _figure(_ends(e.events for e in entries if e.pair == pair), "events")
        for pair in pairs
    }
    same = len(set(events.values())) == 1

    def count(layer: str) -> str:
        return _figure(_ends(entry.values for entry in entries if entry.layer == layer))

    return {
        "pairs": pairs,
        "events": (
            events[pairs[0]] if same else ", ".join(f"{p}: {text}" for p, text in events.items())
        ),
        "rows": [
            (layer, count(layer), [cells.get((layer, pair)) for pair in pairs]) for layer in layers
        ],
        "wrong": [entry for entry in entries if entry.examples],
    }


WIDTH, HEIGHT, FLOOR = 460, 340, -4  # SVG units; decades of background efficiency


def _roc(physics: Physics | None) -> dict[str, Any] | None:
    """Curves as SVG polylines: signal efficiency across, log10 background efficiency up."""
    if physics is None or not physics.roc:
        return None
    labels = list(dict.fromkeys(curve.label for curve in physics.roc))
    models = list(dict.fromkeys(curve.model for curve in physics.roc))

    def points(curve: RocCurve) -> str:
        step = max(1, len(curve.signal) // 200)
        return " ".join(
            f"{WIDTH * s:.1f},{HEIGHT * math.log10(b) / FLOOR:.1f}"
            for s, b in list(zip(curve.signal, curve.background, strict=True))[::step]
            if b >= 10**FLOOR
        )

    return {
        "curves": [
            {
                "points": points(curve),
                "colour": COLOURS[labels.index(curve.label) % len(COLOURS)],
                "dash": DASHES[curve.model],
            }
            for curve in physics.roc
        ],
        "labels": list(zip(labels, COLOURS * len(labels), strict=False)),
        "models": [(model, DASHES[model]) for model in models],
        "decades": [
            (HEIGHT * decade / FLOOR, f"{10.0**decade:g}") for decade in range(0, FLOOR - 1, -1)
        ],
        "width": WIDTH,
        "height": HEIGHT,
    }


def _sources(records: Sequence[SynthesisRecord]) -> list[dict[str, Any]]:
    """One entry per distinct set of figures; tools write the same ones into several files."""
    entries: dict[str, dict[str, Any]] = {}
    for record in records:
        figures = {
            LABELS[name]: _figure(value, UNITS.get(name, ""))
            for name in ("latency_cycles", "latency_ns", "ii_cycles", "clock_ns", *RESOURCES)
            if (value := getattr(record, name)) is not None
        }
        if record.latency_cycles is not None and record.latency_ns is not None:
            cycles, ns = _figure(record.latency_cycles, "cycles"), _figure(record.latency_ns, "ns")
            figures["Latency"] = f"{ns} ({cycles})"
        if record.needed_ns is not None:
            clock = f"{_figure(record.needed_ns)} of {_figure(record.clock_ns, 'ns')}"
            guessed = record.clock_estimated_ns is None
            figures["Clock"] = f"{clock}, estimated from {record.timed_by}" if guessed else clock
        if record.srl:
            figures["LUT"] += f" ({_figure(record.srl)} shift registers)"
        if record.status is not None:
            figures["Simulation"] = record.status.lower()
        tool = " ".join(filter(None, (record.tool, record.version, record.design_state)))
        key = repr((record.stage, record.top, record.part_of, tool, figures, record.notes))
        entry = entries.setdefault(
            key,
            {
                "record": record,
                "title": record.top or KINDS.get(record.kind or "", ""),
                "tool": tool,
                "figures": figures,
                "files": [],
            },
        )
        entry["files"].append(record.source)
    return list(entries.values())


def _history(reports: Sequence[tuple[str, Report]]) -> dict[str, Any]:
    """Figures of each report, newest first; a change for the worse is a regression.

    Figures of different stages are shown but not compared.
    """
    rows: list[dict[str, Any]] = []
    best = [best_figures(report) for _, report in reports]
    for name in ("latency_ns", "ii_cycles", *RESOURCES):
        series = [
            (figures[name].value, record.stage if (record := figures[name].record) else "")
            for figures in best
        ]
        rows.append(_history_row(LABELS[name], UNITS.get(name, ""), series, worse=1))
    accuracy = []
    for _, report in reports:
        scores = report.physics.accuracy if report.physics else None
        score = None if scores is None else scores.csim
        accuracy.append((None if score is None else round(100 * score, 2), "csim"))
    rows.append(_history_row("Accuracy", "%", accuracy, worse=-1))
    wrong = [
        (sum(e.mismatches for e in report.bit_accuracy) if report.bit_accuracy else None, "")
        for _, report in reports
    ]
    rows.append(_history_row("Bits that differ", "", wrong, worse=1))
    return {"labels": [label for label, _ in reports][::-1], "rows": [row for row in rows if row]}


def _history_row(
    label: str, unit: str, series: Sequence[tuple[Any, str]], worse: int
) -> dict[str, Any]:
    if all(value is None for value, _ in series):
        return {}
    cells: list[dict[str, Any]] = []
    before: tuple[Any, str] = (None, "")
    for value, stage in series:
        change, tone = "", ""
        comparable = isinstance(value, (int, float)) and isinstance(before[0], (int, float))
        if comparable and stage == before[1] and value != before[0]:
            tone = "bad" if (value - before[0]) * worse > 0 else "good"
            if unit == "%" or not before[0]:
                change = f"{value - before[0]:+.4g}"
            else:
                change = f"{100 * (value - before[0]) / before[0]:+.1f}\u00a0%"
        text = "\u2013" if value is None else _figure(value)
        cells.append(
            {
                "text": text,
                "stage": stage if stage != before[1] else "",
                "change": change,
                "tone": tone,
            }
        )
        before = (value, stage)
    return {"label": label, "unit": unit, "cells": cells[::-1]}
