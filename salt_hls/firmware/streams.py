"""io_stream: transfers of several particles, FIFO depths, and the proof that they suffice.

The design is a network of processes (`layers/schedule.py`), loops that run a step a clock, joined
by FIFOs. C-simulation's FIFOs are unbounded and show no deadlock, so that is settled here:

`stream` prepares a converted graph: transfer sizes, depths, calls.
`network_of` reads the processes and FIFOs from the graph.
`schedule` starts each process as early as its inputs allow when every process runs at full rate; a
    FIFO then needs the places that are taken at its fullest.
`sufficient_depths` takes the worst over what the pipelines of the processes may turn out to be:
    no pipeline gets jets stuck, however long; those of up to `STAGES` clocks do not slow them.
`simulate` plays the network clock by clock with bounded FIFOs, any gaps and stalls; `check` plays
    the design that is written.

All cycles are of this model, not measured: loops that HLS lets drain between jets are slower by
the depth of their pipelines.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.layers.hls_ops import ArithmeticNode
from salt_hls.layers.schedule import Process, each_step, lanes, token_size, transfers

STAGES = 48
"""Clocks from reading to writing in each process at which depths still give the full rate.

While results are on their way in one branch, the FIFO of the other one must hold their partners.
The attention of the shipped models, the deepest process, takes 42 in RTL. A longer pipeline slows
the design; it does not get it stuck.
"""

LEAST = 2
"""What HLS makes of a FIFO without a depth."""

JETS = 5
"""Jets that `check` plays."""


@dataclass(frozen=True)
class Network:
    """Processes by name, `<node>/<process>`, each after those it reads from.

    A channel has one writer and one reader and a name of its own: a tensor's, or `<node>/<name>`.
    """

    processes: Mapping[str, Process]


@dataclass(frozen=True)
class Schedule:
    """Clocks between jets, from a jet's first input to its last output, and depths by channel."""

    interval: int
    latency: int
    depths: Mapping[str, int]


# ---- what streaming changes in hls4ml's graph


def stream(graph: Any, particles_per_clock: int = 1) -> None:
    """Prepares a converted io_stream graph: transfer sizes, depths, and calls of our token loops.

    Where the particles do not divide by `particles_per_clock`, the last transfer of a jet is partly
    filled; what the rest of it holds changes nothing. Raises `UserError` for another graph, and for
    a number that is not 1 ... particles.
    """
    _check_request(graph, particles_per_clock)
    for node in graph.get_layers():
        _set_lanes(node, particles_per_clock)
    depths = sufficient_depths(network_of(graph))
    for node in graph.get_layers():
        for tensor in node.outputs:
            node.variables[tensor].pragma = ("stream", max(depths[tensor], LEAST))
        if isinstance(node, ArithmeticNode):
            prefix = f"{node.name}/"
            node.depths = {
                channel.removeprefix(prefix): max(depth, LEAST)
                for channel, depth in depths.items()
                if channel.startswith(prefix)
            }
    for backend in dict.fromkeys(("vivado", graph.config.backend.name.lower())):
        graph.apply_flow(f"{backend}:apply_templates")
    for node in graph.get_layers():
        _call_token_loop(node)
    graph.is_streamed = True  # see ArithmeticNode.serialize_state
    for method in ("predict", "trace"):
        setattr(graph, method, partial(_in_whole_transfers, graph, getattr(type(graph), method)))


def _check_request(graph: Any, particles_per_clock: int) -> None:
    io_type = graph.config.get_config_value("IOType")
    if io_type != "io_stream":
        raise UserError(
            f"streams: the graph is {io_type}; convert the model with io_type io_stream"
        )
    particles = max(math.prod(v.shape[:-1]) for v in graph.get_input_variables())
    whole = isinstance(particles_per_clock, Integral) and not isinstance(particles_per_clock, bool)
    if not whole or not 1 <= particles_per_clock <= particles:
        raise UserError(
            f"streams: particles per clock must be a whole number from 1 to {particles}, "
            f"got {particles_per_clock}"
        )


def _in_whole_transfers(graph: Any, method: Callable[..., Any], x: Any) -> Any:
    """hls4ml's `predict` or `trace`: arrays of tensors, while the C++ wants whole transfers."""
    inputs, outputs = graph.get_input_variables(), graph.get_output_variables()
    arrays = [_padded(a, v) for a, v in zip([x] if len(inputs) == 1 else x, inputs, strict=True)]
    result = method(graph, arrays[0] if len(inputs) == 1 else arrays)
    y, *traced = result if method.__name__ == "trace" else (result,)
    whole = zip([y] if len(outputs) == 1 else y, outputs, strict=True)
    cut = [array[..., : math.prod(variable.shape)] for array, variable in whole]
    y = cut[0] if len(outputs) == 1 else cut
    return (y, *traced) if traced else y


