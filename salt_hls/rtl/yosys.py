"""LUT, carry, DSP and logic depth of every pipeline stage, measured with Yosys."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from salt_hls.errors import UserError
from salt_hls.report.records import Module, SynthesisRecord
from salt_hls.rtl import delays
from salt_hls.rtl.delay_lines import LONGEST, SHORTEST
from salt_hls.rtl.delays import period_for
from salt_hls.rtl.project import RtlProject
from salt_hls.system.digest import digest
from salt_hls.system.extras import need
from salt_hls.system.jobs import Job, Runner
from salt_hls.system.processes import TimedOut, do, scratch
from salt_hls.system.progress import Progress, silent

TIMEOUT_S = 3600.0

_STAGE = Path(__file__).with_name("yosys_stage.py")
_TABLE = re.compile(r"\btable_[0-9a-f_]+")


@dataclass(frozen=True)
class StageFigures:
    """Figures of one stage's logic; `inv` are inverters, most of which a placer absorbs.

    levels: look-up tables and carry chains on the longest path; delay_ns: of that by the table of
    delays. ff: registers; those behind a pipeline stage are not in it. srl: of `lut`, shift
    registers.
    """

    module: str
    lut: int
    inv: int
    carry4: int
    dsp: int
    bram18: int
    levels: int
    delay_ns: float
    ff: int
    srl: int

    @property
    def carry8(self) -> int:
        """CARRY8 primitives: two CARRY4 make one."""
        return (self.carry4 + 1) // 2


@dataclass(frozen=True)
class Synthesis:
    """All stages of a project as synthesized by Yosys."""

    project: RtlProject
    stages: tuple[StageFigures, ...]
    around: StageFigures | None = None
    """Of a streaming design: FIFOs, control, and the state around the kernels."""

    @property
    def everything(self) -> tuple[StageFigures, ...]:
        """The stages and what is around them."""
        return (*self.stages, self.around) if self.around else self.stages

    @property
    def carry8(self) -> int:
        """CARRY8 primitives."""
        return sum(stage.carry8 for stage in self.everything)

    @property
    def inv(self) -> int:
        """Inverters, not in `lut`."""
        return sum(stage.inv for stage in self.everything)

    @property
    def deepest(self) -> StageFigures:
        """The stage with the most logic levels."""
        return max(self.everything, key=lambda stage: stage.levels)

    @property
    def clock_ns(self) -> float | None:
        """The period that the slowest stage needs; None with DSP slices, which have no delay."""
        if any(stage.dsp for stage in self.everything):
            return None
        return period_for(max(stage.delay_ns for stage in self.everything))

    def record(
        self, latency_cycles: int | None = None, ii_cycles: int | None = None
    ) -> SynthesisRecord:
        """As a report record. latency_cycles, ii_cycles: as observed in simulation."""
        project = self.project
        notes = [
            f"{self.inv} inverters are not in the LUT figure; a placer absorbs most of them.",
            f"{self.carry8} CARRY8.",
            f"Bits that {SHORTEST} or more registers only delay are counted as shift registers, a "
            f"LUT for up to {LONGEST} clocks.",
            f"Deepest stage {self.deepest.module}: {self.deepest.levels} logic levels.",
        ]
        if project.multipliers == "dsp":
            notes.append(
                "Products in DSP slices count as one level, but take longer: no clock is estimated "
                "from the delays."
            )
        parts = [
            Module(
                name=stage.module,
                lut=stage.lut,
                dsp=stage.dsp,
                bram18=stage.bram18,
                carry=stage.carry8,
                levels=stage.levels,
                delay_ns=stage.delay_ns,
                ff=stage.ff,
                srl=stage.srl,
            )
            for stage in self.everything
        ]
        return project.record(
            parts,
            source="yosys",
            stage="rtl-synth",
            version=version("pyosys"),
            latency_cycles=latency_cycles,
            ii_cycles=ii_cycles,
            carry=self.carry8,
            levels=self.deepest.levels,
            clock_by_delays_ns=self.clock_ns,
            stage_budget_ns=round(project.stage_delay_ns, 3),
            notes=notes,
        )


def synthesize(
    project: RtlProject,
    cache: Path,
    runner: Runner,
    *,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = silent,
) -> Synthesis:
    """Runs Yosys (`synth_xilinx -family xcup`) on every stage that is not in `cache`.

    A stage is a job of up to 1.5 GB. timeout_s: for one stage. Products become DSP slices when the
    project was made so. Raises `UserError` when Yosys is missing, does not end or fails; its log
    stays in `cache`.
    """
    need("yosys", "rtl")
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    # The largest stages first: the last to end should not be a long one.
    modules = [s.module for s in sorted(project.stages, key=lambda stage: -stage.lut)]
    if project.streaming:
        modules.insert(0, project.top)
    results = {module: cache / f"yosys-{_key(project, module)}.json" for module in modules}
    jobs = [
        Job(f"yosys: stage {module}", _stage, (project, module, timeout_s), path)
        for module, path in results.items()
    ]
    finished = 0

    def done(job: Job) -> None:
        nonlocal finished
        finished += 1
        progress("Yosys: stages", finished, len(jobs))

    runner.do(jobs, done, lambda text: progress(text, finished, len(jobs)))
    found = {
        module: StageFigures(module=module, **json.loads(path.read_text()))
        for module, path in results.items()
    }
    return Synthesis(
        project,
        tuple(found[stage.module] for stage in project.stages),
        found.get(project.top) if project.streaming else None,
    )


def _parts(project: RtlProject, module: str) -> tuple[str, dict[str, str], list[Path]]:
    """The text of a stage, the modules that stay outside of it, and what all stages share."""
    text = (project.folder / f"src/{module}.v").read_text()
    boxes = project.kernels() if module == project.top else {}
    return text, boxes, sorted((project.folder / "src/static").glob("*.v"))


def _key(project: RtlProject, module: str) -> str:
    """Of all that the figures of a stage depend on."""
    text, boxes, static = _parts(project, module)
    dsp = project.multipliers == "dsp"
    # Tables are named by their content, so the text of the stage stands for them.
    anonymous = text.replace(f"module {module} ", "module stage ", 1)
    code = [_STAGE, Path(delays.__file__)]
    return digest(anonymous, static, dsp, sorted(boxes.values()), code, version("pyosys"))[:24]


def _stage(project: RtlProject, module: str, timeout_s: float, result: Path) -> None:
    """A job: the figures of one stage."""
    text, boxes, static = _parts(project, module)
    with scratch(result.parent) as work:
        tables = work / "tables.v"
        tables.write_text(_tables(project, text) + "".join(boxes.values()))
        sources = [*static, tables, project.folder / f"src/{module}.v"]
        paths = [str(source) for source in sources]
        dsp = project.multipliers == "dsp"
        job = {"top": module, "sources": paths, "dsp": dsp, "boxes": list(boxes)}
        (work / "job.json").write_text(json.dumps(job))
        log = result.with_suffix(f".{module}.log")
        command = [sys.executable, str(_STAGE), str(work / "job.json"), str(work / "result")]
        try:
            do(f"yosys: stage {module}", command, work, log, timeout_s=timeout_s)
        except TimedOut:
            raise UserError(
                f"yosys: stage {module} did not end in {timeout_s:g} s; allow more, or make "
                f"stages smaller with a shorter clock period; see {log}"
            ) from None
        os.replace(work / "result", result)


def _tables(project: RtlProject, text: str) -> str:
    """The look-up tables that a stage uses."""
    used = sorted(set(_TABLE.findall(text)))
    if not used:
        return ""
    everything = (project.folder / f"src/{project.top}_tables.v").read_text()
    modules = dict(re.findall(r"(?ms)^module (table_\w+)(\(.*?^endmodule)", everything))
    return "\n".join(f"module {name}{modules[name]}" for name in used) + "\n"
