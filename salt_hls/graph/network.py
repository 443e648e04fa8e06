"""The design of an io_stream graph as a network of processes: FIFO depths, and their proof.

Processes are loops that run a step a clock, joined by FIFOs. C-simulation's FIFOs are unbounded and
show no deadlock, so that is settled here:

`network_of` makes the processes of the loops of a graph's operations.
`schedule` starts each process as early as its inputs allow when every process runs at full rate; a
    FIFO then needs the places that are taken at its fullest.
`sufficient_depths` takes the worst over what the pipelines of the processes may turn out to be:
    no pipeline gets jets stuck, however long; those of up to `STAGES` clocks do not slow them.
`simulate` plays the network clock by clock with bounded FIFOs, any gaps and stalls; `check` plays
    a design as it is written.

All cycles are of this model, not measured: loops that HLS lets drain between jets are slower by
the depth of their pipelines.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.graph.graph import Graph
from salt_hls.graph.loops import Loop
from salt_hls.graph.tensor import Channel

STAGES = 48
"""Clocks from reading to writing in each process at which depths still give the full rate.

While results are on their way in one branch, the FIFO of the other one must hold their partners.
The attention of the shipped models, the deepest process, takes 42 in RTL. A longer pipeline slows
the design; it does not get it stuck.
"""

JETS = 5
"""Jets that `check` plays."""


@dataclass(frozen=True)
class Process:
    """A loop of `steps` iterations a jet, all of whose state lives inside it.

    reads, writes: for each channel, the step at which each of its tokens is read or written,
    ascending.
    """

    name: str
    steps: int
    reads: Mapping[str, Sequence[int]]
    writes: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Network:
    """Processes by name, each after those it reads from.

    A channel has one writer and one reader and a name of its own: a tensor's, or `<node>/<name>`.
    """

    processes: Mapping[str, Process]


@dataclass(frozen=True)
class Schedule:
    """Clocks between jets, from a jet's first input to its last output, and depths by channel."""

    interval: int
    latency: int
    depths: Mapping[str, int]


# ---- from the graph to the network


def network_of(graph: Graph) -> Network:
    """The processes of an io_stream graph, with those that feed and drain it.

    Raises `UserError` for a node that has no form on streams.
    """
    processes: dict[str, Process] = {}
    for tensor in graph.inputs:
        name, steps = f"input/{tensor.name}", range(tensor.transfers)
        processes[name] = Process(name, len(steps), {}, {tensor.name: steps})
    processes |= {loop.name: process_of(loop) for loop in graph.loops()}
    for tensor in graph.outputs:
        name, steps = f"output/{tensor.name}", range(tensor.transfers)
        processes[name] = Process(name, len(steps), {tensor.name: steps}, {})
    return Network(processes)


def process_of(loop: Loop) -> Process:
    """A loop as it stands in the C++."""

    def in_cpp(channels: Mapping[Channel, Sequence[int]], step: int) -> dict[str, Sequence[int]]:
        return {c.name: [step] if c.array else steps for c, steps in channels.items()}

    reads, writes = in_cpp(loop.reads(), 0), in_cpp(loop.writes(), loop.steps - 1)
    return Process(loop.name, loop.steps, reads, writes)


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
    places for a whole jet. Why nothing then gets stuck, whatever the stages: docs/streaming.md.
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


def check(network: Network, depths: Mapping[str, int]) -> None:
    """Plays a design of these depths: jets back to back, then with gaps and an output that stalls.

    Raises `UserError` when jets get stuck, or do not follow each other at the scheduled interval
    though no pipeline has more than `STAGES`.
    """
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
