"""The io_stream design as units: loops whose kernels hold as much as fits between two FIFOs.

A loop without state before its kernel joins the unit that has its operands: its values need no
FIFO, and its logic is optimised together with theirs. `execute` plays the design on arrays, without
clocks; `timing` says when its tokens are where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.graph.drains import Write
from salt_hls.graph.graph import Graph
from salt_hls.graph.loops import Drain, Loop, State, Step, Token
from salt_hls.graph.network import most_waiting
from salt_hls.graph.tensor import Channel, identifier


@dataclass(frozen=True)
class Design:
    """Loops, each after those it reads from; `source` feeds the first, `sink` leaves the last."""

    units: list[Loop]
    source: Channel
    sink: Channel
    interval: int

    def channels(self) -> dict[str, Channel]:
        """Those between units, by name."""
        found = {drain.channel.name: drain.channel for u in self.units for drain in u.drains}
        return {name: channel for name, channel in found.items() if channel != self.sink}


def execute(design: Design, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The design step by step, without clocks: (jets, transfers, size) to (jets, values)."""
    queues: dict[str, list[Token]] = {design.source.name: list(np.moveaxis(inputs, 1, 0))}
    for unit in design.units:
        states: dict[int, State] = {}
        for step in range(unit.steps):
            operands = []
            for k, feed in enumerate(unit.feeds.values()):
                # Heads of queues; a step that reads nothing sees some other token or none.
                tokens = {c.name: queues[c.name][0] for c in feed.reads() if queues[c.name]}
                tokens = tokens or {"": inputs[:, 0]}
                operands.append(feed.operand(step, tokens, states.setdefault(k, {})))
            for channel, steps in unit.releases().items():
                if step in steps:
                    queues[channel.name].pop(0)
            results = unit.kernel(operands)
            for k, drain in enumerate(unit.drains):
                own, results = results[: len(drain.results)], results[len(drain.results) :]
                token = drain.token(step, own, states.setdefault(-1 - k, {}))
                if step in drain.writes():
                    queues.setdefault(drain.channel.name, []).append(token)
    (result,) = queues.pop(design.sink.name)
    if any(queues.values()):
        raise RuntimeError(f"tokens left over: {[name for name, q in queues.items() if q]}")
    return result


@dataclass(frozen=True)
class Timing:
    """Clocks from a jet's first transfer to its result, and places of every FIFO, by channel."""

    latency: int
    depths: Mapping[str, int]


def timing(design: Design, pipelines: Mapping[str, int]) -> Timing:
    """At full rate, with kernels of so many clocks (by unit), each unit as early as it can.

    A place is taken from the clock in which the step that will write it starts, so a pipeline
    never has to stop, to the one in which its token is released.
    """
    ready: dict[str, NDArray[np.int64]] = {
        design.source.name: np.arange(design.interval, dtype=np.int64)
    }
    taken: dict[str, NDArray[np.int64]] = {}
    depths: dict[str, int] = {}
    for unit in design.units:
        reads = {c: np.array(steps, np.int64) for c, steps in unit.reads().items() if len(steps)}
        start = max(int(np.max(ready[c.name][: len(s)] - s)) for c, s in reads.items())
        for channel, steps in unit.releases().items():
            if channel != design.source and len(steps):
                left = start + np.array(steps, np.int64)
                depths[channel.name] = most_waiting(taken[channel.name], left, design.interval)
        for channel, steps in unit.writes().items():
            begun = start + np.array(steps, np.int64)
            taken[channel.name] = begun + 1
            # A clock for the kernel's answer to enter the FIFO.
            ready[channel.name] = begun + pipelines[unit.name] + 1
    return Timing(int(ready[design.sink.name][-1]) - 1, depths)


# ---- from the graph to units


def design_of(graph: Graph) -> Design:
    """The units of an io_stream graph.

    Raises `UserError` for layers that have no form on streams.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UserError("RTL of io_stream: the model must have one input and one output")
    if graph.outputs[0].transfers > 1:
        raise UserError(
            f"RTL of io_stream: the output has the shape {graph.outputs[0].shape}, which leaves in "
            "several transfers; pool over the particles"
        )
    builder = _Builder(graph)
    for loop in graph.loops():
        builder.add(loop)
    (given,), (output,) = graph.inputs, graph.outputs
    sink = builder.channel(output.name)
    units = builder.units
    if given.name not in {c.name for c in units[0].reads()}:
        raise UserError("RTL of io_stream: the input must go to one layer")
    return Design(units, given.channel, sink, max(unit.steps for unit in units))


class _Builder:
    """Goes through the loops in order; a value is in a unit's kernel or comes out of a channel."""

    def __init__(self, graph: Graph) -> None:
        self.units: list[Loop] = []
        self.tensors = graph.by_name()
        self.writers = {tensor.name: -1 for tensor in graph.inputs}
        """Units that write the channels there are; what feeds the design is before them all."""

    def add(self, loop: Loop) -> None:
        """Into the unit in which its operands meet, or as a new one."""
        unit, names = self._unit(loop), self._names(loop)
        for name, feed in loop.feeds.items():
            if not unit.has(names[name]):
                for channel in feed.reads():
                    if channel.name in self.tensors:
                        self.channel(channel.name)
                unit.feeds[names[name]] = feed
        for name, operation in loop.operations.items():
            unit.operations[names[name]] = _with_names(operation, names)
        for drain in loop.drains:
            # A tensor leaves the kernel only if somebody outside needs it.
            results = tuple(names[result] for result in drain.results)
            if results != (drain.channel.name,):
                self._drain(unit, replace(drain, results=results))

    def _names(self, loop: Loop) -> dict[str, str]:
        """Names in a unit of a loop's values: of the tensors that they are, else of its own."""
        names = {name: f"{loop.name}/{name}" for name in (*loop.feeds, *loop.operations)}
        for drain in loop.drains:
            if drain.transparent and drain.channel.name in self.tensors:
                names[drain.results[0]] = drain.channel.name
        for name, feed in loop.feeds.items():
            tensors = [channel.name for channel in feed.reads() if channel.name in self.tensors]
            if feed.transparent and tensors:
                names[name] = tensors[0]
        return names

    def _unit(self, loop: Loop) -> Loop:
        """An earlier unit of as many steps that has an operand, or a new one.

        Units only read from earlier ones, so what joins one closes no circle.
        """
        joins = all(feed.transparent for feed in loop.feeds.values())
        inside = outside = -1
        for channel in loop.reads():
            has = (k for k, unit in enumerate(self.units) if unit.has(channel.name))
            inside = max(inside, *has, -1)
            outside = max(outside, self.writers.get(channel.name, -1))
        if joins and inside > outside and self.units[inside].steps == loop.steps:
            return self.units[inside]
        self.units.append(Loop(identifier(loop.name), loop.steps))
        return self.units[-1]

    def _drain(self, unit: Loop, drain: Drain) -> None:
        unit.drains.append(drain)
        self.writers[drain.channel.name] = self.units.index(unit)

    def channel(self, tensor: str) -> Channel:
        """The channel of a tensor; made now if it is inside a kernel."""
        found = self.tensors[tensor].channel
        if tensor not in self.writers:
            unit = next(unit for unit in reversed(self.units) if unit.has(tensor))
            self._drain(unit, Write((tensor,), found, unit.steps))
        return found


def _with_names(operation: Step, names: Mapping[str, str]) -> Step:
    """A loop's operation on the values of a unit; names: in the unit, by that in the loop."""
    return lambda values: operation(
        {name: values[value] for name, value in names.items() if value in values}
    )
