"""io_stream: throughput, FIFO depths and their proof, and C++ loops that do what is modelled."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streaming import (
    LINFORMER,
    SHALLOW,
    VARIANTS,
    assert_loops_are_processes,
    built,
    graph_of,
    log_streams,
)

from salt_hls.check.compare import first_difference, keras_layers
from salt_hls.config import ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.firmware.build import build_firmware
from salt_hls.fixed import FixedType
from salt_hls.graph.network import (
    STAGES,
    Network,
    Process,
    check,
    network_of,
    schedule,
    simulate,
    sufficient_depths,
)
from salt_hls.hls import csim as csim_module
from salt_hls.hls.convert import layouts, write_project
from salt_hls.hls.csim import compile_csim, run_csim
from salt_hls.hls.streaming import LEAST, depths_of
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.report.budget import load_budget
from salt_hls.system.processes import process_pool

RESIDUAL, QUERIES = "embed_relu_cpy4", "block1_query_fixed"


@pytest.mark.parametrize(("lanes", "changes"), VARIANTS.values(), ids=VARIANTS.keys())
def test_jets_follow_at_the_scheduled_interval(
    lanes: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    _, made = built(tmp_path, lanes, **changes)
    network, depths = network_of(made.graph), depths_of(made.hls4ml)
    particles = changes.get("particles", 13)
    interval = max(
        -(-particles // lanes),
        changes.get("partitions", 4) if "full" not in changes.values() else 0,
    )
    assert schedule(network).interval == interval
    check(network, depths)
    for stages in (1, 5):
        model = schedule(network, stages)
        assert all(model.depths[c] <= depths[c] for c in model.depths)
        played = simulate(network, model.depths, 4, stages)
        assert played.finished == [model.latency + i * interval for i in range(4)]
    rng = np.random.default_rng(0)
    for _ in range(30):
        counts = rng.choice([1, 5, STAGES], len(network.processes)).tolist()
        needed = schedule(network, dict(zip(network.processes, counts, strict=True))).depths
        assert {c: d for c, d in needed.items() if d > depths[c]} == {}


def test_latency_is_two_passes_over_the_jet(tmp_path: Path) -> None:
    """Keys need every particle, then every particle needs the keys; the rest is small."""
    for particles in (32, 150):
        network = network_of(graph_of(tmp_path, 1, particles=particles))
        assert 0 < schedule(network).latency - 2 * particles < 40


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return network_of(graph_of(tmp_path_factory.mktemp("small"), 1))


@pytest.mark.parametrize("stages", [1, 3])
def test_no_place_is_superfluous(small: Network, stages: int) -> None:
    """With one place less in any deep FIFO, and most others, jets come later or not at all."""
    need = schedule(small, stages)
    last = need.latency + 4 * need.interval
    spare = set()
    for channel, depth in need.depths.items():
        played = simulate(small, {**need.depths, channel: depth - 1}, 5, stages)
        if not played.stuck and played.finished[-1] <= last:
            spare.add(channel)
    # The values may come a clock late: they are needed after the keys.
    assert all("value" in channel and need.depths[channel] <= LEAST for channel in spare)


def test_shallow_fifos_deadlock(small: Network) -> None:
    """Residual and queries wait for keys that need the whole jet: 13 particles must fit."""
    need = schedule(small).depths
    # Four queries also fit in front of the two layers before.
    for channel, enough in ((RESIDUAL, 13), (QUERIES, 13 - 4)):
        stuck = simulate(small, {**need, channel: enough - 1}, 3)
        assert channel in stuck.stuck and not stuck.finished
        slow = simulate(small, {**need, channel: enough}, 3)
        assert not slow.stuck and slow.interval > 13
        assert enough < need[channel]


def test_unequal_pipelines_need_more(small: Network) -> None:
    """A FIFO behind a short branch waits for the long one: equal stages do not show it."""
    assert sufficient_depths(small)[QUERIES] > schedule(small, STAGES).depths[QUERIES]
    long_keys = {name: STAGES if "key" in name else 1 for name in small.processes}
    depths = schedule(small, STAGES).depths
    assert simulate(small, sufficient_depths(small), 6, long_keys).interval == 13
    tight = {**depths, QUERIES: schedule(small).depths[QUERIES]}
    assert simulate(small, tight, 6, long_keys).interval > 13


def test_check_sees_the_written_depths(tmp_path: Path) -> None:
    _, made = built(tmp_path, 1)
    project = write_project(made)
    text = (project / "firmware" / "small.cpp").read_text()
    nodes = made.hls4ml.get_layers()
    (residual,) = (v for n in nodes for t, v in n.variables.items() if t == RESIDUAL)
    depth = sufficient_depths(network_of(made.graph))[RESIDUAL]
    assert f"#pragma HLS STREAM variable={residual.name} depth={depth}\n" in text
    residual.pragma = ("stream", 11)
    with pytest.raises(UserError, match="deadlock, FIFO .* too shallow"):
        write_project(made)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        folder = write_project(built(tmp_path / name, 2)[1])
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        written.append({str(p.relative_to(folder)): p.read_bytes() for p in paths})
    assert written[0] == written[1]
    assert not any(str(tmp_path).encode() in content for content in written[0].values())


def least(depths: Mapping[str, int]) -> dict[str, int]:
    return {channel: max(depth, LEAST) for channel, depth in depths.items()}


REPEATABLE = settings(
    deadline=None, derandomize=True, database=None, max_examples=40,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
LONG = 200
"""Clocks of a pipeline that holds several jets of every network here."""


def draw_outside(data: st.DataObject) -> Callable[[int], bool]:
    clocks = data.draw(st.lists(st.booleans(), min_size=1, max_size=30))
    return lambda clock: [*clocks, True][clock % (len(clocks) + 1)]


def draw_stages(data: st.DataObject, network: Network) -> dict[str, int]:
    clocks = st.one_of(st.integers(1, 15), st.sampled_from((1, schedule(network).interval, LONG)))
    return {name: data.draw(clocks) for name in network.processes}


@REPEATABLE
@given(st.data())
def test_never_stuck(small: Network, data: st.DataObject) -> None:
    """Whatever the pipelines are and the outside does, however short those that are expected."""
    depths = least(sufficient_depths(small, data.draw(st.sampled_from((1, STAGES)))))
    stages = draw_stages(data, small)
    control = data.draw(st.sampled_from(("stall", "flush")))
    played = simulate(small, depths, 3, stages, control, draw_outside(data), draw_outside(data))
    assert not played.stuck and len(played.finished) == 3


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Processes that read and write at any steps, joined in any way that has no loop."""
    open_: dict[str, int] = {}

    def steps_of(count: int, steps: int) -> list[int]:
        return sorted(draw(st.permutations(range(steps)))[:count])

    def written(steps: int, channels: int) -> dict[str, list[int]]:
        writes = {}
        for _ in range(channels):
            count = draw(st.sampled_from((1, steps, steps, draw(st.integers(1, steps)))))
            writes[f"c{len(processes)}.{len(writes)}"] = steps_of(count, steps)
        open_.update({channel: len(when) for channel, when in writes.items()})
        return writes

    processes: dict[str, Process] = {}
    steps = draw(st.integers(2, 9))
    processes["source"] = Process("", steps, {}, written(steps, draw(st.integers(2, 3))))
    for i in range(draw(st.integers(2, 6))):
        count = min(draw(st.sampled_from((1, 1, 2, 2, 3))), len(open_))
        read = draw(st.permutations(sorted(open_)))[:count]
        most = max(open_[channel] for channel in read)
        steps = most + draw(st.sampled_from((0, 0, 1, 3)))
        reads = {channel: steps_of(open_.pop(channel), steps) for channel in read}
        writes = written(steps, draw(st.sampled_from((1, 1, 2))))
        processes[f"process{i}"] = Process("", steps, reads, writes)
    for channel, count in open_.items():
        processes[f"sink of {channel}"] = Process("", count, {channel: range(count)}, {})
    return Network(processes)


