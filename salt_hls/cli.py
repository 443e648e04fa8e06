"""The command `salt-hls`: one thin function for each verb. Only this module prints."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from salt_hls import __version__
from salt_hls.config import CLOCK_NS, MODEL_FILES, MODELS, find_model
from salt_hls.errors import UserError
from salt_hls.extras import need
from salt_hls.files import DISK, disk_error, locked
from salt_hls.paths import CHECKOUT, SYNTH
from salt_hls.processes import cores
from salt_hls.quiet import quiet_tensorflow
from salt_hls.wording import as_typed, command, option

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

app = typer.Typer(
    help="From a quantized SAL-T jet tagger to FPGA trigger firmware, checked bit by bit.",
    pretty_exceptions_enable=False,
)


PIPED = 10_000
"""Width where no terminal limits it: nothing is cut or folded in a pipe or a file."""

console = Console(width=None if sys.stdout.isatty() else PIPED)
errors = Console(width=None if sys.stderr.isatty() else PIPED, stderr=True)

CACHE = "cache"
"""Folder, in that of the builds, of compiled simulators and synthesized stages."""

QUICKSTART = MODELS / "quickstart" / "quickstart.yaml"

PULSE_S = 5.0
"""Between two lines of progress, where no terminal is."""


def _model_names(incomplete: str) -> list[str]:
    """For the shell: shipped models, and files that may be models."""
    found = [p.stem for p in MODELS.glob("*.yaml")]
    found += [
        str(p) for p in Path().glob(f"{incomplete}*") if p.is_dir() or p.suffix in MODEL_FILES
    ]
    return sorted(name for name in found if name.startswith(incomplete))


def _budget_names(incomplete: str) -> list[str]:
    found = [p.stem for p in (SYNTH / "budgets").glob("*.yaml")]
    return sorted(name for name in found if name.startswith(incomplete))


Model = Annotated[
    str,
    typer.Argument(
        help="A shipped model, or a path to your own YAML or saved Keras model.",
        autocompletion=_model_names,
    ),
]
Build = Annotated[Path, typer.Option(help="Folder of the builds.")]
BudgetName = Annotated[
    str,
    typer.Option(
        "--budget",
        help="A budget of synth/budgets, or a path to your own.",
        autocompletion=_budget_names,
    ),
]


def _clock(period: float | None) -> float | None:
    least, most = CLOCK_NS
    if period is not None and not least <= period <= most:  # NaN is neither
        raise typer.BadParameter(f"must be {least:g} ... {most:g} ns, got {period:g}")
    return period


Clock = Annotated[
    float | None,
    typer.Option(callback=_clock, help="Clock period of the RTL in ns, else the model's."),
]

DEFAULT_BUDGET = "cms_l1t_jet"


class BackendName(str, Enum):
    """HLS compilers firmware is written for."""

    vitis = "vitis"
    vivado = "vivado"


class MultiplierName(str, Enum):
    """What products of two variables become."""

    lut = "lut"
    dsp = "dsp"


class ToolName(str, Enum):
    """Where hardware figures come from."""

    estimate = "estimate"
    yosys = "yosys"
    vitis = "vitis"
    vivado = "vivado"


Multiplier = Annotated[
    MultiplierName, typer.Option(case_sensitive=False, help="Products of two variables.")
]


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress display fed by (description, done, total): a bar, or lines every few seconds."""
    with _bar() if errors.is_terminal else _pulse() as show:

        def update(description: str, done: int, total: int) -> None:
            if _Interrupted.received:
                raise _Interrupted
            show(description, done, total)

        yield update


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda text, done, total: bar.update(
            task, description=text, completed=done, total=total
        )


@contextmanager
def _pulse() -> Iterator[Callable[[str, int, int], None]]:
    ended, begun, state = threading.Event(), time.monotonic(), "start"

    def show(description: str, done: int, total: int) -> None:
        nonlocal state
        state = description if total < 2 else f"{description} {done:,}/{total:,}"

    def tell() -> None:
        while not ended.wait(PULSE_S):
            with suppress(OSError, ValueError):  # nobody reads it any more
                _say(errors, f"salt-hls: {state} ({time.monotonic() - begun:.0f} s)")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield show
    finally:
        ended.set()
        thread.join(1)


@contextmanager
def alone(model: str, build: Path) -> Iterator[None]:
    """Keeps other runs from the build folder of a model, and says so when it has to wait for one.

    Before TensorFlow takes its seconds to load, `UserError` for models that are not there.
    """
    from salt_hls.reports.folder import build_folder

    folder = build_folder(build, find_model(model).stem)

    with locked(
        folder, lambda: _say(errors, f"salt-hls: waiting for another run on {folder} to end")
    ):
        yield


