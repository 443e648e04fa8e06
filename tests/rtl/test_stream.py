"""RTL of streaming designs: units that compute the golden bits, and Verilog that does so too."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import LINFORMER, SHALLOW, VARIANTS, graph_of

from salt_hls.errors import UserError
from salt_hls.firmware.build import checked_firmware
from salt_hls.fixed import FixedType
from salt_hls.graph.feeds import Rom
from salt_hls.graph.graph import Graph, Node
from salt_hls.graph.loops import when
from salt_hls.graph.network import network_of, schedule
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.layers.standard import Dense
from salt_hls.report.budget import load_budget
from salt_hls.rtl import verilator, yosys
from salt_hls.rtl.build import Options, estimate, synthesize_rtl
from salt_hls.rtl.design import Design, design_of, execute
from salt_hls.rtl.project import RtlProject
from salt_hls.rtl.stream_project import generate_stream
from salt_hls.rtl.verilator import simulate_stream
from salt_hls.system.jobs import Runner

FEATURES = (FixedType.parse("ap_ufixed<8,3>"), *(FixedType.parse("ap_fixed<9,4>"),) * 2)


def jets_of(particles: int, count: int = 60) -> NDArray[np.float64]:
    """Hard inputs, in any order so that every jet follows another one."""
    hard = adversarial_inputs(particles, FEATURES).astype(np.float64)
    return hard[np.random.default_rng(1).integers(0, len(hard), count)]


def golden(graph: Any, jets: NDArray[np.float64]) -> NDArray[np.float64]:
    *_, result = graph.run([jets]).values()
    return np.asarray(result)


def transfers(jets: NDArray[np.float64], steps: int, lanes: int) -> NDArray[np.float64]:
    """(jets, steps, values); spare particles hold what must not matter."""
    padded = np.full((len(jets), steps * lanes, jets.shape[2]), 7.0)
    padded[:, : jets.shape[1]] = jets
    return padded.reshape(len(jets), steps, -1)


def executed(design: Design, jets: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = design.units[0].steps
    return execute(design, transfers(jets, steps, design.source.size // jets.shape[2]))


EMPTY_ROW = (1, {"particles": 5})
"""Five particles in four rows: two, two, one and none."""


@pytest.mark.parametrize(
    ("lanes", "changes"), [*VARIANTS.values(), EMPTY_ROW], ids=[*VARIANTS, "an empty row"]
)
def test_units_give_the_golden_bits(lanes: int, changes: dict[str, Any], tmp_path: Path) -> None:
    graph = graph_of(tmp_path, lanes, **changes)
    design = design_of(graph)
    jets = jets_of(changes.get("particles", 13))
    expected = golden(graph, jets)
    assert len(np.unique(expected, axis=0)) > 20
    assert np.array_equal(executed(design, jets), expected)


def test_every_weight_and_every_row_counts(tmp_path: Path) -> None:
    """A wrong ROM word, or rows that end a step late, are seen."""
    graph = graph_of(tmp_path, 2)
    jets, design = jets_of(13), design_of(graph)
    expected = golden(graph, jets)
    first = design.units[0]
    name = next(n for n in first.feeds if n.endswith("key_projection/weights"))
    rom = first.feeds[name]
    assert isinstance(rom, Rom)
    values = rom.values.copy()
    values[6, 0] += 1
    first.feeds[name] = replace(rom, values=values)
    assert not np.array_equal(executed(design, jets), expected)


def test_a_layer_may_have_the_name_of_a_loop(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, 2)
    nodes = [
        replace(node, name="block1_attention_keys") if node.name == "embed" else node
        for node in graph.nodes
    ]
    renamed = replace(graph, nodes=tuple(nodes))
    assert schedule(network_of(renamed)) == schedule(network_of(graph))
    design, jets = design_of(renamed), jets_of(13)
    assert len({unit.name for unit in design.units}) == 6
    assert np.array_equal(executed(design, jets), golden(graph, jets))


def test_few_units(tmp_path: Path) -> None:
    """Layers without state are inside the kernels: a block is five units, with the head six."""
    design = design_of(graph_of(tmp_path, 1))
    assert [unit.steps for unit in design.units] == [13, 4, 4, 13, 13, 1]
    assert len(design.channels()) == 9


def test_conditions_on_a_counter() -> None:
    for steps in ([], [0], [5], [2, 3], [0, 1], [4, 5], [0, 1, 2, 3, 4, 5], [0, 2, 3, 5]):
        text = when(steps, 6, "n").replace("1'b1", "True").replace("1'b0", "False")
        text = text.replace("&&", "and").replace("||", "or")
        assert [n for n in range(6) if eval(text, {"n": n})] == steps
    assert when([0], 1, "n") == "1'b1"


# ---- Verilog


def simulated(
    tmp_path: Path, lanes: int, changes: dict[str, Any], gaps: tuple[int, ...] = (0, 50)
) -> RtlProject:
    graph = graph_of(tmp_path, lanes, **changes)
    project = generate_stream(graph, tmp_path / "rtl", clock_ns=5, feature_types=FEATURES)
    jets = jets_of(changes.get("particles", 13), 300)
    expected = golden(graph, jets)
    smooth, *rough = simulate_stream(project, jets, tmp_path / "cache", gaps=gaps)
    for run in (smooth, *rough):
        assert np.array_equal(run.outputs, expected)
    assert project.streaming is not None
    assert smooth.ii_cycles == project.streaming.interval
    if project.streaming.transfers == project.streaming.interval:
        assert smooth.latency_cycles == project.streaming.latency
    else:  # jets come faster than their keys are made, and wait inside
        assert smooth.latency_cycles > project.streaming.latency
    return project


def test_the_greatest_latency_and_interval_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of three jets of two transfers that take 9, 12 and 10 clocks."""
    starts, ends = np.array([1, 2, 5, 6, 11, 12]), np.array([10, 17, 21])
    run = (starts, ends, np.zeros((3, 1), np.uint8))
    monkeypatch.setattr(verilator, "build", lambda *_, **__: tmp_path)
    monkeypatch.setattr(verilator, "_run_stream", lambda *_: run)
    project: Any = SimpleNamespace(
        streaming=SimpleNamespace(transfers=2, interval=2),
        inputs=SimpleNamespace(widths=(8, 8), pack=lambda rows: rows),
        outputs=SimpleNamespace(unpack=lambda rows: rows.astype(float)),
    )
    (seen,) = simulate_stream(project, np.zeros((3, 2, 2)), tmp_path, gaps=(0,))
    assert (seen.latency_cycles, seen.ii_cycles) == (12, 7)