@settings(REPEATABLE, max_examples=150)
@given(networks(), st.data())
def test_no_network_gets_stuck(network: Network, data: st.DataObject) -> None:
    """Depths that expect pipelines of one stage are enough for those of any length."""
    depths = sufficient_depths(network, 1)
    stages = draw_stages(data, network)
    control = data.draw(st.sampled_from(("stall", "stall", "flush")))
    played = simulate(network, depths, 3, stages, control, draw_outside(data), draw_outside(data))
    assert not played.stuck and len(played.finished) == 3


@settings(REPEATABLE, max_examples=100)
@given(networks(), st.data())
def test_depths_cover_every_schedule(network: Network, data: st.DataObject) -> None:
    """Of all stages that are expected: at full rate no FIFO ever holds more."""
    most = data.draw(st.integers(1, 12))
    depths = sufficient_depths(network, most)
    for _ in range(5):
        stages = {n: data.draw(st.sampled_from((1, most))) for n in network.processes}
        needed = schedule(network, stages).depths
        assert {c: d for c, d in needed.items() if d > depths[c]} == {}


def bypass(tokens: int) -> Network:
    """A branch with a process in it, beside a FIFO that holds the partners of its tokens."""
    each = range(tokens)
    return Network(
        {
            "source": Process("", tokens, {}, {"in": each}),
            "fork": Process("", tokens, {"in": each}, {"to": each, "beside": each}),
            "branch": Process("", tokens, {"to": each}, {"from": each}),
            "join": Process("", tokens, {"from": each, "beside": each}, {"out": each}),
            "sink": Process("", tokens, {"out": each}, {}),
        }
    )