def _padded(array: NDArray[Any], variable: Any) -> NDArray[Any]:
    """(jets, values of the transfers of one), from an array of whole tensors; zeros fill them."""
    values = math.prod(variable.shape)
    if array.size % values:
        raise UserError(f"{variable.name}: got {array.size} values, tensors have {values} each")
    return np.pad(array.reshape(-1, values), ((0, 0), (0, variable.size() - values)))


def _set_lanes(node: Any, particles_per_clock: int) -> None:
    for tensor in node.outputs:
        variable = node.variables[tensor]
        rows = math.prod(variable.shape[:-1])
        if node.class_name == "Input":
            wanted = particles_per_clock
        elif isinstance(node, ArithmeticNode):
            wanted = node.output_lanes(lanes(node.get_input_variable()))
        else:
            wanted = lanes(node.get_input_variable())
        variable.type.n_pack = min(wanted, rows)
        # hls4ml's loops and the C-simulation's arrays are of whole transfers.
        size = transfers(variable) * token_size(variable)
        variable.size, variable.size_cpp = partial(int, size), partial(str, size)
        if node.class_name == "Clone":
            node.set_attr("size", size)


def _call_token_loop(node: Any) -> None:
    """hls4ml's dense loop takes one particle a transfer, its maximum is not pipelined: use ours."""
    if node.class_name not in ("PointwiseConv1D", "GlobalPooling1D"):
        return
    source, target = node.get_input_variable(), node.get_output_variable()
    types = f"{source.type.name}, {target.type.name}, {source.shape[0]}"
    names = f"{source.name}, {target.name}"
    if node.class_name == "GlobalPooling1D":
        call = f"nnet::token_maximum<{types}>({names});"
    else:
        weights = f"{node.get_weights('weight').name}, {node.get_weights('bias').name}"
        call = f"nnet::token_dense<{types}, config{node.index}_mult>({names}, {weights});"
    node.set_attr("function_cpp", call)
    node.set_attr("include_header", [*node.get_attr("include_header"), "nnet_utils/nnet_tokens.h"])


# ---- from the graph to the network


def network_of(graph: Any) -> Network:
    """The processes of a converted io_stream graph, with those that feed and drain it."""
    processes: dict[str, Process] = {}
    for node in graph.get_layers():
        for process in _processes(node):
            own = [*node.inputs, *node.outputs]
            processes[f"{node.name}/{process.name}"] = replace(
                process,
                reads={_channel(node, c, own): steps for c, steps in process.reads.items()},
                writes={_channel(node, c, own): steps for c, steps in process.writes.items()},
            )
    for tensor in graph.outputs:
        steps = transfers(graph.output_vars[tensor])
        processes[f"output/{tensor}"] = Process(tensor, steps, {tensor: range(steps)}, {})
    return Network(processes)


def _channel(node: Any, name: str, own: Sequence[str]) -> str:
    return name if name in own else f"{node.name}/{name}"


def _processes(node: Any) -> list[Process]:
    if isinstance(node, ArithmeticNode):
        return node.processes()
    if node.class_name == "Input":
        return [replace(each_step(node), reads={})]
    if node.class_name == "GlobalPooling1D":
        steps = transfers(node.get_input_variable())
        reads, writes = {node.inputs[0]: range(steps)}, {node.outputs[0]: [steps - 1]}
        return [Process("", steps, reads, writes)]
    if node.class_name in ("Clone", "Dense", "Merge", "PointwiseConv1D"):
        return [each_step(node)]
    raise UserError(
        f"layer {node.name}: {node.class_name} has no io_stream form here; use io_type io_parallel"
    )


def depths_of(graph: Any) -> dict[str, int]:
    """The depth of every channel, as the project declares it."""
    depths: dict[str, int] = {}
    for node in graph.get_layers():
        depths.update({tensor: int(node.variables[tensor].pragma[1]) for tensor in node.outputs})
        if isinstance(node, ArithmeticNode):
            depths.update({f"{node.name}/{c}": depth for c, depth in node.depths.items()})
    return depths


# ---- from the network to depths

Stages = int | Mapping[str, int]
"""Clocks from reading to writing: of every process, or by process."""


