"""Generated Verilog: deterministic, simulated bit-equal at one event a clock, synthesized."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph
from salt_hls.hls.reader import read_graph
from salt_hls.rtl import project as project_module
from salt_hls.rtl import verilator, yosys, yosys_stage
from salt_hls.rtl.delays import LUT_NS, WIDE_LUT_NS, adder_ns, period_for
from salt_hls.rtl.project import MANIFEST, Port, RtlProject, generate, rtl_key
from salt_hls.rtl.verilator import simulate
from salt_hls.system.jobs import Runner

from .graphs import convert, events, tagger


@pytest.fixture(scope="session")
def project(tagger_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> RtlProject:
    return generate(tagger_graph, tmp_path_factory.mktemp("rtl") / "rtl", clock_ns=5)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_inputs_give_the_same_bytes(
    tagger_graph: Graph, project: RtlProject, tmp_path: Path
) -> None:
    again = generate(tagger_graph, tmp_path / "other", clock_ns=5)
    assert files(again.folder) == files(project.folder)
    assert RtlProject.load(project.folder) == project


def test_kept_when_nothing_changed_and_made_anew_when_something_did(
    tagger_graph: Graph, tmp_path: Path
) -> None:
    told: list[str] = []
    first = generate(tagger_graph, tmp_path / "rtl", clock_ns=5, progress=told.append)
    stamp = (first.folder / MANIFEST).stat().st_mtime_ns
    assert generate(tagger_graph, tmp_path / "rtl", clock_ns=5) == first
    assert (first.folder / MANIFEST).stat().st_mtime_ns == stamp
    faster = generate(tagger_graph, tmp_path / "rtl", clock_ns=2.5)
    assert len(faster.stages) > len(first.stages)
    assert told and {p.name for p in tmp_path.iterdir()} == {"rtl", ".rtl.lock"}


def test_another_alkaid_makes_another_key(
    tagger_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rtl_key(tagger_graph)
    monkeypatch.setattr(project_module, "version", {"alkaid": "0.0"}.__getitem__)
    assert rtl_key(tagger_graph) != before


def test_a_folder_of_others_is_not_replaced(tagger_graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path}: is a folder that salt-hls has not written"):
        generate(tagger_graph, tmp_path, clock_ns=5)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(UserError, match="no RTL project"):
        RtlProject.load(tmp_path)


def test_bad_options_are_user_errors(tagger_graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clock_ns"):
        generate(tagger_graph, tmp_path / "rtl", clock_ns=0)
    with pytest.raises(UserError, match="multipliers"):
        generate(tagger_graph, tmp_path / "rtl", multipliers="fast")  # type: ignore[arg-type]


def test_packing_is_exact_and_checked() -> None:
    port = Port((True, False, True), (5, 0, 40), (2, 0, 37))
    values = np.array([[-4.0, 0.0, -4.0], [3.75, 0.0, 4.0 - 2.0**-37], [0.25, 0.0, 2.0**-37]])
    assert np.array_equal(port.unpack(port.pack(values)), values)
    assert port.pack(values).shape == (3, port.row_bytes) == (3, 8)
    with pytest.raises(UserError, match="input value 0"):
        port.pack(np.array([[4.0, 0.0, 0.0]]))


def test_every_simulated_event_equals_golden(
    tagger_graph: Graph, project: RtlProject, tmp_path: Path
) -> None:
    values = events((4, 3), 2000)
    result = simulate(project, values, tmp_path)
    *_, expected = tagger_graph.run([values]).values()
    assert np.array_equal(result.outputs, expected)
    assert result.ii_cycles == 1
    assert result.latency_cycles == project.estimate().latency_cycles == len(project.stages) + 1
    told: list[str] = []
    simulate(project, values[:20], tmp_path, progress=told.append)
    assert "RTL: simulator is in the cache" in told
    with pytest.raises(UserError, match="all give the same result"):
        simulate(project, np.repeat(values[:1], 5, axis=0), tmp_path)

    # A design that is wrong is seen to be wrong.
    broken = tmp_path / "broken"
    shutil.copytree(project.folder, broken)
    last = broken / f"src/{project.stages[-1].module}.v"
    text = last.read_text()
    assert "assign model_out[0:0] = " in text or "assign model_out[" in text
    head, _, tail = text.rpartition("assign model_out[")
    line, _, rest = tail.partition(";")
    target, _, source = line.partition(" = ")
    last.write_text(f"{head}assign model_out[{target} = ~{source};{rest}")
    wrong = simulate(replace(project, folder=broken), values[:50], tmp_path)
    assert not np.array_equal(wrong.outputs, expected[:50])


def test_observed_latency_must_be_one() -> None:
    rest, quiet = 20, np.zeros((1, 1), np.uint8)
    answers = np.repeat(quiet, 3 * rest + 2, axis=0)
    answers[rest + 4] = 1
    answers[rest + rest + 1 + 4] = 2
    assert verilator._observe(answers, rest, 2) == (5, 1)
    answers[rest + rest + 1 + 4], answers[rest + rest + 1 + 5] = 0, 2
    with pytest.raises(RuntimeError, match="no fixed latency"):
        verilator._observe(answers, rest, 2)
    answers[rest - 2] = 7
    with pytest.raises(RuntimeError, match="come to rest"):
        verilator._observe(answers, rest, 2)


def test_a_missing_compiler_is_named(
    project: RtlProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no C\\+\\+ compiler"):
        verilator.build(project, tmp_path)


def test_synthesis_of_stages_is_cached(project: RtlProject, tmp_path: Path, runner: Runner) -> None:
    small = replace(project, stages=project.stages[-2:])
    first = yosys.synthesize(small, tmp_path, runner)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert yosys.synthesize(small, tmp_path, runner) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == stamps
    assert len(stamps) == 2 and all(p.suffix == ".json" for p in stamps)
    record = first.record(latency_cycles=7, ii_cycles=1)
    assert record.stage == "rtl-synth" and record.latency_ns == 35
    assert record.lut and record.ff and record.dsp == 0
    logic = sum(stage.lut for stage in first.stages)
    assert all(stage.levels >= 1 for stage in first.stages)
    slowest = max(stage.delay_ns for stage in first.stages)
    assert record.clock_by_delays_ns == record.needed_ns == period_for(slowest)
    assert record.stage_budget_ns == 4.5 and record.lut == logic + record.srl
    json.loads(record.model_dump_json())


def test_a_stage_that_does_not_end_is_stopped(
    project: RtlProject, tmp_path: Path, runner: Runner
) -> None:
    with pytest.raises(UserError, match="did not end in"):
        yosys.synthesize(
            replace(project, stages=project.stages[-1:]), tmp_path, runner, timeout_s=0.2
        )
    assert not list(tmp_path.glob("*.json"))


def _cell(kind: str, inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> Any:
    pins = {**{p: "input" for p in inputs}, **{p: "output" for p in outputs}}
    parameters = {"WIDTH": f"{len(inputs['A']):b}"} if kind == "$lut" else {}
    return {
        "type": kind,
        "parameters": parameters,
        "port_directions": pins,
        "connections": {**inputs, **outputs},
    }


@pytest.mark.parametrize(
    ("a", "b", "luts"),
    [([1, 2, 3], [3, 4, 5], 1), ([1, 2, 3], [4, 5, 6], 2), ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1),
     ([1, 2, 3, 4, 5, 6], [1, 2], 2)],
)  # fmt: skip
def test_tables_that_share_a_site_have_five_inputs_at_most(
    a: list[int], b: list[int], luts: int
) -> None:
    cells = [
        _cell("$lut", {"A": a}, {"Y": [10]}),
        _cell("$lut", {"A": b}, {"Y": [11]}),
        _cell("CARRY4", {"DI": [10], "S": [11], "CI": [9]}, {"O": [13], "CO": [14]}),
    ]
    assert yosys_stage.count(cells)["lut"] == luts


@pytest.mark.parametrize(
    ("inputs", "luts"),
    [([[1, 2, 3], [3, 2, 1]], 1), ([[1, 2, 3]] * 3, 2), ([[1, 2, 3], [1, 2]], 2),
     ([[1, 2, 3, 4, 5, 6]] * 2, 2)],
)  # fmt: skip
def test_tables_of_the_same_inputs_share_a_site(inputs: list[list[int]], luts: int) -> None:
    cells = [_cell("$lut", {"A": given}, {"Y": [10 + i]}) for i, given in enumerate(inputs)]
    assert yosys_stage.count(cells)["lut"] == luts


def test_counting_and_depth_of_a_netlist() -> None:
    cells = [
        _cell("$lut", {"A": [1, 2]}, {"Y": [10]}),
        _cell("$lut", {"A": [1, 2, 3, 4]}, {"Y": [11]}),
        _cell("$lut", {"A": [9]}, {"Y": [12]}),
        _cell("CARRY4", {"DI": [10], "S": [11], "CI": [12]}, {"O": [13], "CO": [14]}),
        _cell("CARRY4", {"DI": [3], "S": [4], "CI": [14]}, {"O": [15], "CO": [16]}),
        _cell("$lut", {"A": [15, 1, 2, 3, 4, 5, 6]}, {"Y": [17]}),
    ]
    # The first two share a site; the last needs two.
    expected = {"lut": 3, "inv": 1, "carry4": 2, "dsp": 0, "bram18": 0, "ff": 0, "srl": 0}
    assert yosys_stage.count(cells) == expected
    assert yosys_stage.depth(cells) == 3
    # A register ends a path; a memory is read through its addresses, written without them.
    cells += [
        _cell("FDRE", {"D": [17], "C": [99]}, {"Q": [1]}),
        _cell("RAM32M16", {"ADDRA": [17, 3], "DIA": [18]}, {"DOA": [19, 20]}),
    ]
    assert yosys_stage.count(cells) == {**expected, "lut": 3 + 8, "ff": 1}
    assert yosys_stage.depth(cells) == 4
    # The first bit of a shift register ends a path as well.
    shift = [_cell("SRL16E", {"D": [17], "CLK": [99]}, {"Q": [2]})]
    assert yosys_stage.count(shift) == {**dict.fromkeys(expected, 0), "lut": 1, "srl": 1}
    assert yosys_stage.depth(cells + shift) == 4
    with pytest.raises(ValueError, match="unexpected cell"):
        yosys_stage.count([_cell("$mul", {"A": [1]}, {"Y": [2]})])


def test_delays_of_a_netlist_are_those_of_the_table() -> None:
    adder = [
        _cell("$lut", {"A": [1, 2]}, {"Y": [10]}),
        _cell("CARRY4", {"DI": [1], "S": [10], "CI": [0]}, {"O": [13], "CO": [14]}),
        _cell("CARRY4", {"DI": [3], "S": [4], "CI": [14]}, {"O": [15], "CO": [16]}),
    ]
    # As an adder of five bits, however its tables and chains are drawn.
    assert yosys_stage.delay(adder) == pytest.approx(adder_ns(5), abs=1e-3)
    inverter = _cell("INV", {"I": [15]}, {"O": [20]})
    assert yosys_stage.delay([*adder, inverter]) == yosys_stage.delay(adder)
    table = _cell("$lut", {"A": [20, 3, 4, 5, 6, 7, 8]}, {"Y": [21]})
    more = LUT_NS + WIDE_LUT_NS
    assert yosys_stage.delay([*adder, inverter, table]) == pytest.approx(adder_ns(5) + more, 1e-3)
    # Without a table of its own a chain is as long as with one.
    chain = [_cell("CARRY4", {"DI": [1], "S": [2], "CI": [0]}, {"O": [13], "CO": [14]})]
    assert yosys_stage.delay(chain) == pytest.approx(adder_ns(1), abs=1e-3)
    register = _cell("FDRE", {"D": [21]}, {"Q": [1]})
    assert yosys_stage.delay([*adder, inverter, table, register]) == yosys_stage.delay(
        [*adder, inverter, table]
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"multipliers": "dsp"}])
def test_options_keep_every_bit(
    tagger_graph: Graph, tmp_path: Path, options: Any, runner: Runner
) -> None:
    project = generate(tagger_graph, tmp_path / "rtl", clock_ns=5, **options)
    values = events((4, 3), 200)
    *_, expected = tagger_graph.run([values]).values()
    assert np.array_equal(simulate(project, values, tmp_path / "cache").outputs, expected)
    if "multipliers" in options:
        record = yosys.synthesize(project, tmp_path / "cache", runner).record()
        assert record.dsp and project.estimate().dsp


@pytest.mark.slow
def test_a_shallow_tagger_keeps_every_bit(tmp_path: Path) -> None:
    graph = read_graph(convert(tagger(shallow=True), tmp_path / "hls"))
    project = generate(graph, tmp_path / "rtl", clock_ns=5)
    values = events((4, 3), 1000)
    *_, expected = graph.run([values]).values()
    assert np.array_equal(simulate(project, values, tmp_path / "cache").outputs, expected)


@pytest.mark.slow
def test_narrow_features(tagger_graph: Graph, tmp_path: Path) -> None:
    types = [FixedType.parse(f"ap_fixed<{w},4>") for w in (5, 6, 8)]
    project = generate(tagger_graph, tmp_path / "rtl", clock_ns=5, feature_types=types)
    values = np.stack([t.quantize(events((4,), 100, k)) for k, t in enumerate(types)], axis=-1)
    *_, expected = tagger_graph.run([values]).values()
    assert project.inputs.widths[:3] == (5, 6, 8)
    assert np.array_equal(simulate(project, values, tmp_path / "cache").outputs, expected)


# ---- tools that fail, and interruption


def install(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that comes first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def stage_script(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run instead of Yosys; its last argument is where the result goes."""
    path = folder / "stand_in" / "pyosys" / "__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"import os, pathlib, shutil, signal, sys, time\n{text}\n")
    monkeypatch.setenv("PYTHONPATH", f"{path.parents[1]}:{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed \(signal 9; out of memory\?\); see"),
        ("print('ERROR: no such cell'); sys.exit(3)", r"status 3 \(ERROR: no such cell\); see"),
        ("shutil.rmtree(pathlib.Path(sys.argv[2]).parents[1])", "cache: was deleted"),
        ("shutil.rmtree(pathlib.Path(sys.argv[2]).parents[1]); sys.exit(1)", "cache: was deleted"),
    ],
)
def test_failing_yosys_is_one_line(
    script: str,
    says: str,
    project: RtlProject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: Runner,
) -> None:
    stage_script(tmp_path, script, monkeypatch)
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=says) as caught:
        yosys.synthesize(replace(project, stages=project.stages[-1:]), cache, runner)
    assert "\n" not in str(caught.value)
    if "; see " in str(caught.value):
        assert "stage" in str(caught.value)
        log = Path(str(caught.value).partition("; see ")[2])
        assert [log] == list(cache.iterdir())


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("kill -9 $$", r"was killed \(signal 9; out of memory\?\); see"),
        ("echo Vtop.cpp:1: error: no; exit 4", r"status 4 \(Vtop.cpp:1: error: no\); see"),
    ],
)
def test_failing_compiler_of_the_simulator_is_one_line(
    script: str, says: str, project: RtlProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", "g++", script, monkeypatch)
    with pytest.raises(UserError, match=f"does not compile: g\\+\\+ .*{says}") as caught:
        verilator.build(project, tmp_path / "cache")
    log = Path(str(caught.value).partition("; see ")[2])
    assert [log] == list((tmp_path / "cache").iterdir())


def test_failing_verilator_and_simulator_are_one_line(
    project: RtlProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "wheel", tmp_path / "cache"
    monkeypatch.setattr(verilator, "_verilator_root", lambda: root)
    with pytest.raises(UserError, match="verilator_bin: cannot be started .*No such file"):
        verilator.build(project, cache)
    root.mkdir()
    install(root / "bin", "verilator_bin", "echo %Error: no; kill -9 $$", monkeypatch)
    with pytest.raises(
        UserError, match=r"signal 9; out of memory\?\) \(%Error: no\); see"
    ) as caught:
        verilator.build(project, cache)
    assert Path(str(caught.value).partition("; see ")[2]).exists()
    install(tmp_path / "bin", "simulator", "echo stuck; kill -SEGV $$", monkeypatch)
    program = tmp_path / "bin/simulator"
    monkeypatch.setattr(verilator, "build", lambda *_, **__: program)
    inputs = np.zeros((3, len(project.inputs.widths)))
    with pytest.raises(UserError, match="RTL simulation: simulator .*signal 11.*stuck.*see"):
        simulate(project, inputs, cache)


@pytest.mark.parametrize("tool", ["yosys", "g++"])
def test_interrupted_tools_are_stopped(
    tool: str, project: RtlProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    note = tmp_path / "pids"
    after = f"kill -USR1 {os.getpid()}"
    if tool == "yosys":
        stage_script(
            tmp_path,
            f"print(os.getpid(), file=open({str(note)!r}, 'a'), flush=True); os.system({after!r});"
            "time.sleep(1000)",
            monkeypatch,
        )
    else:
        script = f"sleep 1000 & echo $$ $! >> {note}; {after}; wait"
        install(tmp_path / "bin", "g++", script, monkeypatch)
    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            if tool == "yosys":
                with Runner(1) as runner:
                    yosys.synthesize(project, tmp_path / "cache", runner)
            else:
                verilator.build(project, tmp_path / "cache")
    finally:
        signal.signal(signal.SIGUSR1, old)
    pids = note.read_text().split()
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(pids) == (1 if tool == "yosys" else 2) and not list((tmp_path / "cache").iterdir())


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
