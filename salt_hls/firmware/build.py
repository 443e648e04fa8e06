"""`make firmware`: from a model's YAML and weights to checked firmware and its report."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from salt_hls.check.checked import Checked
from salt_hls.check.compare import compare_all, first_difference, split_outputs
from salt_hls.errors import UserError
from salt_hls.firmware.manifest import (
    is_build,
    kept,
    key_of,
    known_report,
    read_manifest,
    write_manifest,
)
from salt_hls.firmware.physics import physics_of
from salt_hls.hls.convert import Backend, Converted, convert, layouts, write_project
from salt_hls.hls.csim import Csim, compile_csim
from salt_hls.hls.names import top_name
from salt_hls.hls.testbench import write_testbench
from salt_hls.models.tagger import Tagger, hard_inputs, load_tagger, sample_inputs
from salt_hls.report.budget import Budget
from salt_hls.report.folder import (
    CSIM,
    INTERFACE,
    JSON,
    PROJECT,
    SIMULATED,
    archive,
    build_folder,
    changing,
    publish,
)
from salt_hls.report.records import Report
from salt_hls.system.progress import Progress
from salt_hls.system.store import (
    fresh_folder,
    locked,
    put_folder,
    require_replaceable,
    restore,
)
from salt_hls.version import versions

TESTBENCH_JETS = 200
"""Sample jets in the vendor's testbench, in front of the adversarial inputs."""


@dataclass(frozen=True)
class Project:
    """A tagger's HLS project, with its graphs and compiled C-simulation."""

    folder: Path
    converted: Converted
    csim: Csim


def converted(tagger: Tagger, folder: Path, backend: Backend) -> Converted:
    """The tagger's graph, to be written to `folder`."""
    target = tagger.config.firmware
    container = tagger.config.inputs.container
    return convert(
        tagger.quantized,
        container,
        tagger.name,
        folder,
        backend,
        target.part,
        target.clock_ns,
        target.io_type,
        target.particles_per_clock,
    )


def write_and_compile(tagger: Tagger, folder: Path, backend: Backend, log: Path) -> Project:
    """Writes the HLS project to `folder`/firmware, compiles its C-simulation in `folder`/csim.

    log: where the compiler's messages are left when it fails.
    """
    made = converted(tagger, folder / PROJECT, backend)
    project = write_project(made)
    graph = made.graph
    outputs = [node.name for node in graph.output_nodes]
    csim = compile_csim(project, top_name(tagger.name), layouts(graph), outputs, folder / CSIM, log)
    return Project(project, made, csim)


def build_firmware(
    reference: str,
    backend: Backend,
    build: Path,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> Report:
    """Builds and checks the firmware of a model; returns the report written with it.

    On success `build`/<name> holds firmware/, csim/, manifest.json, report.json, report.html and
    history/. Firmware that is the same as before keeps its RTL and its hardware figures. A failed
    run leaves what was there; when bits differ, the new folder is `build`/<name>.failed. Only
    builds are replaced: anything else of these names is a `UserError`.
    """
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    inputs, labels = sample_inputs(tagger)
    hard = hard_inputs(tagger)
    everything = np.concatenate([inputs, hard])
    target = build_folder(build, tagger.name)
    failed = target.with_name(f"{tagger.name}.failed")
    for place in (target, failed):
        require_replaceable(place, is_build)
    with fresh_folder(target) as folder:
        progress("write and compile", 0, 1)
        log = target.with_name(f"{tagger.name}.compile.log")
        project = write_and_compile(tagger, folder, backend, log)
        graph = project.converted.graph
        done = 0

        def compared(events: int) -> None:
            nonlocal done
            done += events
            progress("compare every layer", done, len(everything))

        records, outputs = compare_all(
            tagger.quantized, graph, project.csim, everything, workers, compared
        )
        progress("report", 0, 1)
        np.savez(folder / SIMULATED, inputs=everything, outputs=outputs)
        project.csim.write(folder / INTERFACE, tagger.config.inputs.model_dump(mode="json"))
        chosen = [*range(min(TESTBENCH_JETS, len(inputs))), *range(len(inputs), len(everything))]
        write_testbench(
            project.converted.hls4ml,
            project.folder,
            [everything[chosen].astype(float)],
            split_outputs(graph, outputs[chosen]),
        )
        write_manifest(folder, tagger, backend, graph)
        report = Report(
            model=tagger.name,
            backend=backend,
            io_type=tagger.config.firmware.io_type,
            part=tagger.config.firmware.part,
            clock_ns=tagger.config.firmware.clock_ns,
            n_particles=tagger.shape[0] if len(tagger.shape) == 2 else None,
            n_partitions=tagger.partitions,
            versions=versions(),
            inputs_sha256=hashlib.sha256(everything.tobytes()).hexdigest(),
            bit_accuracy=records,
            physics=physics_of(tagger, inputs, labels, outputs[: len(inputs)]),
        )
        passed = first_difference(records) is None
        with changing(target):
            known = known_report(folder, target, report)
            if known is None:
                archive(target, folder)
            else:
                pairs = {record.pair for record in records}
                report.bit_accuracy += [r for r in known.bit_accuracy if r.pair not in pairs]
                report.synthesis = known.synthesis
            publish(report, folder, budget)
            place = target if passed else failed
            same = passed and known is not None
            put_folder(folder, place, is_build, keep=kept(place, same))
    return report


def checked_firmware(
    reference: str,
    backend: Backend | None,
    build: Path,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> Checked:
    """The firmware of a model as it was built and checked; built now where anything has changed.

    backend: of the HLS project; `None` takes whichever was built. Raises `UserError` when bits
    differ.
    """
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    folder = build_folder(build, tagger.name)
    with locked(folder):
        restore(folder)
        manifest = read_manifest(folder)
        backend = backend or manifest.get("backend", "Vitis")
        graph = converted(tagger, folder / PROJECT, backend).graph
        whole = all((folder / name).is_file() for name in (SIMULATED, INTERFACE, JSON))
        if not whole or manifest.get("key") != key_of(tagger, graph, backend):
            report = build_firmware(reference, backend, build, budget, workers, progress)
            require_exact(report, build)
        with np.load(folder / SIMULATED) as simulated:
            return Checked(folder, tagger, graph, simulated["inputs"], simulated["outputs"])


def require_exact(report: Report, build: Path) -> None:
    """Raises `UserError` naming the first layer whose bits differ."""
    if difference := first_difference(report.bit_accuracy):
        raise UserError(f"{difference}; see {build / report.model}.failed/report.html")
