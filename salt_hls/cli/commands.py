"""The verbs of the command `salt-hls`: one thin function each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from salt_hls.cli.console import console, progress_bar, say, tell, warn
from salt_hls.cli.tables import print_bits, print_physics, print_synthesis, print_training
from salt_hls.config import CLOCKS_NS, MODEL_FILES, MODELS, Cluster, find_model, load_yaml
from salt_hls.errors import UserError
from salt_hls.report.budget import DEFAULT_BUDGET, Budget, load_budget
from salt_hls.report.folder import CACHE
from salt_hls.report.records import Report
from salt_hls.system.extras import need
from salt_hls.system.jobs import Batch, Runner
from salt_hls.system.paths import CHECKOUT, SYNTH
from salt_hls.system.processes import cores, time_limit
from salt_hls.system.progress import Progress
from salt_hls.system.store import locked
from salt_hls.system.wording import command, option
from salt_hls.version import __version__, versions

app = typer.Typer(
    help="From a quantized SAL-T jet tagger to FPGA trigger firmware, checked bit by bit.",
    pretty_exceptions_enable=False,
)


QUICKSTART = MODELS / "quickstart" / "quickstart.yaml"


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
    least, most = CLOCKS_NS
    if period is not None and not least <= period <= most:  # NaN is neither
        raise typer.BadParameter(f"must be {least:g} ... {most:g} ns, got {period:g}")
    return period


Clock = Annotated[
    float | None,
    typer.Option(callback=_clock, help="Clock period of the RTL in ns, else the model's."),
]


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


Jobs = Annotated[
    int | None, typer.Option(min=1, help="Jobs at a time; as many as there are cores if none.")
]
SchedulerName = Annotated[
    str | None,
    typer.Option("--scheduler", help="tcp://host:port of a running Dask scheduler for the jobs."),
]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="YAML of a batch system for the jobs; see synth/clusters."),
]


def runner_of(jobs: int | None, scheduler: str | None, cluster: Path | None) -> Runner:
    """What does the jobs of a command: this machine, unless another place is given."""
    if cluster is None:
        return Runner(jobs, scheduler)
    if scheduler is not None:
        raise typer.BadParameter(f"give {option('scheduler')} or {option('cluster')}, not both")
    given = load_yaml(cluster, Cluster)
    return Runner(jobs, batch=Batch(cluster, given.workers, given.jobqueue))


@contextmanager
def alone(model: str, build: Path) -> Iterator[None]:
    """Keeps other runs from the build folder of a model, and says so when it has to wait for one.

    Before TensorFlow takes its seconds to load, `UserError` for models that are not there.
    """
    from salt_hls.report.folder import build_folder

    folder = build_folder(build, find_model(model).stem)

    with locked(folder, lambda: tell(f"waiting for another run on {folder} to end")):
        yield


@app.command()
def firmware(
    model: Model = "salt_p4",
    backend: Annotated[
        BackendName, typer.Option(case_sensitive=False, help="HLS compiler.")
    ] = BackendName.vitis,
    budget: BudgetName = DEFAULT_BUDGET,
    estimate: Annotated[
        bool, typer.Option(help="Ends with an estimate of the hardware, a minute at most.")
    ] = True,
    build: Build = Path("build"),
) -> None:
    """Writes the HLS project and checks every bit of its C-simulation on real jets.

    Ends with what alkaid estimates of the hardware, and whether that keeps the budget.
    """
    limits = load_budget(budget)
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import build_firmware, require_exact

        report = build_firmware(model, backend.value.capitalize(), build, limits, cores(), update)  # type: ignore[arg-type]
    print_bits(report)
    print_physics(report)
    require_exact(report, build)
    if estimate:
        with alone(model, build), progress_bar() as update:
            report = _estimated(model, build, limits, update) or report
    print_synthesis(report)
    folder = build / report.model
    say(f"firmware {folder / 'firmware'}, report {folder / 'report.html'}")


ESTIMATE_S = 60
"""Longest that `firmware` takes for its estimate."""


def _estimated(model: str, build: Path, budget: Budget, update: Progress) -> Report | None:
    """The report of checked firmware with an estimate; `None`, and a line why, where there is
    none."""
    try:
        need("the estimate of the hardware", "rtl")
        from salt_hls.firmware.build import checked_firmware
        from salt_hls.rtl.build import Options, estimate

        with time_limit(ESTIMATE_S, "the estimate of the hardware"):
            made = checked_firmware(model, None, build, budget, cores(), update)
            return estimate(made, Options(), budget, update)
    except UserError as error:
        # The firmware is there and exact; its estimate is a service.
        warn(f"no estimate: {error}")
        return None


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
    limits = load_budget(budget)
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import checked_firmware
        from salt_hls.rtl.build import Options, build_rtl

        made = checked_firmware(model, None, build, limits, cores(), update)
        options = Options(clock_ns, multipliers.value)
        _, _, report = build_rtl(made, options, limits, build / CACHE, cores(), update)
    print_bits(report)
    print_physics(report)
    print_synthesis(report)
    say(f"RTL {made.folder / 'rtl'}")


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
    jobs: Jobs = None,
    scheduler: SchedulerName = None,
    cluster: ClusterFile = None,
    build: Build = Path("build"),
) -> None:
    """Gets hardware figures: an estimate, Yosys on the simulated RTL, or the vendor's tools.

    The stages that Yosys synthesizes are jobs.
    """
    find_model(model)
    by_jobs = tool is ToolName.yosys
    need("synth", "rtl", *(["jobs"] if by_jobs else []))
    if not by_jobs and (jobs, scheduler, cluster) != (None, None, None):
        raise typer.BadParameter(
            f"{option('jobs')}, {option('scheduler')} and {option('cluster')} are for "
            f"{option('tool', 'yosys')}"
        )
    runner = runner_of(jobs, scheduler, cluster)
    from salt_hls.amd.synthesis import plan, synthesize_hls

    vendor = tool in (ToolName.vitis, ToolName.vivado)
    limits, hls = load_budget(budget), plan(tool.value, steps) if vendor else None  # type: ignore[arg-type]
    with alone(model, build), progress_bar() as update, runner:
        from salt_hls.firmware.build import checked_firmware
        from salt_hls.rtl.build import Options, estimate, synthesize_rtl

        options = Options(clock_ns, multipliers.value)
        backend = tool.value.capitalize() if hls and hls.steps else None
        made = checked_firmware(model, backend, build, limits, cores(), update)  # type: ignore[arg-type]
        if hls:
            report = synthesize_hls(made, hls, options, limits, update, timeout_s, warn)
        elif tool is ToolName.estimate:
            report = estimate(made, options, limits, update)
        else:
            report = synthesize_rtl(
                made, options, limits, build / CACHE, cores(), runner, update, timeout_s
            )
    print_synthesis(report)


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
    jobs: Jobs = None,
    scheduler: SchedulerName = None,
    cluster: ClusterFile = None,
) -> None:
    """Generates jets with Pythia8 and FastJet, 80 % to train, 10 % to validate, 10 % to test.

    The classes are alike. Continues where it was interrupted.
    """
    need("data", "data", "plots", "jobs")
    with progress_bar() as update, runner_of(jobs, scheduler, cluster) as runner:
        from salt_hls.jets.generator import generate
        from salt_hls.jets.plots import plot_classes

        paths = list(generate(jets, data, runner, update))
        update("plot")
        plot_classes(data / "validation.h5", data / "classes.png")
    say(f"jets in {', '.join(str(p) for p in paths)}; plot in {data / 'classes.png'}")
    say("simulated by Pythia8 (arXiv:2203.11601), clustered by FastJet (arXiv:1111.6097)")


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
    target_lut: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Predicted LUTs to train learned widths to, instead of the YAML's; files are "
            "<model>.lut<target>.*.",
        ),
    ] = None,
    build: Build = Path("build"),
) -> None:
    """Trains a model, float then quantized; continues where it was interrupted.

    Weights go beside the YAML, those of a shipped model to build/trained with a copy of its YAML.
    """
    need("train", "plots")
    path = find_model(model)
    with progress_bar() as update:
        from salt_hls.training.run import train_model, weights_folder

        result = train_model(model, data, build, _epochs(update), warn, seed, ship, target_lut)
    print_training(result)
    stem = weights_folder(path, build, ship) / result.model
    say(f"weights {stem}.weights.h5")
    if stem.with_name(f"{stem.name}.yaml").exists():
        say(f"firmware from them: {command('firmware', f'{stem}.yaml')}")


def _epochs(update: Progress) -> Callable[[Any], None]:
    """What a training calls with where it is."""

    def step(p: Any) -> None:
        so_far = "" if p.accuracy is None else f", accuracy {p.accuracy:.4f}"
        if p.lut is not None:
            so_far += f", loss {p.loss:.4f}, {p.lut:,.0f} LUT predicted"
        name = f"{p.stage} phase {p.phase}/{p.phases} epoch {p.epoch}/{p.epochs}{so_far}"
        update(name, p.step, p.steps)

    return step


@app.command()
def quickstart(build: Build = Path("build")) -> None:
    """Trains a tiny model on the shipped jets and builds its firmware: a few minutes in all.

    A demonstration: `data`, `train` and `firmware` do the same with as many jets as it takes.
    """
    need("quickstart", "plots")
    from salt_hls.system.store import replacing

    path = build / "trained" / QUICKSTART.name
    with replacing(path) as partial:
        partial.write_bytes(QUICKSTART.read_bytes())
    model, begun = str(path), time.monotonic()
    with alone(model, build), progress_bar() as update:
        from salt_hls.firmware.build import build_firmware, require_exact
        from salt_hls.models.tagger import SAMPLE
        from salt_hls.training.run import train_model

        result = train_model(model, SAMPLE, build, _epochs(update))
        limits = load_budget(DEFAULT_BUDGET)
        report = build_firmware(model, "Vitis", build, limits, cores(), update)
    print_training(result)
    print_bits(report)
    require_exact(report, build)
    folder, took = build / report.model, time.monotonic() - begun
    say(
        f"trained on {result.training_jets:,} jets of {SAMPLE.name} and built in {took:.0f} s: a "
        f"demonstration, no good tagger. Judge it by the {result.float_.events} test jets above: "
        "accuracies in its report are of all the jets, most of which it was trained on.",
    )
    say(f"firmware {folder / 'firmware'}, report {folder / 'report.html'}")
    say(
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
    from salt_hls.report.folder import build_folder

    build_folder(build, find_model(model).stem)
    need("diagnose", "plots")
    with progress_bar() as update:
        from salt_hls.check.diagnose import diagnose as look

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
        say(f"warning: {warning}")
    folder = build / result.model / "diagnose"
    say(f"all of it in {folder / 'diagnose.json'}, plot {folder / 'diagnose.png'}")


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
    from salt_hls.check import regression

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
            say(f"{text}, in {path}")
        elif change.startswith(regression.NO_CHANGE):
            say(text)
        else:
            faults += 1
            tell(f"{text}; {command('golden', name)} accepts them")
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
        say(f"{key}: {value}")
    say(f"written to {path}")


@app.command()
def scaling(
    model: Model = "salt_p4_n150",
    path: Annotated[
        Path, typer.Option(help="JSON of the figures; the plot stands beside it.")
    ] = CHECKOUT / "docs" / "results" / "scaling.json",
    jobs: Jobs = None,
    scheduler: SchedulerName = None,
    cluster: ClusterFile = None,
    build: Build = Path("build"),
) -> None:
    """Measures cycles and area of a streaming tagger against particles and lanes."""
    need("scaling", "rtl", "plots", "jobs")
    find_model(model)
    with progress_bar() as update, runner_of(jobs, scheduler, cluster) as runner:
        from salt_hls.studies.scaling import measure

        result = measure(model, path, build / CACHE, cores(), runner, update)
    table = Table("particles", "a clock", "II", "latency", "LUT", "FF", "events")
    for p in result.points:
        table.add_row(
            *map(str, (p.particles, p.particles_per_clock, p.ii_cycles, p.latency_cycles)),
            *(f"{count:,}" for count in (p.lut, p.ff, p.events)),
        )
    console.print(table)
    say(f"written to {path} and {path.with_suffix('.png')}")


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
    data: Annotated[
        Path, typer.Option(help="Folder of train.h5, validation.h5 and test.h5 of `make data`.")
    ] = Path("data"),
    jobs: Jobs = None,
    scheduler: SchedulerName = None,
    cluster: ClusterFile = None,
    build: Build = Path("build"),
) -> None:
    """Trains rivals and ablations that have no result yet; renews their tables and plots."""
    need("results", "plots", *([] if render else ["jobs"]))
    from salt_hls.studies.study import Results, load_study

    declared, found = load_study(study), Results(study)
    runs = declared.runs(rows or [])
    from salt_hls.studies.render import render as write

    if not render:
        from salt_hls.studies.run import run_missing

        with progress_bar() as update, runner_of(jobs, scheduler, cluster) as runner:
            run_missing(found, runs, data, build / "results", runner, update)
    written = write(declared, found, study.parent.with_suffix(".md"))
    say(f"renewed {', '.join(str(p) for p in written)}")


@app.command()
def explore(
    model: Model = "salt_p4_n16",
    trials: Annotated[
        int, typer.Option(min=3, help="Points in all that are trained or given up.")
    ] = 20,
    budget: BudgetName = DEFAULT_BUDGET,
    data: Annotated[
        Path, typer.Option(help="Jets: a folder or file of any known format (docs/data.md).")
    ] = Path("data"),
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the results, else build/explore/MODEL.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="SQLite file or URL of a database for the study, else one beside builds."
        ),
    ] = None,
    jobs: Jobs = None,
    scheduler: SchedulerName = None,
    cluster: ClusterFile = None,
    build: Build = Path("build"),
) -> None:
    """Searches the ranges of a model's YAML for accuracy and cost; continues where it was stopped.

    Writes a table, a plot of the front with the budget, and a YAML for each point of the front.
    """
    path = find_model(model)
    need("explore", "explore", "rtl", "plots", "jobs")
    limits, work = load_budget(budget), build / "explore" / path.stem
    with progress_bar() as update, runner_of(jobs, scheduler, cluster) as runner:
        update("load jets")
        from salt_hls.studies.explore import Space, search

        space = Space.load(model)
        found = search(space, data, work, storage, trials, runner, update)
    from salt_hls.studies.front import next_step, verdict, write

    written = write(found, space, limits, folder or work)
    table = Table("point", *found.vary, "accuracy", "LUT", "latency, ns", title="front")
    for p in found.front:
        values = (json.dumps(value) for value in p.values.values())
        figures = f"{p.accuracy:.2%}", f"{p.lut:,}", f"{p.latency_ns:g}"
        table.add_row(str(p.number), *values, *figures)
    console.print(table)
    say(
        f"the short training ranks as the long one? {verdict(found.checked, found.validation_jets)}"
    )
    say(f"written {', '.join(str(p) for p in written)}")
    say(next_step(found, written))


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
    from salt_hls.report.budget import judge
    from salt_hls.report.folder import add, build_folder
    from salt_hls.report.readers import scan_reports
    from salt_hls.report.records import Report, json_schema
    from salt_hls.system.store import exists

    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if model is None and from_ is None:
        raise typer.BadParameter("give a model, or --from DIR")
    limits = load_budget(budget)
    scan = None if from_ is None else scan_reports(from_)
    records = [] if scan is None else scan.records
    for warning in [] if scan is None else scan.warnings:
        warn(warning)
    for problem in [] if scan is None else scan.problems:
        tell(problem)
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
        print_synthesis(result)
    if (strict and result.verdict != "pass") or (scan is not None and scan.problems):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        found = versions()
        texts = [f"salt-hls {__version__}", f"Python {sys.version.split()[0]}"]
        for name in ("TensorFlow", "hls4ml", "QKeras"):
            number = found.get(name.lower())
            texts.append(f"{name} {number}" if number else f"no {name}")
        typer.echo(", ".join(texts))
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print versions, end."),
    ] = False,
) -> None:
    pass