@app.command()
def firmware(
    model: Model = "salt_p4",
    backend: Annotated[
        BackendName, typer.Option(case_sensitive=False, help="HLS compiler.")
    ] = BackendName.vitis,
    budget: BudgetName = DEFAULT_BUDGET,
    build: Build = Path("build"),
) -> None:
    """Writes the HLS project and checks every bit of its C-simulation on real jets."""
    from salt_hls.reports.budget import load_budget

    limits = load_budget(budget)
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import build_firmware, require_exact

        report = build_firmware(model, backend.value.capitalize(), build, limits, cores(), update)  # type: ignore[arg-type]
    _print_bits(report)
    _print_physics(report)
    require_exact(report, build)
    _print_synthesis(report)
    folder = build / report.model
    _say(console, f"firmware {folder / 'firmware'}, report {folder / 'report.html'}")


@app.command()
def rtl(
    model: Model = "salt_p4",
    clock_ns: Clock = None,
    multipliers: Multiplier = MultiplierName.lut,
    budget: BudgetName = DEFAULT_BUDGET,
    build: Build = Path("build"),
) -> None:
    """Writes pipelined Verilog, simulates it at one jet a clock, checks every bit."""
    need("rtl", "rtl")
    from salt_hls.reports.budget import load_budget

    limits = load_budget(budget)
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import checked_firmware
        from salt_hls.rtl.build import Options, build_rtl

        made = checked_firmware(model, None, build, limits, cores(), update)
        options = Options(clock_ns, multipliers.value)
        _, _, report = build_rtl(
            made, options, limits, build / CACHE, cores(), lambda text: update(text, 0, 1)
        )
    _print_bits(report)
    _print_physics(report)
    _print_synthesis(report)
    _say(console, f"RTL {made.folder / 'rtl'}")


@app.command()
def synth(
    model: Model = "salt_p4",
    tool: Annotated[
        ToolName, typer.Option(case_sensitive=False, help="estimate and yosys need no licence.")
    ] = ToolName.yosys,
    steps: Annotated[
        str, typer.Option(help="Of vitis, vivado: csim, csynth, cosim, vsynth, route (the RTL).")
    ] = "csim,csynth",
    clock_ns: Clock = None,
    multipliers: Multiplier = MultiplierName.lut,
    timeout_s: Annotated[
        float | None, typer.Option(min=1, help="Limit of a tool's run, or of one Yosys stage.")
    ] = None,
    budget: BudgetName = DEFAULT_BUDGET,
    build: Build = Path("build"),
) -> None:
    """Gets hardware figures: an estimate, Yosys on the simulated RTL, or the vendor's tools."""
    find_model(model)
    need("synth", "rtl")
    from salt_hls.reports.budget import load_budget
    from salt_hls.vendor.build import plan, synthesize_hls

    vendor = tool in (ToolName.vitis, ToolName.vivado)
    limits, hls = load_budget(budget), plan(tool.value, steps) if vendor else None  # type: ignore[arg-type]
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import checked_firmware
        from salt_hls.rtl.build import Options, estimate, synthesize_rtl

        def say(text: str) -> None:
            update(text, 0, 1)

        options = Options(clock_ns, multipliers.value)
        backend = tool.value.capitalize() if hls and hls.steps else None
        made = checked_firmware(model, backend, build, limits, cores(), update)  # type: ignore[arg-type]
        if hls:
            report = synthesize_hls(made, hls, options, limits, say, timeout_s, _warn)
        elif tool is ToolName.estimate:
            report = estimate(made, options, limits, say)
        else:
            cache = build / CACHE
            report = synthesize_rtl(made, options, limits, cache, cores(), say, timeout_s)
    _print_synthesis(report)


