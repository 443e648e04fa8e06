"""Runs the vendor's tools on HLS projects (TOOL=vitis or vivado) and on RTL projects (vivado)."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salt_hls.errors import UserError
from salt_hls.hls.testbench import VERDICTS
from salt_hls.report.readers import read_file
from salt_hls.system.processes import TimedOut, run
from salt_hls.system.progress import Progress, silent
from salt_hls.system.wording import option

Tool = Literal["vitis", "vivado"]
Step = Literal["csim", "csynth", "cosim", "vsynth"]
STEPS: tuple[Step, ...] = ("csim", "csynth", "cosim", "vsynth")
EXECUTABLES: dict[Tool, tuple[str, ...]] = {
    "vitis": ("vitis-run", "vitis_hls"),
    "vivado": ("vivado_hls",),
}
"""The HLS programs of a tool, newest first."""

HARMLESS = re.compile(r"config_array_partition -maximum_size")
"""An error that hls4ml's script catches: newer tools do not know this setting."""

_OPTIONS = ("reset", "csim", "synth", "cosim", "validation", "export", "vsynth", "fifo_opt")
_REPORTS: dict[Step, tuple[str, ...]] = {
    "csynth": ("*_prj/solution1/syn/report/*csynth.xml", "*_prj/solution1/syn/report/*csynth.rpt"),
    "cosim": ("*_prj/solution1/sim/report/*_cosim.rpt",),
    "vsynth": ("vivado_synth.rpt",),
}
"""What a step leaves when it has done its work."""


@dataclass(frozen=True)
class VendorRun:
    """A finished run. seconds: wall clock; log: everything the tool printed."""

    program: str
    steps: tuple[Step, ...]
    log: Path
    seconds: float


def find_tool(tool: Tool) -> Path:
    """The tool's HLS program on PATH; `UserError` names what was looked for."""
    if tool not in EXECUTABLES:
        raise UserError(
            f"{option('tool', tool)}: must be one of {', '.join(EXECUTABLES)}, or yosys"
        )
    for name in EXECUTABLES[tool]:
        if path := shutil.which(name):
            return Path(path)
    raise UserError(
        f"{option('tool', tool)}: none of {', '.join(EXECUTABLES[tool])} is on PATH; source the "
        f"installation's settings64.sh, or use {option('tool', 'yosys')}, which needs no licence"
    )


def run_hls(
    project: Path,
    tool: Tool,
    steps: Sequence[Step],
    *,
    timeout_s: float | None = None,
    progress: Progress = silent,
) -> VendorRun:
    """Runs steps of an HLS project (a folder that hls4ml wrote, with our testbench).

    csim and cosim must end with the testbench's verdict PASS, and no report or line of the tool may
    say that they failed; csynth and vsynth must leave a new report. Otherwise, and when the tool
    fails or runs past `timeout_s`, a `UserError` names the step and the log.
    """
    chosen = tuple(step for step in STEPS if step in steps)
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not chosen:
        raise UserError(f"steps: expected some of {', '.join(STEPS)}, got {list(steps)}")
    if "csynth" not in chosen and ("cosim" in chosen or "vsynth" in chosen):
        chosen = tuple(step for step in STEPS if step in chosen or step == "csynth")
    program = find_tool(tool)
    if "vsynth" in chosen:
        find_vivado("step vsynth")
    command = _command(project, tool, program, chosen)
    log = _log(project, program)
    _forget(project, chosen)
    started, at = time.time(), time.monotonic()
    errors: list[str] = []

    def read(line: str) -> None:
        if line.startswith("*****"):
            progress(f"{program.name}: {line.strip('* ').lower()}")
        elif line.startswith("ERROR") and not HARMLESS.search(line):
            errors.append(line)

    status = _status(program.name, command, project, log, timeout_s, read)
    for step in chosen:
        if fault := _fault(project, step, started, log):
            raise UserError(f"{program.name}: {step} failed: {fault}{_first(errors)}; see {log}")
    if status != 0:
        raise UserError(f"{program.name}: ended with status {status}{_first(errors)}; see {log}")
    return VendorRun(program.name, chosen, log, time.monotonic() - at)