SMALLEST = {"width": 4, "feed_forward": 4}


def test_every_simulated_jet_equals_golden(tmp_path: Path) -> None:
    """Three particles a clock: transfers over the ends of rows, and a last one partly filled."""
    project = simulated(tmp_path, 3, SMALLEST, (0, 30, 90))
    assert project.streaming is not None and project.streaming.interval == 5
    estimated = project.estimate()
    assert estimated.ii_cycles == 5 and estimated.black_boxes  # counts of the kernels alone
    assert RtlProject.load(project.folder) == project
    graph = graph_of(tmp_path, 3, **SMALLEST)
    again = generate_stream(graph, tmp_path / "again", clock_ns=5, feature_types=FEATURES)
    texts = [
        {p.relative_to(made.folder): p.read_bytes() for p in made.folder.rglob("*") if p.is_file()}
        for made in (project, again)
    ]
    assert texts[0] == texts[1]
    other = graph_of(tmp_path, 2, **SMALLEST)
    assert generate_stream(other, tmp_path / "again", clock_ns=5).key != again.key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lanes", "changes"),
    [
        (2, LINFORMER),
        (5, {"attention": "full", "filter_heights": [], "partitions": 13}),
        (13, {}),
        (2, {"blocks": 2}),
        (1, {"particles": 2, "partitions": 2}),
        EMPTY_ROW,
        (1, {"particles": 150}),
        (1, {"share_projections": True, "project_first": True}),
        (3, {"project_first": False}),
        (2, SHALLOW),
    ],
    ids=["Linformer", "full attention", "p limits the rate", "two blocks", "two particles",
         "an empty row", "150 particles", "shared projections", "key matrix first", "shallow"],
)  # fmt: skip
def test_other_designs_equal_golden(lanes: int, changes: dict[str, Any], tmp_path: Path) -> None:
    simulated(tmp_path, lanes, {**SMALLEST, **changes})


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return graph_of(tmp_path_factory.mktemp("graph"), 1, **SMALLEST)


@pytest.fixture(scope="module")
def project(graph: Any, tmp_path_factory: pytest.TempPathFactory) -> RtlProject:
    folder = tmp_path_factory.mktemp("project") / "rtl"
    return generate_stream(graph, folder, clock_ns=5, feature_types=FEATURES)


def broken(project: RtlProject, folder: Path, pattern: str, by: str) -> RtlProject:
    """The project with one place of its top file changed."""
    shutil.copytree(project.folder, folder)
    top = folder / "src/salt.v"
    text, count = re.subn(pattern, by, top.read_text(), count=1)
    assert count == 1
    top.write_text(text)
    return replace(project, folder=folder)