@app.command()
def data(
    jets: Annotated[
        int | None,
        typer.Option(
            min=100,
            help="Jets in all, else the 610,000 the shipped models are trained on.",
        ),
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder the jets are written to.")] = Path("data"),
) -> None:
    """Generates jets with Pythia8 and FastJet, 80 % to train, 10 % to validate, 10 % to test.

    The classes are alike. Continues where it was interrupted.
    """
    need("data", "data", "plots")
    with progress_bar() as update:
        from salt_hls.jets.generator import generate
        from salt_hls.jets.plots import plot_classes

        paths = list(generate(jets, data, cores(), lambda d, n: update("collisions", d, n)))
        update("plot", 0, 1)
        plot_classes(data / "validation.h5", data / "classes.png")
    _say(console, f"jets in {', '.join(str(p) for p in paths)}; plot in {data / 'classes.png'}")
    _say(console, "simulated by Pythia8 (arXiv:2203.11601), clustered by FastJet (arXiv:1111.6097)")


@app.command()
def train(
    model: Model = "salt_p4",
    data: Annotated[
        Path, typer.Option(help="Jets: a folder or file of any known format (docs/data.md).")
    ] = Path("data"),
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Instead of the YAML's; files are <model>.seed<seed>.*."),
    ] = None,
    ship: Annotated[
        bool, typer.Option(help="Write the weights of a shipped model over the shipped ones.")
    ] = False,
    build: Build = Path("build"),
) -> None:
    """Trains a model, float then quantized; continues where it was interrupted.

    Weights go beside the YAML, those of a shipped model to build/trained with a copy of its YAML.
    """
    need("train", "plots")
    path = find_model(model)
    with progress_bar() as update:
        from salt_hls.training.run import train_model, weights_folder

        result = train_model(model, data, build, _epochs(update), _warn, seed, ship)
    _print_training(result)
    stem = weights_folder(path, build, ship) / result.model
    _say(console, f"weights {stem}.weights.h5")
    if stem.with_name(f"{stem.name}.yaml").exists():
        _say(console, f"firmware from them: {command('firmware', f'{stem}.yaml')}")


def _epochs(update: Callable[[str, int, int], None]) -> Callable[[Any], None]:
    """What a training calls with where it is."""

    def step(p: Any) -> None:
        so_far = "" if p.accuracy is None else f", accuracy {p.accuracy:.4f}"
        name = f"{p.stage} phase {p.phase}/{p.phases} epoch {p.epoch}/{p.epochs}{so_far}"
        update(name, p.step, p.steps)

    return step


def _print_training(result: Any) -> None:
    title = f"{result.model}: {result.float_.events} test jets"
    table = Table("", "accuracy", "mean AUC", title=title)
    for name, metrics in (("float", result.float_), ("quantized", result.quantized)):
        table.add_row(name, f"{metrics.accuracy:.4f}", f"{metrics.auc['mean']:.4f}")
    console.print(table)


@app.command()
def quickstart(build: Build = Path("build")) -> None:
    """Trains a tiny model on the shipped jets and builds its firmware: a few minutes in all.

    A demonstration: `data`, `train` and `firmware` do the same with as many jets as it takes.
    """
    need("quickstart", "plots")
    from salt_hls.files import replacing
    from salt_hls.reports.budget import load_budget

    path = build / "trained" / QUICKSTART.name
    with replacing(path) as partial:
        partial.write_bytes(QUICKSTART.read_bytes())
    model, begun = str(path), time.monotonic()
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import SAMPLE, build_firmware, require_exact
        from salt_hls.training.run import train_model

        result = train_model(model, SAMPLE, build, _epochs(update))
        limits = load_budget(DEFAULT_BUDGET)
        report = build_firmware(model, "Vitis", build, limits, cores(), update)
    _print_training(result)
    _print_bits(report)
    require_exact(report, build)
    folder, took = build / report.model, time.monotonic() - begun
    _say(
        console,
        f"trained on {result.training_jets:,} jets of {SAMPLE.name} and built in {took:.0f} s: a "
        f"demonstration, no good tagger. Judge it by the {result.float_.events} test jets above: "
        "accuracies in its report are of all the jets, most of which it was trained on.",
    )
    _say(console, f"firmware {folder / 'firmware'}, report {folder / 'report.html'}")
    _say(
        console,
        f"next: {command('data')}, then {command('train', 'mine.yaml')} of a copy of {path}, then "
        f"{command('firmware', 'mine.yaml')}",
    )