def run_vivado(
    project: Path,
    *,
    timeout_s: float | None = None,
    progress: Progress = silent,
) -> VendorRun:
    """Synthesizes, places and routes a generated RTL project; reports go to its output folder."""
    program = find_vivado(f"{option('tool', 'vivado')} on an RTL project")
    log = _log(project, program)
    command = [str(program), "-mode", "batch", "-nojournal", "-source", "build_vivado_prj.tcl"]
    at, started = time.monotonic(), time.time()
    errors: list[str] = []

    def read(line: str) -> None:
        if line.startswith(("Command:", "Starting ")):
            progress(f"vivado: {line.removeprefix('Command:').strip()[:60]}")
        elif line.startswith("ERROR"):
            errors.append(line)

    status = _status("vivado", command, project, log, timeout_s, read)
    reports = project.glob("output_*/reports/*_post_route_util.rpt")
    if status != 0 or not any(path.stat().st_mtime >= started - 2 for path in reports):
        raise UserError(f"vivado: ended with status {status}{_first(errors)}; see {log}")
    return VendorRun("vivado", ("vsynth",), log, time.monotonic() - at)


def _status(
    name: str,
    command: Sequence[str],
    project: Path,
    log: Path,
    timeout_s: float | None,
    on_line: Callable[[str], None],
) -> int:
    """Exit status of a tool that was run; `UserError` when it takes too long."""
    try:
        return run(command, project, log, timeout_s=timeout_s, on_line=on_line)
    except TimedOut:
        raise UserError(
            f"{name}: did not end within {timeout_s:g} s and was stopped; see {log}"
        ) from None


def find_vivado(purpose: str) -> Path:
    """Vivado on PATH; `UserError` names the purpose it is missing for."""
    path = shutil.which("vivado")
    if path is None:
        raise UserError(f"{purpose}: vivado is not on PATH; source its settings64.sh")
    return Path(path)


def _log(project: Path, program: Path) -> Path:
    """Where what a program prints goes; the tools write logs of their own names themselves."""
    return project / f"salt_hls.{program.name}.log"


def _command(project: Path, tool: Tool, program: Path, steps: Sequence[Step]) -> list[str]:
    script = project / "build_prj.tcl"
    if not script.is_file():
        raise UserError(f"{project}: no HLS project (build_prj.tcl is missing)")
    values = {
        "reset": True,
        "csim": "csim" in steps,
        "synth": "csynth" in steps,
        "cosim": "cosim" in steps,
        "validation": "csim" in steps and "cosim" in steps,
        "vsynth": "vsynth" in steps,
    }
    options = {name: int(values.get(name, False)) for name in _OPTIONS}
    written_for: Tool = "vitis" if "build_opt.tcl" in script.read_text() else "vivado"
    if written_for != tool:
        raise UserError(
            f"{project}: was written for {option('tool', written_for)}; write it again with "
            f"{option('backend', tool)}"
        )
    if tool == "vivado":
        arguments = " ".join(f"{name}={value}" for name, value in options.items())
        return [str(program), "-f", "build_prj.tcl", arguments]
    lines = "".join(f"    {name:10} {value}\n" for name, value in options.items())
    (project / "build_opt.tcl").write_text(f"array set opt {{\n{lines}}}\n")
    if program.name == "vitis-run":
        return [str(program), "--tcl", "build_prj.tcl", "--mode", "hls"]
    return [str(program), "-f", "build_prj.tcl"]


def _forget(project: Path, steps: Sequence[Step]) -> None:
    """Removes verdicts of earlier runs."""
    for step in steps:
        if step in VERDICTS:
            for path in project.rglob(VERDICTS[step]):
                path.unlink()


def _fault(project: Path, step: Step, started: float, log: Path) -> str | None:
    """Why a step has not done its work, or `None`."""
    patterns = _REPORTS.get(step, ())
    reports = [path for pattern in patterns for path in project.glob(pattern)]
    if step in VERDICTS:
        verdicts = [path.read_text().strip() for path in project.rglob(VERDICTS[step])]
        if not verdicts:
            return "the testbench did not run to its end"
        wrong = [text for text in verdicts if not text.startswith("PASS")]
        if wrong:
            return f"the design differs from the golden outputs ({wrong[0]})"
        # The verdict may be that of the C code, which cosim runs before the RTL.
        for path in (log, *reports):
            with suppress(UserError):  # what is no report says nothing
                told = [r for r in read_file(path, path.name) if r.kind == step]
                if any((r.status or "").lower() != "pass" for r in told):
                    return f"{path.name} does not say that it passed"
    if patterns and not any(path.stat().st_mtime >= started - 2 for path in reports):
        return "no new report"
    return None


def _first(errors: Sequence[str]) -> str:
    return f" ({errors[0][:160]})" if errors else ""