def test_a_bypass_holds_a_whole_jet() -> None:
    """A loop that HLS makes gives nothing before its pipeline is full or the jet is over."""
    network = bypass(150)
    depths = least(sufficient_depths(network, 16))
    assert depths == {"in": 2, "to": 2, "beside": 150, "from": 2, "out": 2}
    for branch in (100, 150, 151, 1000):
        stages = dict.fromkeys(network.processes, 1) | {"branch": branch}
        assert len(simulate(network, depths, 3, stages, "stall").finished) == 3
    tight = {**depths, "beside": 149}
    stages = dict.fromkeys(network.processes, 1) | {"branch": 151}
    assert "beside" in simulate(network, tight, 3, stages, "stall").stuck


def test_the_attention_of_150_particles_does_not_get_stuck(tmp_path: Path) -> None:
    """With depths for pipelines of 16 clocks alone, its 42 did."""
    graph = graph_of(tmp_path, 1, particles=150)
    network = network_of(graph)
    depths = least(sufficient_depths(network, 16))
    feed_forward = "block1_tanh1_cpy2"
    assert depths[feed_forward] == 150
    for stages in (42, 151, LONG):
        assert len(simulate(network, depths, 2, stages, "stall").finished) == 2
    before = {**depths, feed_forward: 50, "block1_attention/late": 59}
    assert feed_forward in simulate(network, before, 2, 42, "stall").stuck


def test_order_and_fill_of_a_small_network() -> None:
    """By hand: a process that needs both tokens of a jet, beside a FIFO that holds them."""
    network = Network(
        {
            "source": Process("", 2, {}, {"a": range(2), "b": range(2)}),
            "both": Process("", 2, {"a": range(2)}, {"sum": [1]}),
            "join": Process("", 2, {"sum": [0], "b": range(2)}, {"out": range(2)}),
            "sink": Process("", 2, {"out": range(2)}, {}),
        }
    )
    # Source at clocks 1 2, both at 2 3, join at 4 5, sink at 5 6, then every 2 clocks.
    assert simulate(network, schedule(network).depths, 3).finished == [6, 8, 10]
    assert schedule(network).latency == 6
    # Tokens of b: places taken from 1 and 2 until 4 and 5, so four when jets follow every 2 clocks.
    assert schedule(network).depths == {"a": 2, "sum": 1, "b": 4, "out": 2}
    assert simulate(network, {"a": 2, "sum": 1, "b": 1, "out": 2}, 3).stuck == ["b"]


# ---- exactness; every layer alone is in test_conformance.py


