"""Cost of a streaming tagger against particles and lanes: simulated, synthesized, plotted."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel

from salt_hls.config import ModelConfig
from salt_hls.errors import UserError
from salt_hls.firmware.build import converted
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.models.build import build_model, snap_weights
from salt_hls.models.tagger import Tagger, load_tagger, sample_inputs
from salt_hls.rtl.stream_project import generate_stream
from salt_hls.rtl.verilator import simulate_stream
from salt_hls.rtl.yosys import synthesize
from salt_hls.system.jobs import Runner
from salt_hls.system.processes import scratch
from salt_hls.system.progress import Progress
from salt_hls.system.store import replacing

POINTS = ((16, 1), (32, 1), (64, 1), (100, 1), (150, 1), (200, 1), (150, 2), (150, 4))
"""Particles of a jet, and particles a clock."""

JETS = 200
"""Sample jets that each design is simulated with, before the adversarial ones."""


class Point(BaseModel):
    """One design: latency and II observed by Verilator, LUT and FF counted by Yosys."""

    particles: int
    particles_per_clock: int
    ii_cycles: int
    latency_cycles: int
    lut: int
    ff: int
    dsp: int
    bram18: int
    events: int


class Scaling(BaseModel):
    """What `measure` found, with what it depends on."""

    model: str
    part: str
    clock_ns: float
    versions: dict[str, str]
    points: list[Point]


def measure(
    reference: str, path: Path, cache: Path, workers: int, runner: Runner, progress: Progress
) -> Scaling:
    """Builds the streaming RTL of a model for every number of particles and lanes in `POINTS`.

    The weights are the model's; a projection's rows are interpolated to the chunk of each N. Every
    design must give golden's bits, at full rate and with gaps. Writes `path` and, beside it, the
    plot. cache: folder of simulators and synthesized stages, which makes a second run short.
    workers: compilers at a time; the runner synthesizes.
    """
    tagger = load_tagger(reference)
    of_yaml = isinstance(tagger.config, ModelConfig)
    if not of_yaml or tagger.config.firmware.io_type != "io_stream":
        raise UserError(
            f"{tagger.name}: only a model of a YAML with firmware.io_type: io_stream is scaled"
        )
    points = []
    for particles, lanes in POINTS:
        title = f"N = {particles}, {lanes} a clock"

        def say(what: str, done: int = 0, total: int = 1, title: str = title) -> None:
            progress(f"{title}: {what}", done, total)

        points.append(_point(resized(tagger, particles, lanes), cache, workers, runner, say))
    target = tagger.config.firmware
    result = Scaling(
        model=tagger.name,
        part=target.part,
        clock_ns=target.clock_ns,
        versions={name: version(name) for name in ("alkaid", "verilator", "pyosys")},
        points=points,
    )
    with replacing(path) as partial:
        partial.write_text(result.model_dump_json(indent=1) + "\n")
    plot(result, path.with_suffix(".png"))
    return result


def resized(tagger: Tagger, particles: int, lanes: int) -> Tagger:
    """The tagger for jets of another size, with its own weights as far as they fit."""
    content = tagger.config.model_dump()
    content["particles"] = particles
    content["firmware"]["particles_per_clock"] = lanes
    config = ModelConfig.model_validate(content)
    model = build_model(config, quantized=True)
    model.set_weights(
        [
            _interpolated(old, tuple(variable.shape))
            for old, variable in zip(tagger.quantized.get_weights(), model.weights, strict=True)
        ]
    )
    snap_weights(model)
    return Tagger(f"{tagger.name}_n{particles}_x{lanes}", config, model, None, ())


def _interpolated(weight: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The weight in another shape, linear between its entries."""
    for axis, size in enumerate(shape):
        at = np.linspace(0, weight.shape[axis] - 1, size)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, weight.shape[axis] - 1)
        part = (at - low).reshape([-1 if k == axis else 1 for k in range(weight.ndim)])
        weight = weight.take(low, axis) * (1 - part) + weight.take(high, axis) * part
    return weight


def _point(tagger: Tagger, cache: Path, workers: int, runner: Runner, progress: Progress) -> Point:
    config = tagger.config
    types, particles = tagger.feature_types, tagger.shape[0]
    jets, _ = sample_inputs(tagger)
    inputs = np.concatenate([jets[:JETS], adversarial_inputs(particles, types)])
    with scratch(cache.resolve()) as temporary:
        graph = converted(tagger, temporary / "firmware", "Vitis").graph
        *_, golden = graph.run([inputs.astype(np.float64)]).values()
        project = generate_stream(
            graph,
            temporary / "rtl",
            clock_ns=config.firmware.clock_ns,
            part=config.firmware.part,
            feature_types=types,
            progress=progress,
        )
        full_rate, *others = simulate_stream(
            project, inputs, cache, jobs=workers, progress=progress
        )
        for run in (full_rate, *others):
            if not np.array_equal(run.outputs, golden):
                raise UserError(f"{tagger.name}: the RTL does not give golden's bits")
        synthesis = synthesize(project, cache, runner, progress=progress)
    counted = synthesis.record().model_dump(include={"lut", "ff", "dsp", "bram18"})
    return Point.model_validate(
        {
            "particles": particles,
            "particles_per_clock": config.firmware.particles_per_clock,
            "ii_cycles": full_rate.ii_cycles,
            "latency_cycles": full_rate.latency_cycles,
            "events": len(inputs),
            **counted,
        }
    )


def plot(result: Scaling, path: Path) -> None:
    """Cycles and area against particles; the designs of several lanes by their number."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    series = (
        (left, "latency_cycles", "latency", "o-"),
        (left, "ii_cycles", "II", "s-"),
        (right, "lut", "LUT", "o-"),
        (right, "ff", "FF", "s-"),
    )
    one = [p for p in result.points if p.particles_per_clock == 1]
    several = [p for p in result.points if p.particles_per_clock > 1]
    for axis, key, label, style in series:
        (line,) = axis.plot([p.particles for p in one], [getattr(p, key) for p in one], style)
        line.set_label(f"{label}, one particle a clock")
        for point in several:
            at = point.particles, getattr(point, key)
            axis.plot(*at, style[0], color=line.get_color(), fillstyle="none")
            axis.annotate(f" {point.particles_per_clock} a clock", at, va="center")
    left.set_ylabel(f"cycles of {result.clock_ns:g} ns (Verilator)")
    right.set_ylabel("count (Yosys)")
    for axis in (left, right):
        axis.set_xlabel("particles")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