@app.command()
def diagnose(
    model: Model = "salt_p4",
    data: Annotated[
        Path | None, typer.Option(help="Data set whose test jets are used, else the shipped ones.")
    ] = None,
    build: Build = Path("build"),
) -> None:
    """Looks for signs of failure: order of particles, attention, use of types and tables."""
    from salt_hls.reports.folder import build_folder

    build_folder(build, find_model(model).stem)
    need("diagnose", "plots")
    with progress_bar() as update:
        from salt_hls.firmware.diagnose import diagnose as look

        result = look(model, build, data, update)
    table = Table("order", "accuracy", "difference", title=f"{result.model}: {result.jets} jets")
    for order in result.orders:
        change = f"{order.difference:+.2%} ± {order.error:.2%}" if order.error else ""
        table.add_row(order.order, f"{order.accuracy:.2%}", change)
    console.print(table)
    if result.heads:
        table = Table("head", *(f"partition {i}" for i in range(len(result.heads[0].weights))))
        for head in result.heads:
            table.add_row(f"{head.layer} {head.head}", *(f"{w:.2f}" for w in head.weights))
        console.print(table)
    for warning in result.warnings:
        _say(console, f"warning: {warning}")
    folder = build / result.model / "diagnose"
    _say(console, f"all of it in {folder / 'diagnose.json'}, plot {folder / 'diagnose.png'}")


@app.command()
def golden(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Shipped models, or paths to your own; all shipped ones if none."),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Write nothing; a bit that has changed is exit status 1.")
    ] = False,
    build: Build = Path("build"),
) -> None:
    """Writes the logits of a model's checked firmware beside it, or compares them with these.

    Builds the firmware where anything it depends on has changed. Those of shipped models are in
    tests/golden of the repository.
    """
    from salt_hls.firmware import golden as regression
    from salt_hls.reports.budget import load_budget

    names = models or sorted(p.stem for p in MODELS.glob("*.yaml"))
    places = {name: regression.golden_path(find_model(name)) for name in names}
    there = {n: regression.read_golden(p, n) for n, p in places.items() if check or p.exists()}
    limits, faults = load_budget(DEFAULT_BUDGET), 0
    for name, path in places.items():
        with alone(name, build), progress_bar() as update:
            from salt_hls.firmware.build import checked_firmware

            made = checked_firmware(name, None, build, limits, cores(), update)
            new = regression.golden_of(made)
        old = there.get(name)
        change = "new" if old is None else regression.changes(old, new)
        text = f"{made.tagger.name}: {change}"
        if not check:
            regression.write_golden(path, new)
            _say(console, f"{text}, in {path}")
        elif change.startswith(regression.NO_CHANGE):
            _say(console, text)
        else:
            faults += 1
            _say(errors, f"salt-hls: {text}; {command('golden', name)} accepts them")
    if faults:
        raise typer.Exit(1)


@app.command()
def bench(model: Model = "salt_p4", build: Build = Path("build")) -> None:
    """Measures the speed and memory of C-simulation; writes them to a file."""
    path = build / "bench" / f"{find_model(model).stem}.json"
    with progress_bar() as update:
        from salt_hls.firmware.bench import bench as measure

        result = measure(model, path, update)
    for key, value in result.items():
        _say(console, f"{key}: {value}")
    _say(console, f"written to {path}")


@app.command()
def scaling(
    model: Model = "salt_p4_n150",
    path: Annotated[
        Path, typer.Option(help="JSON of the figures; the plot stands beside it.")
    ] = CHECKOUT / "docs" / "results" / "scaling.json",
    build: Build = Path("build"),
) -> None:
    """Measures cycles and area of a streaming tagger against particles and lanes."""
    need("scaling", "rtl", "plots")
    find_model(model)
    with progress_bar() as update:
        from salt_hls.rtl.scaling import measure

        result = measure(model, path, build / CACHE, cores(), lambda text: update(text, 0, 1))
    table = Table("particles", "a clock", "II", "latency", "LUT", "FF", "events")
    for p in result.points:
        table.add_row(
            *map(str, (p.particles, p.particles_per_clock, p.ii_cycles, p.latency_cycles)),
            *(f"{count:,}" for count in (p.lut, p.ff, p.events)),
        )
    console.print(table)
    _say(console, f"written to {path} and {path.with_suffix('.png')}")


@app.command()
def results(
    rows: Annotated[
        list[str] | None, typer.Argument(help="Rows of the study, all if none.")
    ] = None,
    study: Annotated[
        Path,
        typer.Option(help="YAML of the rows; results beside it, tables in <folder>.md."),
    ] = CHECKOUT / "docs" / "results" / "ablations.yaml",
    render: Annotated[bool, typer.Option(help="Train nothing, renew tables and plots.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time, a core each; all cores if none.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of train.h5, validation.h5 and test.h5 of `make data`.")
    ] = Path("data"),
    build: Build = Path("build"),
) -> None:
    """Trains rivals and ablations that have no result yet; renews their tables and plots."""
    need("results", "plots")
    from salt_hls.training.ablations.study import Results, load_study

    declared, found = load_study(study), Results(study)
    runs = declared.runs(rows or [])
    from salt_hls.training.ablations.render import render as write

    if not render:
        from salt_hls.training.ablations.run import run_missing

        with progress_bar() as update:
            run_missing(found, runs, data, build / "results", jobs or cores(), update)
    written = write(declared, found, study.parent.with_suffix(".md"))
    _say(console, f"renewed {', '.join(str(p) for p in written)}")