@pytest.mark.parametrize(
    ("lanes", "changes"),
    [
        pytest.param(
            *(1, {"particles": 150, "width": 16, "heads": 4, "feed_forward": 16}),
            marks=pytest.mark.slow,
        ),
        pytest.param(*(3, {"particles": 200, "classes": 1, **LINFORMER}), marks=pytest.mark.slow),
        (4, {"particles": 64, "classes": 2, "blocks": 2, "project_first": False}),
    ],
    ids=["SAL-T, 150", "Linformer, 200 by threes, binary", "two blocks, 64 by fours"],
)
def test_large_jets_are_exact(
    lanes: int, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        csim_module, "COMPILE_FLAGS", ("-std=c++11", "-O0", "-fPIC", "-shared", "-w")
    )
    model, made = built(tmp_path, lanes, **changes)
    graph = made.graph
    csim = compile_csim(
        write_project(made),
        "small",
        layouts(graph),
        [node.name for node in graph.output_nodes],
        tmp_path / "csim",
        tmp_path / "log",
    )
    features = (FixedType.parse("ap_ufixed<8,3>"), *(FixedType.parse("ap_fixed<9,4>"),) * 2)
    x = adversarial_inputs(changes["particles"], features)[:40]
    with process_pool(1) as pool:
        simulated = run_csim(csim, x, pool, trace=True)
    golden = graph.run([x.astype(np.float64)])
    keras = keras_layers(model, x)
    for name, values in simulated.items():
        assert np.array_equal(values, golden[name]), name
        assert np.array_equal(values, keras[name]), name
    assert len(np.unique(simulated["logits"])) > 10


@pytest.mark.usefixtures("few_jets")
def test_build(small_model: Callable[..., Path], tmp_path: Path) -> None:
    path = small_model(firmware={"io_type": "io_stream", "particles_per_clock": 4})
    budget = load_budget("template")
    report = build_firmware(str(path), "Vivado", tmp_path / "build", budget, 1, lambda *_: None)
    assert first_difference(report.bit_accuracy) is None and report.io_type == "io_stream"
    text = (tmp_path / "build" / "small" / "firmware" / "firmware" / "small.cpp").read_text()
    assert "#pragma HLS DATAFLOW" in text and "#pragma HLS PIPELINE" not in text


# ---- the C++ loops read and write as their processes say


def logged(project: Path, size: int, folder: Path) -> list[str]:
    """What the streams of a project do during one jet, in order."""
    log = log_streams(folder)
    subprocess.run(
        ["g++", "-O0", "-std=c++11", "-w", "-fPIC", "-shared", f"-I{folder}", "-Ifirmware/ap_types",
         "firmware/small.cpp", "small_bridge.cpp", "-o", folder / "logged.so"],
        cwd=project, check=True,
    )  # fmt: skip
    function = ctypes.CDLL(str(folder / "logged.so")).small_double
    function((ctypes.c_double * size)(), (ctypes.c_double * 5)())
    return log.read_text().splitlines()


@pytest.mark.parametrize(("lanes", "changes"), [(2, {}), (1, LINFORMER), (2, SHALLOW)])
def test_loops_are_the_processes(lanes: int, changes: dict[str, Any], tmp_path: Path) -> None:
    _, made = built(tmp_path, lanes, **changes)
    (given,) = made.hls4ml.get_input_variables()
    events = logged(write_project(made), given.size(), tmp_path)
    assert_loops_are_processes(made.hls4ml, events)


# ---- configuration


@pytest.mark.parametrize(
    ("firmware", "says"),
    [
        ({"io_type": "io_serial"}, "firmware.io_type"),
        ({"io_type": "io_stream", "particles_per_clock": 0}, "firmware.particles_per_clock"),
        ({"io_type": "io_stream", "particles_per_clock": 7}, "at most particles (6), got 7"),
        ({"particles_per_clock": 2}, "io_type: io_stream"),
    ],
)
def test_configuration_errors(
    firmware: dict[str, Any], says: str, small_model: Callable[..., Path]
) -> None:
    with pytest.raises(UserError) as error:
        load_yaml(small_model(weights=False, firmware=firmware), ModelConfig)
    assert says in str(error.value) and "\n" not in str(error.value)
