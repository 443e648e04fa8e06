"""`make synth TOOL=vitis|vivado`: the vendor's tools on checked firmware, their reports read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast, get_args

from salt_hls.amd.tools import Step, Tool, find_tool, find_vivado, run_hls, run_vivado
from salt_hls.check.checked import Checked
from salt_hls.errors import UserError
from salt_hls.report.budget import Budget
from salt_hls.report.folder import PROJECT, RTL, add
from salt_hls.report.readers import scan_reports
from salt_hls.report.records import Report
from salt_hls.rtl.build import Options, write_rtl
from salt_hls.system.progress import Progress
from salt_hls.system.wording import option

ROUTE = "route"
"""The step that implements the RTL of `make rtl` with Vivado; the others are of the HLS project."""


class Plan(NamedTuple):
    """What to run: steps of the HLS project, and whether to implement the RTL."""

    tool: Tool
    steps: tuple[Step, ...]
    route: bool


def plan(tool: Tool, steps: str) -> Plan:
    """Steps as a user lists them, with commas; `UserError` for unknown ones and missing tools."""
    names = [name.strip() for name in steps.split(",") if name.strip()]
    known = (*get_args(Step), ROUTE)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        given = option("steps", steps)
        raise UserError(f"{given}: must be some of {', '.join(known)}, with commas between")
    chosen = cast(tuple[Step, ...], tuple(name for name in names if name != ROUTE))
    if chosen:
        find_tool(tool)
    if ROUTE in names:
        find_vivado(f"step {ROUTE}")
    return Plan(tool, chosen, ROUTE in names)


def synthesize_hls(
    firmware: Checked,
    plan: Plan,
    options: Options,
    budget: Budget,
    progress: Progress,
    timeout_s: float | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Report:
    """Runs the plan on the firmware in its build folder; its reports join the firmware's.

    warn: told of reports that cannot be read, but whose figures another one has. Raises `UserError`
    when a step fails, takes longer than timeout_s, or leaves a damaged report; what could be read
    is in the firmware's report then.
    """
    folders = []
    if plan.steps:
        project = firmware.folder / PROJECT
        run_hls(project, plan.tool, plan.steps, timeout_s=timeout_s, progress=progress)
        folders.append(project)
    if plan.route:
        project = write_rtl(firmware, options, progress).folder
        run_vivado(project, timeout_s=timeout_s, progress=progress)
        folders.append(firmware.folder / RTL)
    scans = [(folder, scan_reports(folder)) for folder in folders]
    records = [
        record.model_copy(update={"source": f"{folder.name}/{record.source}"})
        for folder, scan in scans
        for record in scan.records
    ]
    for _, scan in scans:
        for warning in scan.warnings:
            warn(warning)
    report = add(records, firmware.folder, budget)
    for _, scan in scans:
        if scan.problems:
            raise UserError(scan.problems[0])
    return report
