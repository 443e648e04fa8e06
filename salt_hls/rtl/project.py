"""From an hls4ml graph to a folder of pipelined Verilog with a Vivado project beside it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from alkaid.codegen import RTLModel
from alkaid.trace import trace
from alkaid.trace.passes import optimize
from numpy.typing import NDArray

from salt_hls.config import CLOCK_NS, PART
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.graph.key import graph_digest
from salt_hls.report.records import Module, SynthesisRecord
from salt_hls.rtl.delay_lines import delay_lines
from salt_hls.rtl.delays import CLOCK_UNCERTAINTY, stage_budget
from salt_hls.rtl.operations import MULTIPLY, own_delay, takes_no_time
from salt_hls.rtl.products import expand_products, is_multiple
from salt_hls.rtl.sums import merge_sums
from salt_hls.rtl.tracer import HLS4MLTracer
from salt_hls.system.digest import digest
from salt_hls.system.progress import Progress, silent
from salt_hls.system.store import replacing_folder
from salt_hls.system.wording import command

Multipliers = Literal["lut", "dsp"]
TOP = "salt"
MANIFEST = "rtl.json"


@dataclass(frozen=True)
class Port:
    """Packed bus of fixed-point values, first value in the lowest bits.

    A value of width 0 has no bits: it is 0, or an input that nothing reads. `frac_bits` of an
    output may be fewer than its declared type's, when range analysis found bits that are always 0.
    """

    signed: tuple[bool, ...]
    widths: tuple[int, ...]
    frac_bits: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Width of the bus."""
        return sum(self.widths)

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed vector: whole 32-bit words."""
        return -(-self.bits // 32) * 4

    def pack(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Grid floats (events, values) to packed rows (events, row_bytes), little endian.

        Raises `UserError` when a value does not fit into its type.
        """
        codes = np.rint(values * 2.0 ** np.array(self.frac_bits)).astype(np.int64)
        for k, (signed, width, frac) in enumerate(
            zip(self.signed, self.widths, self.frac_bits, strict=True)
        ):
            if width == 0:
                continue
            fixed_type = FixedType(width, width - frac, signed)
            if not fixed_type.contains(values[:, k]):
                raise UserError(f"input value {k}: an event is not on the grid of {fixed_type}")
        columns = [
            (codes[:, k, None] >> np.arange(width)) & 1 for k, width in enumerate(self.widths)
        ]
        bits = np.concatenate(columns, axis=1).astype(np.uint8)
        bits = np.pad(bits, ((0, 0), (0, 8 * self.row_bytes - bits.shape[1])))
        return np.packbits(bits, axis=1, bitorder="little")

    def unpack(self, rows: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The inverse of `pack`."""
        bits = np.unpackbits(rows, axis=1, bitorder="little")
        values = np.zeros((len(rows), len(self.widths)))
        first = 0
        for k, (signed, width) in enumerate(zip(self.signed, self.widths, strict=True)):
            if width:
                weights = 2.0 ** np.arange(width)
                weights[-1] *= -1 if signed else 1
                values[:, k] = bits[:, first : first + width] @ weights
            first += width
        exact: NDArray[np.float64] = values * 2.0 ** -np.array(self.frac_bits, np.float64)
        return exact


@dataclass(frozen=True)
class Stage:
    """One pipeline stage: combinational module `module`, registers after it.

    lut, dsp: estimate of the logic. ff: bits of the registers behind it; srl: look-up tables of the
    shift registers that begin there, whose bits are not in `ff`.
    """

    module: str
    lut: int
    dsp: int
    ff: int
    srl: int


@dataclass(frozen=True)
class Streaming:
    """How a streaming design takes its jets: `transfers` a jet, each of the width of `inputs`.

    interval: clocks between jets at full rate. latency: clocks from a jet's first transfer to its
    result. depths: places of the FIFOs, by channel. pipelines: clocks of the kernels, by unit.
    """

    transfers: int
    interval: int
    latency: int
    depths: dict[str, int]
    pipelines: dict[str, int]


@dataclass(frozen=True)
class RtlProject:
    """A generated folder: `src/*.v`, constraints, `build_vivado_prj.tcl`, and this as rtl.json.

    The top module has `clk`, `model_inp` and `model_out`; both buses are registered. output_types:
    declared type of every output value.
    """

    folder: Path
    key: str
    top: str
    part: str
    clock_ns: float
    stage_delay_ns: float
    multipliers: Multipliers
    inputs: Port
    outputs: Port
    output_types: tuple[str, ...]
    input_ff: int
    input_srl: int
    stages: tuple[Stage, ...]
    streaming: Streaming | None = None

    @property
    def sources(self) -> list[Path]:
        """The Verilog files."""
        return sorted(self.folder.glob("src/**/*.v"))

    @staticmethod
    def load(folder: Path) -> RtlProject:
        """Reads a folder written by `generate`; `UserError` when it is none."""
        folder = folder.resolve()  # tools run elsewhere
        try:
            data: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
            ports: dict[str, Any] = {
                key: Port(**{f: tuple(v) for f, v in data.pop(key).items()})
                for key in ("inputs", "outputs")
            }
            stages = tuple(Stage(**stage) for stage in data.pop("stages"))
            types = tuple(data.pop("output_types"))
            streaming = data.pop("streaming", None)
            return RtlProject(
                folder=folder,
                output_types=types,
                stages=stages,
                streaming=Streaming(**streaming) if streaming else None,
                **ports,
                **data,
            )
        except (OSError, ValueError, TypeError, KeyError):
            raise UserError(
                f"{folder}: no RTL project ({MANIFEST} is missing or damaged); run "
                f"{command('rtl')} first"
            ) from None

    def kernels(self) -> dict[str, str]:
        """The kernels of a streaming design as empty modules (Verilog), by name."""
        names = [f"{unit}_kernel" for unit in (self.streaming.pipelines if self.streaming else ())]
        texts = {name: (self.folder / f"src/{name}.v").read_text() for name in names}
        return {
            name: "(* blackbox *)\n"
            + text[text.index("module") : text.index(";")]
            + ";\nendmodule\n"
            for name, text in texts.items()
        }

    def estimate(self) -> SynthesisRecord:
        """alkaid's own figures, known within a minute and without synthesis."""
        streaming = self.streaming
        notes = ["An estimate from the operations, before any synthesis."]
        if streaming:
            notes += ["Kernels only: without FIFOs, control and the state around the kernels."]
        return self.record(
            [Module(name=s.module, lut=s.lut, dsp=s.dsp, bram18=0) for s in self.stages],
            source="alkaid",
            stage="estimate",
            version=version("alkaid"),
            latency_cycles=streaming.latency if streaming else len(self.stages) + 1,
            ii_cycles=streaming.interval if streaming else 1,
            black_boxes=len(streaming.pipelines) if streaming else None,
            notes=notes,
        )

    def record(self, parts: Sequence[Module], *, source: str, **about: Any) -> SynthesisRecord:
        """Figures of every stage as one record of the design; registers are those written here.

        parts: logic of the stages, in order, then of what is around them.
        """
        around = [*parts[len(self.stages) :]]
        modules = [
            part.model_copy(
                update={
                    "start_cycle": None if self.streaming else k + 1,
                    "latency_cycles": 1,
                    "ii_cycles": 1,
                    "lut": (part.lut or 0) + stage.srl,
                    "ff": stage.ff,
                    "srl": stage.srl,
                }
            )
            for k, (part, stage) in enumerate(zip(parts, self.stages, strict=False))
        ] + around
        return SynthesisRecord(
            source=source,
            tool=source,
            top=self.top,
            part=self.part,
            clock_ns=self.clock_ns,
            lut=self.input_srl + sum(part.lut or 0 for part in modules),
            ff=self.input_ff + sum(part.ff or 0 for part in modules),
            srl=self.input_srl + sum(part.srl or 0 for part in modules),
            dsp=sum(part.dsp or 0 for part in parts),
            bram18=sum(part.bram18 or 0 for part in parts),
            uram=0,
            modules=modules,
            **about,
        )


def rtl_key(graph: Graph, *options: Any) -> str:
    """Digest of all that the RTL of a graph depends on."""
    return digest(graph_digest(graph), version("alkaid"), *options)


def generate(
    graph: Graph,
    folder: Path,
    *,
    clock_ns: float = CLOCK_NS,
    part: str = PART,
    stage_delay_ns: float | None = None,
    multipliers: Multipliers = "lut",
    feature_types: Sequence[FixedType] | None = None,
    progress: Progress = silent,
) -> RtlProject:
    """Writes the pipelined Verilog (initiation interval 1) of a graph.

    clock_ns sets the number of stages, through `stage_budget`; stage_delay_ns overrides that.
    multipliers: of two variables, as look-up tables or DSP slices. feature_types: see
    `HLS4MLTracer`.
    The same inputs give the same bytes; a folder that has them already is kept. Raises `UserError`
    when `folder` has something else in it than an RTL project.
    """
    folder = folder.resolve()
    check_options(clock_ns, multipliers)
    delay = stage_budget(clock_ns) if stage_delay_ns is None else stage_delay_ns
    options = (clock_ns, part, delay, multipliers, feature_types)
    key = rtl_key(graph, options)
    if (before := existing(folder)) and before.key == key:
        return before

    tracer = HLS4MLTracer(graph, feature_types=feature_types)
    progress("RTL: tracing the graph")
    inputs, outputs = tracer.trace()
    if all(value.low == value.high for value in np.asarray(outputs)):
        raise UserError(
            "RTL: every output of the model is a constant; train it, or check its types"
        )
    # The symbolic arrays know tighter ranges than a second trace of the result would.
    logic = optimize(trace(inputs, outputs, optimize=False), keep_dead_inputs=True, retrace=False)
    progress(f"RTL: writing Verilog of {len(logic.ops)} operations")
    with replacing_folder(folder, is_project) as work:
        model = write_pipeline(logic, work, TOP, delay, part, clock_ns, multipliers)
        project = RtlProject(
            folder=folder,
            key=key,
            top=TOP,
            part=part,
            clock_ns=clock_ns,
            stage_delay_ns=delay,
            multipliers=multipliers,
            inputs=port_of(model.fsm.inp_signals[0]),
            outputs=port_of(model.fsm.out_signals[0]),
            output_types=tuple(
                str(tensor.type) for tensor in graph.outputs for _ in range(tensor.size)
            ),
            **registers_and_stages(model, multipliers),
        )
        write_manifest(project, work)
    return project


def check_options(clock_ns: float, multipliers: str) -> None:
    """Raises `UserError` for what no project can be made with."""
    if clock_ns <= 0:
        raise UserError(f"clock_ns: must be positive, got {clock_ns}")
    if multipliers not in ("lut", "dsp"):
        raise UserError(f"multipliers: must be lut or dsp, got {multipliers!r}")


def existing(folder: Path) -> RtlProject | None:
    """The project that is in the folder, unless there is none or it is damaged."""
    with suppress(UserError):
        return RtlProject.load(folder)
    return None


def is_project(folder: Path) -> bool:
    """Whether `generate` wrote the folder."""
    return (folder / MANIFEST).is_file()


def write_manifest(project: RtlProject, folder: Path) -> None:
    """What `RtlProject.load` reads."""
    data = {k: v for k, v in asdict(project).items() if k != "folder"}
    (folder / MANIFEST).write_text(json.dumps(data, indent=1) + "\n")


def write_pipeline(
    logic: Any,
    folder: Path,
    name: str,
    delay: float,
    part: str,
    clock_ns: float,
    multipliers: Multipliers,
) -> RTLModel:
    """Verilog of a traced program as module `name`, cut into stages of `delay` nanoseconds."""
    if multipliers == "lut":
        logic = expand_products(logic)
    model = RTLModel(
        _schedule(merge_sums(logic), delay),
        folder,
        name,
        latency_cutoff=delay,
        print_latency=False,
        part_name=part,
        clock_period=clock_ns,
        clock_uncertainty=CLOCK_UNCERTAINTY,
        ternary_fuse=False,
    )
    model.write()
    # The simulator, the other vendor's files and time-stamped archives are not part of it.
    for unused in ("sim", "model"):
        shutil.rmtree(folder / unused)
    for unused in (
        "build_quartus_prj.tcl", "metadata.json", f"src/{name}.sdc", f"src/{name}_wrapper.v"
    ):  # fmt: skip
        (folder / unused).unlink()
    if multipliers == "dsp":
        _ask_for_dsp(folder / "src/static/multiplier.v")
    shutil.copy(Path(__file__).with_name("sums.v"), folder / "src/static")
    return model


def port_of(signal: Any) -> Port:
    """A bus of alkaid's."""
    signed, _, frac_bits = zip(*signal.precisions, strict=True)
    widths = tuple(sum(int(bits) for bits in kif) for kif in signal.precisions)
    return Port(tuple(map(bool, signed)), widths, tuple(map(int, frac_bits)))


def registers_and_stages(model: RTLModel, multipliers: Multipliers) -> dict[str, Any]:
    """Fields `input_ff`, `input_srl` and `stages` of a pipeline's `RtlProject`."""
    registers = {name: signal.width for name, signal in model.fsm.signals.items() if signal.reg}
    first, *moved = delay_lines(list(model.fsm.logic.values()))
    stages = []
    for k, (module, logic) in enumerate(model.fsm.logic.items()):
        costs: Counter[int] = Counter()
        for op in logic.ops:
            costs[op.opcode] += op.cost
        products = sum(op.opcode == MULTIPLY for op in logic.ops)
        use_dsp = multipliers == "dsp"
        bits = registers.get(f"stage{k + 1}_inp", registers["model_out"])
        stages.append(
            Stage(
                module=module,
                lut=round(sum(costs.values()) - use_dsp * costs[MULTIPLY]),
                dsp=use_dsp * products,
                ff=bits - moved[k].ff,
                srl=moved[k].srl,
            )
        )
    return {
        "input_ff": registers["model_inp_reg"] - first.ff,
        "input_srl": first.srl,
        "stages": tuple(stages),
    }


def _schedule(logic: Any, budget: float) -> Any:
    """The program with latencies at which no operation straddles a multiple of `budget`.

    alkaid cuts the program at these multiples; an operation that straddled one would go whole
    into the later stage and make it too long.
    """
    ends: list[float] = []
    for op in logic.ops:
        start = max((ends[i] for i in op.addr), default=0.0)
        own = min(own_delay(logic, op), budget)
        boundary = (np.floor(start / budget + 1e-9) + 1) * budget
        ends.append(boundary + own if start + own > boundary + 1e-9 else start + own)
    # The last stage ends at a multiple too, so that alkaid's equal cuts fall on all of them.
    last = budget * max(1, np.ceil(max(ends) / budget - 1e-9))
    outputs = {i for i in logic.out_idxs if i >= 0}
    read = {i for op in logic.ops for i in op.addr}
    ends = [last if i in outputs - read else end for i, end in enumerate(ends)]
    _move_to_readers(logic, ends, budget)
    ops = [op._replace(latency=float(end)) for op, end in zip(logic.ops, ends, strict=True)]
    return logic._replace(ops=ops)


def _move_to_readers(logic: Any, ends: list[float], budget: float) -> None:
    """Has what products select from, and select, made late.

    A multiplexer that takes no time goes into the stage of what reads it: there one look-up table
    does for both; apart, each would need its own, and registers. 3a and -a, which are wider than a,
    are made in the stage before the first that reads them.
    """
    earliest: dict[int, float] = {}
    for i in reversed(range(len(ends))):
        op = logic.ops[i]
        if i in earliest and takes_no_time(logic, op):
            ends[i] = earliest[i]
        elif i in earliest and is_multiple(op):
            stage = np.ceil(earliest[i] / budget - 1e-9) - 1
            ends[i] = max(ends[i], float(stage * budget) - 1e-6)
        for source in op.addr:
            earliest[source] = min(earliest.get(source, ends[i]), ends[i])


def _ask_for_dsp(path: Path) -> None:
    product = "  wire [BW_BUF - 1:0] buffer;"
    text = path.read_text()
    if product not in text:
        raise RuntimeError("alkaid's multiplier.v has changed: the product's wire is not found")
    path.write_text(text.replace(product, f'  (* use_dsp = "yes" *)\n{product}'))