@pytest.mark.slow
def test_what_is_wrong_is_seen(graph: Any, project: RtlProject, tmp_path: Path) -> None:
    """A FIFO that cannot hold what waits for the keys, and results taken a moment too early."""
    jets = jets_of(13, 20)
    width = r"\.DEPTH\(\d+\)\) c_embed_relu_cpy4_fifo"
    shallow = broken(project, tmp_path / "shallow", width, ".DEPTH(12)) c_embed_relu_cpy4_fifo")
    with pytest.raises(UserError, match=r"status 3 \(stuck after .*\); see .*log"):
        simulate_stream(shallow, jets, tmp_path / "cache", gaps=(0,))
    late = broken(project, tmp_path / "late", r"wire done = flight\[\d+\]", "wire done = fire")
    (run,) = simulate_stream(late, jets, tmp_path / "cache", gaps=(0,))
    assert not np.array_equal(run.outputs, golden(graph, jets))


def with_operation(graph: Graph, name: str, **changes: Any) -> Graph:
    """The graph with another operation at a node."""

    def changed(node: Node) -> Node:
        assert node.operation is not None
        return replace(node, operation=replace(node.operation, **changes))  # type: ignore[type-var]

    return replace(graph, nodes=tuple(changed(n) if n.name == name else n for n in graph.nodes))


def test_bad_options_are_user_errors(graph: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clock_ns"):
        generate_stream(graph, tmp_path / "rtl", clock_ns=0)
    with pytest.raises(UserError, match="expected 3 types"):
        generate_stream(graph, tmp_path / "rtl", feature_types=FEATURES[:2])
    mean = with_operation(graph, "pool", function="average")
    with pytest.raises(UserError, match="layer pool: GlobalPooling1D has no io_stream form"):
        design_of(mean)


def test_an_untrained_model_is_a_user_error(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, 1, **SMALLEST)
    embed = graph.node("embed").operation
    assert isinstance(embed, Dense)
    graph = with_operation(graph, "embed", kernel=embed.kernel * 0, bias=embed.bias * 0)
    with pytest.raises(UserError, match="embed computes is constant"):
        generate_stream(graph, tmp_path / "rtl")


def test_no_jets(project: RtlProject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no events given"):
        simulate_stream(project, np.zeros((0, 13, 3)), tmp_path)


def test_synthesis_counts_what_is_around_the_kernels(
    project: RtlProject, tmp_path: Path, runner: Runner
) -> None:
    small = replace(project, stages=project.stages[-1:])
    found = yosys.synthesize(small, tmp_path, runner)
    assert found.around is not None and found.around.module == "salt"
    assert found.around.ff > 500 and found.around.lut > 500
    record = found.record(10, 13)
    assert record.lut == found.around.lut + found.stages[0].lut + (record.srl or 0)
    assert record.ff == small.input_ff + small.stages[0].ff + found.around.ff
    assert record.modules[-1].name == "salt" and record.modules[-1].ff == found.around.ff


@pytest.mark.slow
@pytest.mark.usefixtures("few_jets")
def test_from_a_model_to_its_report(
    small_model: Callable[..., Path], tmp_path: Path, runner: Runner
) -> None:
    path = small_model(
        particles=5, partitions=2, width=4, heads=2, feed_forward=4,
        firmware={"io_type": "io_stream", "particles_per_clock": 2, "clock_ns": 10},
    )  # fmt: skip
    budget = load_budget("template")
    firmware = checked_firmware(str(path), None, tmp_path / "build", budget, 1, lambda *_: None)
    report = estimate(firmware, Options(), budget, lambda *_: None)
    assert [record.source for record in report.synthesis] == ["alkaid"]
    report = synthesize_rtl(
        firmware, Options(), budget, tmp_path / "cache", 2, runner, lambda *_: None
    )
    assert [record.source for record in report.synthesis] == ["alkaid", "verilator", "yosys"]
    planned, seen, made = report.synthesis
    assert seen.ii_cycles == planned.ii_cycles == made.ii_cycles == 3
    assert seen.latency_cycles == planned.latency_cycles and seen.status == "Pass"
    assert made.lut is not None and planned.lut is not None and made.lut > planned.lut > 0
    (bits,) = (r for r in report.bit_accuracy if r.pair == "csim/rtl")
    assert bits.mismatches == 0 and bits.events == len(firmware.inputs)
    json.loads(report.to_json())