@app.command()
def report(
    model: Annotated[str | None, typer.Argument(help="A model that was built.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Folder of vendor reports to read.")
    ] = None,
    json_: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print report.json (docs/report.md) alone; with --from, only its figures.",
        ),
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print report.json's schema.")] = False,
    budget: BudgetName = DEFAULT_BUDGET,
    strict: Annotated[
        bool, typer.Option(help="Any limit that is not proven to be kept is exit status 1.")
    ] = False,
    build: Build = Path("build"),
) -> None:
    """Reads vendor reports, judges the best figures against a budget, renews the page."""
    from salt_hls.files import exists
    from salt_hls.reports.budget import judge, load_budget
    from salt_hls.reports.folder import add, build_folder
    from salt_hls.reports.model import Report, json_schema
    from salt_hls.reports.vendor import scan_reports

    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if model is None and from_ is None:
        raise typer.BadParameter("give a model, or --from DIR")
    limits = load_budget(budget)
    scan = None if from_ is None else scan_reports(from_)
    records = [] if scan is None else scan.records
    for warning in [] if scan is None else scan.warnings:
        _warn(warning)
    for problem in [] if scan is None else scan.problems:
        _say(errors, f"salt-hls: {problem}")
    if model is None:
        result = Report(model=str(from_), synthesis=records)
        result.budget = judge(result, limits)
    else:
        folder = build_folder(build, Path(model).stem)
        if not exists(folder):
            find_model(model)
            raise UserError(f"{folder}: no such build; {command('firmware', model)} makes it")
        result = add(records, folder, limits)
    if json_:
        shown = result if scan is None else result.model_copy(update={"synthesis": records})
        typer.echo(shown.to_json(), nl=False)
    else:
        _print_synthesis(result)
    if (strict and result.verdict != "pass") or (scan is not None and scan.problems):
        raise typer.Exit(1)


def _print_synthesis(report: Any) -> None:
    from salt_hls.reports.budget import best_figures, conditions

    columns = ("LUT", "FF", "DSP", "BRAM18", "cycles", "ns", "II")
    figures = (Column(name, no_wrap=True) for name in columns)
    table = Table(*_folding("source", "stage"), *figures, title=report.model)
    for r in report.synthesis:
        values = (r.lut, r.ff, r.dsp, r.bram18, r.latency_cycles, r.latency_ns, r.ii_cycles)
        table.add_row(r.source, r.stage, *(_figure(value) for value in values))
    if report.budget is None:
        _say(console, f"budget: no figures to judge; {command('synth')} of the model gives them")
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
            _say(console, as_typed(f"{check.name}: {check.note}"))
    _say(console, f"figures {conditions(best_figures(report))}")


def _folding(*headers: str) -> list[Column]:
    """Columns whose text goes on in the next line where the terminal is narrow."""
    return [Column(header, overflow="fold") for header in headers]


COLOURS = {"pass": "green", "fail": "red", "unproven": "yellow"}


def _say(where: Console, text: str) -> None:
    """A line as it is: names and paths are no markup."""
    where.print(text, markup=False, highlight=False, soft_wrap=True)


def _warn(text: str) -> None:
    _say(errors, f"salt-hls: warning: {text}")


def _figure(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join("?" if end is None else _figure(end) for end in value)
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}"


def _print_bits(report: Any) -> None:
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


def _print_physics(report: Any) -> None:
    if report.physics is None:
        return
    table = Table("", "float", "quantized", "C-simulation", title=f"{report.physics.events} jets")
    for name, value in (("accuracy", report.physics.accuracy), ("mean AUC", report.physics.auc)):
        row = (value.float_, value.quantized, value.csim)
        table.add_row(name, *("-" if v is None else f"{v:.4f}" for v in row))
    console.print(table)


class _Warnings(logging.Handler):
    """Prints what the program logs for its user."""

    def emit(self, record: logging.LogRecord) -> None:
        _warn(record.getMessage())


INTERRUPTED = "interrupted; nothing half-written is left, long work continues next time"
GRACE_S = 10.0
"""An interrupted run that has not ended by itself after so long is ended."""