def schedule(network: Network, stages: Stages = 1) -> Schedule:
    """Interval, latency and depths that full rate needs with pipelines of just so many stages."""
    start, ready = _times(network, stages)
    interval = _interval(network)
    depths = {
        channel: most_waiting(ready[channel], start[name] + np.asarray(steps), interval)
        for name, process in network.processes.items()
        for channel, steps in process.reads.items()
        if len(steps)
    }
    latency = max(start[name] + process.steps for name, process in network.processes.items())
    return Schedule(interval, latency, depths)


def sufficient_depths(network: Network, most: int = STAGES) -> dict[str, int]:
    """Depths that never get jets stuck, nor slow them with 1 ... `most` stages in each process.

    A FIFO is fullest when what leads to it is short, and what its reader waits for besides is long;
    what leads to both delays both alike. If that wait grows with the stages, the FIFO also gets
    places for a whole jet. Why nothing then gets stuck, whatever the stages: docs/architecture.md.
    """
    before: dict[str, set[str]] = {}
    through: dict[str, set[str]] = {}
    writer: dict[str, str] = {}
    for name, process in network.processes.items():
        sources = [writer[channel] for channel, steps in process.reads.items() if len(steps)]
        before[name] = {name}.union(*(before[s] for s in sources))
        through[name] = {name}.union(
            set.intersection(*(through[s] for s in sources)) if sources else ()
        )
        writer.update(dict.fromkeys((c for c, w in process.writes.items() if len(w)), name))
    interval, (_, soonest) = _interval(network), _times(network)
    depths: dict[str, int] = {}
    for name, process in network.processes.items():
        reads = {c: np.asarray(steps) for c, steps in process.reads.items() if len(steps)}
        shared = set().union(*(before[other] for other in through[name] - {name}))
        for channel, steps in reads.items():
            short = through[writer[channel]] | shared
            others = [c for c in reads if writer[c] != writer[channel]]
            _, latest = _times(network, {p: 1 if p in short else most for p in network.processes})
            ready = soonest | {c: latest[c] for c in others}
            start = max(int(np.max(ready[c] - reads[c])) for c in reads)
            depths[channel] = most_waiting(ready[channel], start + steps, interval)
            if any(before[writer[c]] - short for c in others):
                depths[channel] = max(depths[channel], len(steps))
    return depths


def _interval(network: Network) -> int:
    return max(process.steps for process in network.processes.values())


def _times(
    network: Network, stages: Stages = 1
) -> tuple[dict[str, int], dict[str, NDArray[np.int64]]]:
    """Clocks at which processes start and tokens are ready, when every FIFO has room."""
    start: dict[str, int] = {}
    ready: dict[str, NDArray[np.int64]] = {}
    for name, process in network.processes.items():
        start[name] = max(
            (int(np.max(ready[c] - steps)) for c, steps in process.reads.items() if len(steps)),
            default=0,
        )
        for channel, when in process.writes.items():
            written = start[name] + np.asarray(when, np.int64)
            ready[channel] = written + _stages(network, name, stages)
    return start, ready


def _stages(network: Network, name: str, stages: Stages) -> int:
    process = network.processes[name]
    if not process.reads or not process.writes:
        return 1  # sources and sinks are outside the design
    return stages if isinstance(stages, int) else stages[name]


def most_waiting(ready: NDArray[np.int64], taken: NDArray[np.int64], interval: int) -> int:
    """Tokens in a FIFO at its fullest, when jets follow each other every `interval` clocks.

    A token needs its place from the clock in which it is written, one before it is ready, to the
    one in which it is read: the flags of a FIFO answer a clock later.
    """
    clocks = np.arange(interval)[:, None]
    jets = (clocks - (ready - 1)) // interval - (clocks - taken - 1) // interval
    return int(jets.sum(axis=1).max())


# ---- the network, clock by clock

Control = Literal["stall", "flush"]
"""What a pipeline does when its next step lacks input.

stall: everything in it waits, and it drains between jets, as the loops of HLS do. flush: what is in
it moves on, and jets follow without a gap.
"""


@dataclass(frozen=True)
class Played:
    """Clocks at which jets were complete; the full FIFOs, if the rest of the jets never came."""

    finished: Sequence[int]
    stuck: Sequence[str]

    @property
    def interval(self) -> int:
        """Clocks between the last two jets."""
        return self.finished[-1] - self.finished[-2]


def always(clock: int) -> bool:
    """An outside world that never waits."""
    return True


