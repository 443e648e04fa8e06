"""`make rtl` and `make synth TOOL=yosys`: RTL of checked firmware, simulated and synthesized."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from salt_hls.check.checked import Checked
from salt_hls.check.compare import compare, first_difference, split_outputs
from salt_hls.errors import UserError
from salt_hls.graph.graph import Graph
from salt_hls.models.tagger import Tagger
from salt_hls.report.budget import Budget
from salt_hls.report.folder import JSON, PAGE, RTL, add, forget
from salt_hls.report.records import BitAccuracy, Report, SynthesisRecord
from salt_hls.rtl.project import Multipliers, RtlProject, existing, generate
from salt_hls.rtl.stream_project import generate_stream
from salt_hls.rtl.verilator import Simulation, simulate, simulate_stream
from salt_hls.rtl.yosys import TIMEOUT_S, synthesize
from salt_hls.system.jobs import Runner
from salt_hls.system.progress import Progress, silent

PAIR = "csim/rtl"
SOURCES = ("alkaid", "verilator", "yosys")
"""Sources of the figures made here, as the report names them."""


@dataclass(frozen=True)
class Options:
    """How the RTL is made. clock_ns: `None` is that of the model."""

    clock_ns: float | None = None
    multipliers: Multipliers = "lut"


def write_rtl(firmware: Checked, options: Options, progress: Progress) -> RtlProject:
    """Pipelined Verilog of the firmware in its build folder, with a Vivado project.

    Figures of another RTL leave the firmware's report.
    """
    folder = firmware.folder / RTL
    before = existing(folder)
    project = project_of(firmware.tagger, firmware.graph, folder, options, progress)
    if before is None or project.key != before.key:
        forget(SOURCES, PAIR, firmware.folder)
    return project


def project_of(
    tagger: Tagger, graph: Graph, folder: Path, options: Options, progress: Progress = silent
) -> RtlProject:
    """Pipelined Verilog of a tagger's graph in `folder`."""
    target = tagger.config.firmware
    make = generate_stream if target.io_type == "io_stream" else generate
    return make(
        graph,
        folder,
        clock_ns=options.clock_ns or target.clock_ns,
        part=target.part,
        multipliers=options.multipliers,
        feature_types=tagger.feature_types,
        progress=progress,
    )


def estimate(firmware: Checked, options: Options, budget: Budget, progress: Progress) -> Report:
    """The figures known without simulation or synthesis, into the firmware's report."""
    project = write_rtl(firmware, options, progress)
    return add([project.estimate()], firmware.folder, budget)


def build_rtl(
    firmware: Checked,
    options: Options,
    budget: Budget,
    cache: Path,
    workers: int,
    progress: Progress,
) -> tuple[RtlProject, Simulation, Report]:
    """Writes the RTL, sends every checked event through it back to back, compares every bit.

    A streaming design gets them a second time, with gaps in its input. cache: folder for compiled
    simulators. Latency and II in the report are observed. Raises `UserError`, after the report is
    written, when the RTL differs from C-simulation.
    """
    project = write_rtl(firmware, options, progress)
    if project.streaming:
        simulation, *others = simulate_stream(
            project, firmware.inputs, cache, jobs=workers, progress=progress
        )
        given = "back to back, and again with gaps in the input."
    else:
        simulation = simulate(project, firmware.inputs, cache, jobs=workers, progress=progress)
        others, given = [], "back to back, one every clock."
    checks = [_compared(firmware, run) for run in (simulation, *others)]
    bits = max(checks, key=lambda check: sum(record.mismatches for record in check))
    observed = SynthesisRecord(
        source="verilator",
        stage="rtl-synth",
        kind="cosim",
        tool="verilator",
        version=version("verilator"),
        top=project.top,
        part=project.part,
        clock_ns=project.clock_ns,
        latency_cycles=simulation.latency_cycles,
        ii_cycles=simulation.ii_cycles,
        status="Fail" if first_difference(bits) else "Pass",
        notes=[f"{len(firmware.inputs):,} events {given}"],
    )
    report = add([project.estimate(), observed], firmware.folder, budget, bits)
    if difference := first_difference(bits):
        raise UserError(f"{difference}; see {firmware.folder / PAGE}")
    return project, simulation, report


def _compared(firmware: Checked, run: Simulation) -> list[BitAccuracy]:
    """Every output of the model, in C-simulation and in the RTL."""
    graph = firmware.graph
    outputs = (split_outputs(graph, values) for values in (firmware.outputs, run.outputs))
    return [
        compare(PAIR, node.name, expected, got, node.output.type)
        for node, expected, got in zip(graph.output_nodes, *outputs, strict=True)
    ]


def synthesize_rtl(
    firmware: Checked,
    options: Options,
    budget: Budget,
    cache: Path,
    workers: int,
    runner: Runner,
    progress: Progress,
    timeout_s: float | None = None,
) -> Report:
    """`build_rtl`, unless this very RTL has passed it, then Yosys on every stage.

    timeout_s: for one stage.
    """
    project, seen = write_rtl(firmware, options, progress), _observed(firmware)
    if seen is None:
        project, simulation, _ = build_rtl(firmware, options, budget, cache, workers, progress)
        seen = simulation.latency_cycles, simulation.ii_cycles
    figures = synthesize(
        project, cache, runner, timeout_s=timeout_s or TIMEOUT_S, progress=progress
    )
    return add([figures.record(*seen)], firmware.folder, budget)


def _observed(firmware: Checked) -> tuple[int, int] | None:
    """Latency and II of a simulation that passed; `write_rtl` drops them when the RTL changes."""
    for record in Report.read(firmware.folder / JSON).synthesis:
        latency, interval = record.latency_cycles, record.ii_cycles
        passed = record.source == "verilator" and record.status == "Pass"
        if passed and isinstance(latency, int) and isinstance(interval, int):
            return latency, interval
    return None
