"""Tables of bits, physics, figures and trainings."""

from __future__ import annotations

from typing import Any

from rich.table import Column, Table

from salt_hls.cli.console import console, say
from salt_hls.system.wording import as_typed, command


def print_training(result: Any) -> None:
    """Accuracies of a training."""
    title = f"{result.model}: {result.float_.events} test jets"
    table = Table("", "accuracy", "mean AUC", title=title)
    for name, metrics in (("float", result.float_), ("quantized", result.quantized)):
        table.add_row(name, f"{metrics.accuracy:.4f}", f"{metrics.auc['mean']:.4f}")
    console.print(table)
    say(f"{result.predicted_lut:,} LUT, a prediction; {command('synth')} measures")


def print_synthesis(report: Any) -> None:
    """Hardware figures, and the verdict of the budget."""
    from salt_hls.report.budget import best_figures, conditions

    columns = ("LUT", "FF", "DSP", "BRAM18", "cycles", "ns", "II")
    figures = (Column(name, no_wrap=True) for name in columns)
    table = Table(*_folding("source", "stage"), *figures, title=report.model)
    for r in report.synthesis:
        values = (r.lut, r.ff, r.dsp, r.bram18, r.latency_cycles, r.latency_ns, r.ii_cycles)
        table.add_row(r.source, r.stage, *(_figure(value) for value in values))
    if report.budget is None:
        say(f"budget: no figures to judge; {command('synth')} of the model gives them")
        return
    console.print(table)
    verdict = report.budget
    headers = _folding("", "limit", "value", "", "source")
    table = Table(*headers, title=f"budget {verdict.name}")
    for check in verdict.checks:
        mark = f"[{COLOURS[check.verdict]}]{check.verdict}[/]"
        mark += ", estimate" if check.estimated else ""
        table.add_row(
            check.name, _figure(check.limit), _figure(check.value), mark, check.source or ""
        )
    console.print(table)
    for check in verdict.checks:
        if check.note:
            say(as_typed(f"{check.name}: {check.note}"))
    say(f"figures {conditions(best_figures(report))}")


def _folding(*headers: str) -> list[Column]:
    """Columns whose text goes on in the next line where the terminal is narrow."""
    return [Column(header, overflow="fold") for header in headers]


COLOURS = {"pass": "green", "fail": "red", "unproven": "yellow"}


def _figure(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join("?" if end is None else _figure(end) for end in value)
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}"


def print_bits(report: Any) -> None:
    """Values compared and mismatches, pair by pair."""
    table = Table("compared", "layers", "jets", "values", "mismatches", title=report.model)
    for pair in sorted({r.pair for r in report.bit_accuracy}):
        records = [r for r in report.bit_accuracy if r.pair == pair]
        wrong = sum(r.mismatches for r in records)
        table.add_row(
            pair,
            str(len(records)),
            str(records[0].events),
            f"{sum(r.values for r in records):,}",
            f"[{'red' if wrong else 'green'}]{wrong}[/]",
        )
    console.print(table)


def print_physics(report: Any) -> None:
    """Tagging performance of each execution."""
    if report.physics is None:
        return
    table = Table("", "float", "quantized", "C-simulation", title=f"{report.physics.events} jets")
    for name, value in (("accuracy", report.physics.accuracy), ("mean AUC", report.physics.auc)):
        row = (value.float_, value.quantized, value.csim)
        table.add_row(name, *("-" if v is None else f"{v:.4f}" for v in row))
    console.print(table)