def simulate(
    network: Network,
    depths: Mapping[str, int],
    jets: int,
    stages: Stages = 1,
    control: Control = "flush",
    gives: Callable[[int], bool] = always,
    takes: Callable[[int], bool] = always,
) -> Played:
    """Plays `jets` jets; `gives` and `takes` say at which clocks the outside does so.

    They must both say yes at the same clock again and again: when they do and nothing moves,
    nothing ever will.
    """
    fill = dict.fromkeys(depths, 0)
    runners = [
        _Runner(process, _stages(network, name, stages), control, jets, fill, depths)
        for name, process in network.processes.items()
    ]
    finished: list[int] = []
    for clock in itertools.count(1):
        outside = {"source": gives(clock), "sink": takes(clock), "": True}
        # All decide on what the FIFOs held before this clock, as their flags do.
        decisions = [runner.decide(outside[runner.kind]) for runner in runners]
        moved = [runner.move(*d) for runner, d in zip(runners, decisions, strict=True)]
        if not any(moved) and all(outside.values()):
            return Played(finished, [c for c in depths if fill[c] >= depths[c]])
        if min(runner.jet for runner in runners if runner.kind == "sink") > len(finished):
            finished.append(clock)
        if len(finished) == jets:
            break
    return Played(finished, [])


class _Runner:
    """One process while it is played: its next step, and the steps in its pipeline."""

    def __init__(
        self,
        process: Process,
        stages: int,
        control: Control,
        jets: int,
        fill: dict[str, int],
        depths: Mapping[str, int],
    ) -> None:
        self.control, self.jets, self.steps = control, jets, process.steps
        self.fill, self.depths = fill, depths
        self.kind = "source" if not process.reads else "" if process.writes else "sink"
        self.reads = _by_step(process.reads, process.steps)
        self.writes = _by_step(process.writes, process.steps)
        self.pipeline: deque[int | None] = deque([None] * (stages - 1))
        self.inside = self.jet = self.step = 0

    def decide(self, outside: bool) -> tuple[bool, bool]:
        """Whether the pipeline advances, and whether the next step enters it."""
        drained = self.step > 0 or self.inside == 0 or self.control == "flush"
        wants = self.jet < self.jets and drained
        enters = wants and outside and all(self.fill[c] > 0 for c in self.reads[self.step])
        leaving = self.pipeline[0] if self.pipeline else self.step if enters else None
        full = leaving is not None and any(
            self.fill[c] >= self.depths[c] for c in self.writes[leaving]
        )
        stalls = full or (wants and not enters and self.control == "stall")
        return not stalls, enters and not stalls

    def move(self, advances: bool, enters: bool) -> bool:
        """Does so; false when there was nothing to move."""
        if not advances or not (enters or self.inside):
            return False
        self.pipeline.append(self.step if enters else None)
        if enters:
            for channel in self.reads[self.step]:
                self.fill[channel] -= 1
            self.inside += 1
            self.jet, self.step = divmod(self.jet * self.steps + self.step + 1, self.steps)
        leaving = self.pipeline.popleft()
        if leaving is not None:
            for channel in self.writes[leaving]:
                self.fill[channel] += 1
            self.inside -= 1
        return True


def _by_step(channels: Mapping[str, Sequence[int]], steps: int) -> list[list[str]]:
    table: list[list[str]] = [[] for _ in range(steps)]
    for channel, when in channels.items():
        for step in when:
            table[step].append(channel)
    return table


def check(graph: Any) -> None:
    """Plays the design as written: jets back to back, then with gaps and an output that stalls.

    Raises `UserError` when jets get stuck, or do not follow each other at the scheduled interval
    though no pipeline has more than `STAGES`.
    """
    network, depths = network_of(graph), depths_of(graph)
    interval = schedule(network).interval
    rng = np.random.default_rng(0)
    counts = rng.integers(1, STAGES + 1, len(network.processes)).tolist()
    kinds: list[Stages] = [1, STAGES, dict(zip(network.processes, counts, strict=True))]
    smooth = [simulate(network, depths, JETS, stages, "flush") for stages in kinds]
    # Of longer pipelines, those that hold a whole jet tie the most of it up: then they drain.
    outside = _now_and_then(1), _now_and_then(2)
    rough = [
        simulate(network, depths, JETS, stages, "stall", *outside)
        for stages in (*kinds, interval + 1)
    ]
    for played in (*smooth, *rough):
        if played.stuck:
            name = played.stuck[0]
            raise UserError(f"streams: deadlock, FIFO {name} of {depths[name]} is too shallow")
    slowest = max(played.interval for played in smooth)
    if slowest > interval:
        raise UserError(f"streams: a jet takes {slowest} clocks instead of {interval}")


def _now_and_then(seed: int) -> Callable[[int], bool]:
    """Yes at 6 clocks of 10, irregularly."""
    yes = np.random.default_rng(seed).random(997) < 0.6
    return lambda clock: bool(yes[clock % len(yes)])
