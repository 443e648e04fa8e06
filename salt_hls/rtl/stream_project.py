"""From a design of units to a folder of Verilog: kernels by alkaid, the rest written here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from alkaid.trace import trace
from alkaid.trace.passes import optimize

from salt_hls.config import CLOCK_NS, PART
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.graph.loops import Loop, when
from salt_hls.graph.tensor import Channel
from salt_hls.rtl.delays import stage_budget
from salt_hls.rtl.design import Design, design_of, timing
from salt_hls.rtl.project import (
    TOP,
    Multipliers,
    Port,
    RtlProject,
    Stage,
    Streaming,
    check_options,
    existing,
    is_project,
    port_of,
    registers_and_stages,
    rtl_key,
    write_manifest,
    write_pipeline,
)
from salt_hls.rtl.tracer import HLS4MLTracer, symbols
from salt_hls.system.progress import Progress, silent
from salt_hls.system.store import replacing_folder

FIFO = Path(__file__).with_name("stream_fifo.v")
_TABLE = re.compile(r"(?ms)^module (table_\w+)\(.*?^endmodule\n")


def generate_stream(
    graph: Graph,
    folder: Path,
    *,
    clock_ns: float = CLOCK_NS,
    part: str = PART,
    multipliers: Multipliers = "lut",
    feature_types: Sequence[FixedType] | None = None,
    progress: Progress = silent,
) -> RtlProject:
    """Writes the Verilog of an io_stream graph.

    The top module takes a transfer of `model_inp` at every clock with `in_valid` and `in_ready`,
    and gives a jet's `model_out` at each with `out_valid`; `rst` forgets all jets. feature_types:
    types of a particle's features, where narrower than the input's. Otherwise as `generate`.
    """
    folder = folder.resolve()
    check_options(clock_ns, multipliers)
    delay = stage_budget(clock_ns)
    key = rtl_key(graph, clock_ns, part, multipliers, feature_types)
    if (before := existing(folder)) and before.key == key:
        return before

    design = design_of(graph)
    (features,) = HLS4MLTracer(graph, feature_types=feature_types).input_types()
    kernels: list[tuple[Port, Port]] = []
    stages: list[Stage] = []
    tables: dict[str, str] = {}
    pipelines: dict[str, int] = {}
    registers = shift_registers = 0
    with replacing_folder(folder, is_project) as work:
        for unit in design.units:
            progress(f"RTL: writing Verilog of {unit.name}")
            logic = _trace(unit, design.source, features)
            place, name = work / "kernel", f"{unit.name}_kernel"
            model = write_pipeline(logic, place, name, delay, part, clock_ns, multipliers)
            tables |= _move(place, work, name)
            shutil.rmtree(place)
            kernels.append((port_of(model.fsm.inp_signals[0]), port_of(model.fsm.out_signals[0])))
            found = registers_and_stages(model, multipliers)
            registers += found["input_ff"]
            shift_registers += found["input_srl"]
            stages += [replace(s, module=f"{name}_{s.module}") for s in found["stages"]]
            pipelines[unit.name] = len(found["stages"]) + 1
        times = timing(design, pipelines)
        (work / f"src/{TOP}_tables.v").write_text(
            "".join(["`timescale 1ns / 1ps\n\n", *(tables[name] for name in sorted(tables))])
        )
        shutil.copy(FIFO, work / "src/static")
        units = [
            _unit(unit, *ports, pipelines[unit.name])
            for unit, ports in zip(design.units, kernels, strict=True)
        ]
        (work / f"src/{TOP}.v").write_text("\n".join([_top(design, times.depths), *units]))
        sink = design.sink
        project = RtlProject(
            folder=folder,
            key=key,
            top=TOP,
            part=part,
            clock_ns=clock_ns,
            stage_delay_ns=delay,
            multipliers=multipliers,
            inputs=_bus(design.source),
            outputs=_bus(sink),
            output_types=(str(sink.type),) * sink.size,
            input_ff=registers,
            input_srl=shift_registers,
            stages=tuple(stages),
            streaming=Streaming(
                transfers=design.units[0].steps,
                interval=design.interval,
                latency=times.latency,
                depths=dict(times.depths),
                pipelines=pipelines,
            ),
        )
        write_manifest(project, work)
    return project


def _bus(channel: Channel) -> Port:
    kind = channel.type
    return Port(
        (kind.signed,) * channel.size,
        (kind.width,) * channel.size,
        (kind.frac_bits,) * channel.size,
    )


def _trace(unit: Loop, source: Channel, features: Sequence[FixedType]) -> Any:
    """The unit's kernel on symbolic arrays."""
    types: list[FixedType] = []
    for feed in unit.feeds.values():
        narrow = features if source in feed.reads() else [feed.type]
        types += [*narrow] * (feed.size // len(narrow))
    flat = symbols((len(types),), types)
    ends = np.cumsum([feed.size for feed in unit.feeds.values()])
    operands = [flat[end - f.size : end] for f, end in zip(unit.feeds.values(), ends, strict=True)]
    results = np.concatenate(unit.kernel(operands))
    if all(value.low == value.high for value in results):
        raise UserError(
            f"RTL: all that {unit.name} computes is constant; train the model, or check its types"
        )
    return optimize(trace([flat], results, optimize=False), keep_dead_inputs=True, retrace=False)


def _move(place: Path, work: Path, name: str) -> dict[str, str]:
    """Puts a kernel's files where those of the design are; its tables by name."""
    (work / "src").mkdir(parents=True, exist_ok=True)
    tables = place / f"src/{name}_tables.v"  # if it has any
    for path in sorted((place / "src").glob("*.v")):
        if path != tables:
            text = re.sub(r"\blogic(\d+)\b", rf"{name}_logic\1", path.read_text())
            own = path.stem if path.stem == name else f"{name}_{path.stem}"
            (work / f"src/{own}.v").write_text(text)
    if not (work / "src/static").exists():
        shutil.copytree(place / "src/static", work / "src/static")
        for given, wanted in (
            (f"src/{name}.xdc", f"src/{TOP}.xdc"),
            *[("build_vivado_prj.tcl",) * 2],
        ):
            (work / wanted).write_text((place / given).read_text().replace(f'"{name}"', f'"{TOP}"'))
    text = tables.read_text() if tables.exists() else ""
    return {found[1]: found[0] for found in _TABLE.finditer(text)}


# ---- Verilog


def _top(design: Design, depths: Mapping[str, int]) -> str:
    source, sink = design.source, design.sink
    lines = [
        "`timescale 1ns / 1ps",
        "",
        f"module {TOP} (",
        "    input clk,",
        "    input rst,",
        "    input in_valid,",
        "    output in_ready,",
        f"    input [{source.bits - 1}:0] model_inp,",
        "    output out_valid,",
        f"    output [{sink.bits - 1}:0] model_out",
        ");",
        "",
    ]
    pins = {source: {"valid": "in_valid", "q": "model_inp", "read": "in_ready"}}
    pins[sink] = {"room": "1'b1", "reserve": "", "write": "out_valid", "data": "model_out"}
    for name, channel in design.channels().items():
        c = channel.identifier
        pins[channel] = {
            s: f"{c}_{s}" for s in ("valid", "q", "read", "room", "reserve", "write", "data")
        }
        lines += [
            f"  wire {c}_valid, {c}_read, {c}_room, {c}_reserve, {c}_write;",
            f"  wire [{channel.bits - 1}:0] {c}_q, {c}_data;",
            f"  stream_fifo #(.WIDTH({channel.bits}), .DEPTH({depths[name]})) {c}_fifo (",
            "    .clk(clk), .rst(rst),",
            "    " + ", ".join(f".{s}({wire})" for s, wire in pins[channel].items()),
            "  );",
        ]
    for unit in design.units:
        lines += [f"  {unit.name} {unit.name}_unit (", "    .clk(clk), .rst(rst)"]
        for channels, signals in (
            (unit.reads(), ("valid", "q", "read")),
            (unit.writes(), ("room", "reserve", "write", "data")),
        ):
            for channel in channels:
                ports = (f".{channel.identifier}_{s}({pins[channel][s]})" for s in signals)
                lines[-1] += ","
                lines.append("    " + ", ".join(ports))
        lines.append("  );")
    return "\n".join([*lines, "", "endmodule", ""])


def _unit(unit: Loop, inputs: Port, outputs: Port, pipeline: int) -> str:
    """Control, feeds, kernel and drains; the ports are the kernel's, `pipeline` its clocks."""
    reads, writes = unit.reads(), unit.writes()
    ports = ["input clk", "input rst"]
    for c in reads:
        ports += [c.bus("input", "valid"), c.bus("input", "q", c.bits), c.bus("output", "read")]
    for c in writes:
        ports += [c.bus("input", "room"), c.bus("output", "reserve"), c.bus("output", "write")]
        ports += [c.bus("output", "data", c.bits)]
    bits = max((unit.steps - 1).bit_length(), 1)
    last = unit.steps - 1
    ready = [
        f"(!({when(steps, unit.steps, 'step')}) || {c.identifier}_{flag})"
        for channels, flag in ((reads, "valid"), (writes, "room"))
        for c, steps in channels.items()
    ]
    lines = [
        f"module {unit.name} (",
        "    " + ",\n    ".join(ports),
        ");",
        "",
        "// A step starts when all that it reads is there and all that it writes has a place.",
        f"reg [{bits - 1}:0] step, done_step;",
        f"reg [{pipeline - 1}:0] flight;",
        "wire fire = " + "\n    && ".join(ready) + ";",
        f"wire done = flight[{pipeline - 1}];",
        "always @(posedge clk) begin",
        f"  flight <= rst ? {pipeline}'b0 : "
        + ("fire;" if pipeline == 1 else f"{{flight[{pipeline - 2}:0], fire}};"),
    ]
    for counter, moves in (("step", "fire"), ("done_step", "done")):
        lines.append(
            f"  if (rst) {counter} <= 0; else if ({moves}) "
            f"{counter} <= {counter} == {last} ? 0 : {counter} + 1'b1;"
        )
    lines.append("end")
    for c, steps in unit.releases().items():
        lines.append(f"assign {c.identifier}_read = fire && ({when(steps, unit.steps, 'step')});")
    for c, steps in writes.items():
        lines.append(
            f"assign {c.identifier}_reserve = fire && ({when(steps, unit.steps, 'step')});"
        )
    lines += ["", "// Operands."]
    given = []
    at = 0
    for k, feed in enumerate(unit.feeds.values()):
        bits = feed.size * feed.type.width
        lines += [f"wire [{bits - 1}:0] operand{k};", *feed.verilog(f"operand{k}").split("\n")]
        for i in range(feed.size):
            # The kernel may take fewer bits: a narrower type within this one, or none.
            if inputs.widths[at]:
                low = i * feed.type.width + feed.type.frac_bits - inputs.frac_bits[at]
                given.append(f"operand{k}[{low} +: {inputs.widths[at]}]")
            at += 1
    lines += [
        "",
        "// The kernel, one transfer a clock.",
        f"wire [{max(inputs.bits, 1) - 1}:0] given = {_join(given)};",
        f"wire [{max(outputs.bits, 1) - 1}:0] made;",
        f"{unit.name}_kernel kernel (.clk(clk), .model_inp(given), .model_out(made));",
        "",
        "// Results.",
    ]
    values = iter(_values(outputs))
    for k, drain in enumerate(unit.drains):
        names = []
        for i, (kind, count) in enumerate(drain.result_types()):
            names.append(f"result{k}_{i}")
            parts = [_extend(*next(values), kind) for _ in range(count)]
            lines.append(f"wire [{count * kind.width - 1}:0] {names[-1]} = {_join(parts)};")
        c = drain.channel
        lines += [
            *drain.verilog(f"{c.identifier}_data", names).split("\n"),
            f"assign {c.identifier}_write = done && "
            f"({when(drain.writes(), unit.steps, 'done_step')});",
        ]
    return "\n".join([*lines, "", "endmodule", ""])


def _values(port: Port) -> Iterator[tuple[int, bool, int, int]]:
    """First bit, sign, width and fractional bits of every value."""
    low = 0
    for signed, width, frac_bits in zip(port.signed, port.widths, port.frac_bits, strict=True):
        yield low, signed, width, frac_bits
        low += width


def _extend(low: int, signed: bool, width: int, frac_bits: int, to: FixedType) -> str:
    """A value of the kernel's results in the type of its channel, which has more bits."""
    if width == 0:
        return f"{to.width}'b0"
    right = to.frac_bits - frac_bits
    left = to.width - width - right
    if right < 0 or left < 0:
        raise RuntimeError(f"a result of {width} bits, {frac_bits} fractional, is not {to}")
    top = f"made[{low + width - 1}]" if signed else "1'b0"
    parts = [f"{{{left}{{{top}}}}}"] * (left > 0) + [f"made[{low} +: {width}]"]
    parts += [f"{right}'b0"] * (right > 0)
    return parts[0] if len(parts) == 1 else f"{{{', '.join(parts)}}}"


def _join(values: Sequence[str]) -> str:
    """A bus of values, the first in the lowest bits."""
    return "{" + ", ".join(reversed(values)) + "}" if values else "1'b0"