class _Interrupted(BaseException):
    """Not an `Exception`: hls4ml's writer passes over those raised while it imports Keras.

    Extension modules (TensorFlow, h5py) may drop any exception raised inside their calls, so the
    next step of the progress raises it again.
    """

    received = False


def _interrupted(*_: object) -> None:
    """Handles the first signal; while the run ends, more of them change nothing."""
    if not _Interrupted.received:
        _Interrupted.received = True
        sys.unraisablehook = lambda _: None  # where it is dropped, in a `__del__`, nobody is told
        raise _Interrupted


def _tell_and_end(signals: int, told: threading.Event) -> None:
    """A thread: says at once that a signal came, even while the main thread is in a C function."""
    os.read(signals, 1)
    with suppress(OSError):  # the terminal may be gone
        _say(errors, f"salt-hls: {INTERRUPTED}")
    told.set()
    time.sleep(GRACE_S)
    with suppress(OSError):
        errors.show_cursor()
    os._exit(1)  # what still runs is killed by the watcher of `processes`


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(versions())
        raise typer.Exit


def versions() -> str:
    """This program, and what it runs on, in a line."""
    python = ".".join(map(str, sys.version_info[:3]))
    found = [f"salt-hls {__version__}", f"Python {python}"]
    for name, packages in PACKAGES.items():
        for package in packages:
            with suppress(PackageNotFoundError):
                found.append(f"{name} {version(package)}")
                break
        else:
            found.append(f"no {name}")
    return ", ".join(found)


PACKAGES = {
    "TensorFlow": ("tensorflow-cpu", "tensorflow"),
    "hls4ml": ("hls4ml",),
    "QKeras": ("qkeras",),
}
"""What firmware depends on, and the distributions it comes in."""


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print versions, end."),
    ] = False,
) -> None:
    pass


UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # type: ignore[assignment]
"""Of Typer, which does not export it."""


def run(arguments: Sequence[str]) -> int:
    """Does what a command line says; returns the exit status.

    A `UserError`, a disk that fails or a wrong command line is a line on standard error.
    """
    try:
        status = app(list(arguments) or ["--help"], prog_name="salt-hls", standalone_mode=False)
    except UsageError as error:
        _say(errors, f"salt-hls: {_usage(error, arguments)}")
        return 2
    except Exception as error:
        fault = None if _Interrupted.received else _fault(error)
        if fault is None:
            raise
        _say(errors, f"salt-hls: {fault}")
        return 1
    return status or 0


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """What is wrong with a command line: the option as it was typed, and what it may be."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace("Value error, ", "").replace("Input should be", "must be")
    if found := re.match(r"Invalid value(?: for '(?:--([\w-]+))?.*?')?: (.*)", text):
        name, text = found.groups()
        if name:
            text = f"{option(name, _value_of(name, arguments))}: {text}"
    path = error.ctx.command_path if error.ctx else "salt-hls"
    return as_typed(f"{text}; see `{path} --help`")


def _value_of(name: str, arguments: Sequence[str]) -> str | None:
    """The value of the option --`name` in a command line."""
    for this, following in zip(arguments, [*arguments[1:], None], strict=True):
        if this == f"--{name}":
            return following
        if this.startswith(f"--{name}="):
            return this.partition("=")[2]
    return None


def main() -> None:
    """Entry point. A signal to end (Ctrl-C, a closed terminal) is a line, which comes at once."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(str(n) for n in sys.version_info[:2])
        errors.print(f"salt-hls: needs Python 3.10 to 3.13, found {found}")
        raise SystemExit(1)
    # What TensorFlow and QKeras warn about is not the user's doing; tests run with warnings on.
    warnings.simplefilter("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    ours = logging.getLogger("salt_hls")
    ours.addHandler(_Warnings())
    ours.propagate = False  # libraries print what reaches the root
    # While hls4ml converts and TensorFlow loads, what they print is held back; our lines are not.
    with suppress(OSError):
        errors.file = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    quiet_tensorflow()
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    told = threading.Event()
    threading.Thread(target=_tell_and_end, args=(signals, told), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupted)
    try:
        status = run(sys.argv[1:])
    except BaseException:
        if _Interrupted.received:
            told.wait(GRACE_S)
            os._exit(1)  # Python and TensorFlow take their time to unload, and hear signals again
        raise
    raise SystemExit(status)


def _fault(error: BaseException) -> str | None:
    """The line about an error that is the user's to mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        return str(disk_error(error.filename or "a file", error))
    return None
