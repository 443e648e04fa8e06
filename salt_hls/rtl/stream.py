"""The io_stream design as units: token-wise kernels, the little state around them, and FIFOs.

The processes of the network (`layers/schedule.py`) become `Unit`s, loops of one step a clock. In a
step its `Feed`s make the kernel's operands of the tokens they read, the kernel computes without
any state, and its `Drain`s make the tokens that leave. Feeds and drains hold all state, so the
kernel may have a pipeline of any depth. A layer without state joins the unit before it: its values
need no FIFO, and its logic is optimised together with theirs.

Everything here has two forms: arrays (`execute`, compared with the golden model) and Verilog.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.firmware.replay import apply, output_type
from salt_hls.firmware.streams import most_waiting
from salt_hls.fixed import Array, FixedType
from salt_hls.layers.conv_attention.arithmetic import ConvAttention, padding
from salt_hls.layers.hls_ops import ArithmeticNode, fixed_type_of
from salt_hls.layers.partitioned_projection.arithmetic import PartitionedProjection
from salt_hls.layers.schedule import lanes, token_size, transfers

Token = NDArray[np.float64]
"""Grid floats (jets, values)."""

State = dict[str, Token]


@dataclass(frozen=True)
class Channel:
    """Values of one type that travel together, from one unit to one other, through a FIFO."""

    name: str
    type: FixedType
    size: int

    @property
    def identifier(self) -> str:
        """Its name in Verilog."""
        return "c_" + "".join(c if c.isalnum() else "_" for c in self.name)

    @property
    def bits(self) -> int:
        """Width of a token."""
        return self.size * self.type.width

    def bus(self, kind: str, signal: str, width: int | None = None) -> str:
        """Declaration of one of its signals."""
        return f"{kind} {f'[{width - 1}:0] ' if width else ''}{self.identifier}_{signal}"


def when(steps: Sequence[int], total: int, counter: str) -> str:
    """Verilog condition: a counter from 0 to `total` - 1 is at one of these steps."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][1] == step - 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    terms = []
    for first, last in runs:
        bounds = [f"{counter} >= {first}"] * (first > 0) + [f"{counter} <= {last}"] * (
            last < total - 1
        )
        terms.append(f"{counter} == {first}" if first == last and bounds else " && ".join(bounds))
    return " || ".join(terms or ["1'b0"]) or "1'b1"


# ---- feeds: from tokens to operands


@dataclass(frozen=True)
class Feed(ABC):
    """An operand of a kernel: an array of `shape`, every value of `type`."""

    type: FixedType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Values of the operand."""
        return math.prod(self.shape)

    def reads(self) -> dict[Channel, Sequence[int]]:
        """Steps at which a token must be there, by channel."""
        return {}

    def releases(self) -> dict[Channel, Sequence[int]]:
        """Steps at which a token leaves its FIFO; until then it stays at the head of it."""
        return self.reads()

    @abstractmethod
    def operand(self, step: int, tokens: Mapping[str, Token], state: State) -> Token:
        """The operand of a step, flat; tokens: heads of the FIFOs, by channel name."""

    @abstractmethod
    def verilog(self, name: str) -> str:
        """Drives wire `name`; `step` and `fire` are the unit's."""


@dataclass(frozen=True)
class Read(Feed):
    """A token every step or, `held`, one token for all of them."""

    channel: Channel
    steps: int
    held: bool = False

    def reads(self) -> dict[Channel, Sequence[int]]:
        # A held token must be there at every step: trivially true after the first.
        return {self.channel: [0] if self.held else range(self.steps)}

    def releases(self) -> dict[Channel, Sequence[int]]:
        return {self.channel: [self.steps - 1] if self.held else range(self.steps)}

    def operand(self, step: int, tokens: Mapping[str, Token], state: State) -> Token:
        return tokens[self.channel.name]

    def verilog(self, name: str) -> str:
        return f"assign {name} = {self.channel.identifier}_q;"


@dataclass(frozen=True)
class Part(Read):
    """One of `steps` equal parts of a held token, in order."""

    held: bool = True

    def operand(self, step: int, tokens: Mapping[str, Token], state: State) -> Token:
        return tokens[self.channel.name][:, step * self.size : (step + 1) * self.size]

    def verilog(self, name: str) -> str:
        bits = self.size * self.type.width
        return f"assign {name} = {self.channel.identifier}_q[step * {bits} +: {bits}];"


@dataclass(frozen=True)
class Rom(Feed):
    """Constants, (steps, values)."""

    values: NDArray[np.float64]

    def operand(self, step: int, tokens: Mapping[str, Token], state: State) -> Token:
        return np.asarray(self.values[step])

    def verilog(self, name: str) -> str:
        bits = self.size * self.type.width
        words = [
            sum(
                (code % 2**self.type.width) << (k * self.type.width)
                for k, code in enumerate(self.type.codes(row).tolist())
            )
            for row in self.values
        ]
        lines = [f"reg [{bits - 1}:0] {name}_rom;", "always @(*) case (step)"]
        lines += [f"  {step}: {name}_rom = {bits}'h{word:x};" for step, word in enumerate(words)]
        lines += [f"  default: {name}_rom = {bits}'h0;", "endcase", f"assign {name} = {name}_rom;"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Window(Feed):
    """Rows around those of a transfer: `up` before them, the transfer's, and those after.

    What comes before the first of `particles` rows and after the last is zero. early: one token of
    the jet's first transfers, or `None`; late: the others, a token each. shape: (rows, columns).
    """

    early: Channel | None
    late: Channel | None
    particles: int
    lanes: int
    steps: int
    up: int
    ahead: int

    @property
    def columns(self) -> int:
        """Values of a row."""
        return self.shape[1]

    @property
    def rows(self) -> int:
        """Rows that are kept; the operand is the first of them."""
        return self.up + (self.ahead + 1) * self.lanes

    @property
    def last_lanes(self) -> int:
        """Rows of the jet's last transfer."""
        return self.particles - (self.steps - 1) * self.lanes

    def reads(self) -> dict[Channel, Sequence[int]]:
        steps: dict[Channel, Sequence[int]] = {self.early: [0]} if self.early else {}
        return steps | ({self.late: range(self.steps - self.ahead)} if self.late else {})

    def operand(self, step: int, tokens: Mapping[str, Token], state: State) -> Token:
        jets = len(next(iter(tokens.values())))

        def zeros(rows: int) -> Token:
            return np.zeros((jets, rows * self.columns))

        if self.late and step + self.ahead < self.steps:
            newest = tokens[self.late.name].copy()
            if step + self.ahead == self.steps - 1:
                newest[:, self.last_lanes * self.columns :] = 0
        else:
            newest = zeros(self.lanes)
        if step > 0:
            older = state["window"][:, self.lanes * self.columns :]
        else:
            first = tokens[self.early.name] if self.early else zeros(0)
            first = first[:, : self.particles * self.columns]
            older = np.concatenate([zeros(self.up), first], axis=1)
            missing = self.up + self.ahead * self.lanes - older.shape[1] // self.columns
            older = np.concatenate([older, zeros(missing)], axis=1)
        state["window"] = np.concatenate([older, newest], axis=1)
        return state["window"][:, : self.size]

    def verilog(self, name: str) -> str:
        row = self.columns * self.type.width
        bits, lane_bits = self.rows * row, self.lanes * row

        def zeros(rows: int) -> list[str]:
            return [f"{{{rows * row}{{1'b0}}}}"] if rows else []

        newest, present = "0", "1'b1"
        if self.late:
            late = newest = f"{self.late.identifier}_q"
            present = when(self.reads()[self.late], self.steps, "step")
            if self.last_lanes < self.lanes:
                spare = zeros(self.lanes - self.last_lanes)
                cut = ", ".join([*spare, f"{late}[{self.last_lanes * row - 1}:0]"])
                final = when([self.steps - 1 - self.ahead], self.steps, "step")
                newest = f"(({final}) ? {{{cut}}} : {late})"
        lines = [f"wire [{lane_bits - 1}:0] {name}_newest = ({present}) ? {newest} : 0;"]
        if self.rows == self.lanes:
            return "\n".join([*lines, f"assign {name} = {name}_newest;"])
        taken = min(self.early.size // self.columns, self.particles) if self.early else 0
        begin = zeros(self.ahead * self.lanes - taken)
        if self.early:
            begin += [f"{self.early.identifier}_q[{taken * row - 1}:0]"]
        begin += zeros(self.up)
        return "\n".join(
            [
                *lines,
                f"reg [{bits - 1}:0] {name}_window;",
                f"wire [{bits - 1}:0] {name}_next = {{{name}_newest, "
                f"step == 0 ? {{{', '.join(begin)}}} : {name}_window[{bits - 1}:{lane_bits}]}};",
                f"always @(posedge clk) if (fire) {name}_window <= {name}_next;",
                f"assign {name} = {name}_next[{self.size * self.type.width - 1}:0];",
            ]
        )


# ---- drains: from results to tokens


@dataclass(frozen=True)
class Drain(ABC):
    """Makes the tokens of a channel of a kernel's results; `results` are their names."""

    results: tuple[str, ...]
    channel: Channel
    steps: int

    def writes(self) -> Sequence[int]:
        """Steps whose result completes a token."""
        return [self.steps - 1]

    def result_types(self) -> list[tuple[FixedType, int]]:
        """Type and number of values of every result."""
        return [(self.channel.type, self.channel.size)] * len(self.results)

    @abstractmethod
    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        """The token as it is after this step."""

    @abstractmethod
    def verilog(self, token: str, results: Sequence[str]) -> str:
        """Drives wire `token`; `done` and `done_step` say which results are there."""


@dataclass(frozen=True)
class Write(Drain):
    """Each result is a token, from step `first` on."""

    first: int = 0

    def writes(self) -> Sequence[int]:
        return range(self.first, self.steps)

    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        return results[0]

    def verilog(self, token: str, results: Sequence[str]) -> str:
        return f"assign {token} = {results[0]};"


@dataclass(frozen=True)
class Collect(Drain):
    """The jet's first `count` results as one token; what they have beyond its size is cut off."""

    count: int = 1
    size: int = 1

    def writes(self) -> Sequence[int]:
        return [self.count - 1]

    def result_types(self) -> list[tuple[FixedType, int]]:
        return [(self.channel.type, self.size)]

    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        before = state.get("history", np.zeros((len(results[0]), 0)))
        history = np.concatenate([before, results[0]], axis=1)[:, -self.count * self.size :]
        state["history"] = history
        return np.asarray(history[:, : self.channel.size])

    def verilog(self, token: str, results: Sequence[str]) -> str:
        width = self.size * self.channel.type.width
        if self.count == 1:
            return f"assign {token} = {results[0]}[{self.channel.bits - 1}:0];"
        bits = (self.count - 1) * width
        return "\n".join(
            [
                f"reg [{bits - 1}:0] {token}_history;",
                f"wire [{bits + width - 1}:0] {token}_all = {{{results[0]}, {token}_history}};",
                f"always @(posedge clk) if (done) {token}_history <= "
                f"{token}_all[{bits + width - 1}:{width}];",
                f"assign {token} = {token}_all[{self.channel.bits - 1}:0];",
            ]
        )


@dataclass(frozen=True)
class Accumulate(Drain):
    """Sums of a jet: `rows` rows; at each step consecutive ones of them grow.

    The result is (terms, columns): what the step adds to rows first[step], first[step] + 1, ...
    """

    rows: int
    terms: int
    first: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Values of a row."""
        return self.channel.size // self.rows

    def result_types(self) -> list[tuple[FixedType, int]]:
        return [(self.channel.type, self.terms * self.columns)]

    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        jets = len(results[0])
        if step == 0:
            state["sums"] = np.zeros((jets, self.rows, self.columns))
        added = results[0].reshape(jets, self.terms, self.columns)
        first = self.first[step]
        count = min(self.terms, self.rows - first)
        state["sums"][:, first : first + count] += added[:, :count]
        return np.array(state["sums"].reshape(jets, -1), np.float64)

    def verilog(self, token: str, results: Sequence[str]) -> str:
        width = self.channel.type.width
        row = self.columns * width
        lines = [f"reg [{self.channel.bits - 1}:0] {token}_sums;"]
        lines += [f"always @(posedge clk) if (done) {token}_sums <= {token};"]
        for c in range(self.rows):
            choices = []
            for k in range(self.terms):
                steps = [step for step, first in enumerate(self.first) if first + k == c]
                if steps:
                    condition = when(steps, self.steps, "done_step")
                    choices.append(f"({{{row}{{{condition}}}}} & {results[0]}[{k * row} +: {row}])")
            lines.append(f"wire [{row - 1}:0] {token}_add{c} = {' | '.join(choices) or 0};")
            lines.append(
                f"wire [{row - 1}:0] {token}_old{c} = "
                f"{{{row}{{done_step != 0}}}} & {token}_sums[{c * row} +: {row}];"
            )
            lines += [
                f"assign {token}[{c * row + i * width} +: {width}] = "
                f"{token}_old{c}[{i * width} +: {width}] + {token}_add{c}[{i * width} +: {width}];"
                for i in range(self.columns)
            ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Chunks(Drain):
    """Sums of consecutive rows, each a token at the step in `ends` at which it is complete.

    The result is (terms, columns): what the step adds to the row it begins in and, if there are
    two terms, to the next one.
    """

    terms: int
    ends: tuple[int, ...]

    def writes(self) -> Sequence[int]:
        return self.ends

    def result_types(self) -> list[tuple[FixedType, int]]:
        return [(self.channel.type, self.terms * self.channel.size)]

    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        added, following = results[0][:, : self.channel.size], results[0][:, self.channel.size :]
        row = added if step == 0 else added + state["sum"]
        if step in self.ends:
            state["sum"] = following if self.terms > 1 else np.zeros_like(added)
        else:
            state["sum"] = row
        return row

    def verilog(self, token: str, results: Sequence[str]) -> str:
        bits, width = self.channel.bits, self.channel.type.width
        ended = when(self.ends, self.steps, "done_step")
        following = f"{results[0]}[{bits} +: {bits}]" if self.terms > 1 else "0"
        lines = [
            f"reg [{bits - 1}:0] {token}_sum;",
            f"wire [{bits - 1}:0] {token}_old = {{{bits}{{done_step != 0}}}} & {token}_sum;",
            f"always @(posedge clk) if (done) {token}_sum <= ({ended}) ? {following} : {token};",
        ]
        for at in (f"[{i * width} +: {width}]" for i in range(self.channel.size)):
            lines.append(f"assign {token}{at} = {token}_old{at} + {results[0]}{at};")
        return "\n".join(lines)


@dataclass(frozen=True)
class Maximum(Drain):
    """Greatest value of a jet. results: over all lanes, and over those that the last step has."""

    def token(self, step: int, results: Sequence[Token], state: State) -> Token:
        newest = results[-1] if step == self.steps - 1 else results[0]
        state["best"] = newest if step == 0 else np.maximum(state["best"], newest)
        return state["best"]

    def verilog(self, token: str, results: Sequence[str]) -> str:
        width, bits = self.channel.type.width, self.channel.bits
        signed = "$signed" if self.channel.type.signed else "$unsigned"
        last = when([self.steps - 1], self.steps, "done_step")
        lines = [
            f"reg [{bits - 1}:0] {token}_best;",
            f"wire [{bits - 1}:0] {token}_newest = ({last}) ? {results[-1]} : {results[0]};",
            f"always @(posedge clk) if (done) {token}_best <= {token};",
        ]
        for i in range(self.channel.size):
            at = f"[{i * width} +: {width}]"
            lines.append(
                f"assign {token}{at} = done_step == 0 || {signed}({token}_newest{at}) > "
                f"{signed}({token}_best{at}) ? {token}_newest{at} : {token}_best{at};"
            )
        return "\n".join(lines)


# ---- units


Operation = Callable[[Mapping[str, Array]], Array]


@dataclass
class Unit:
    """A loop of `steps` steps a jet around a kernel.

    feeds: by name of the operand. operations: by name of the value, in order, each a function of
    the values before it.
    """

    name: str
    steps: int
    feeds: dict[str, Feed] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    drains: list[Drain] = field(default_factory=list)

    def has(self, value: str) -> bool:
        """Whether the kernel has this value."""
        return value in self.feeds or value in self.operations

    def reads(self) -> dict[Channel, Sequence[int]]:
        """Steps at which a token must be there, by channel."""
        return {c: steps for feed in self.feeds.values() for c, steps in feed.reads().items()}

    def releases(self) -> dict[Channel, Sequence[int]]:
        """Steps at which a token leaves its FIFO, by channel."""
        return {c: steps for feed in self.feeds.values() for c, steps in feed.releases().items()}

    def writes(self) -> dict[Channel, Sequence[int]]:
        """Steps whose results complete a token, by channel."""
        return {drain.channel: drain.writes() for drain in self.drains}

    def kernel(self, operands: Sequence[Array]) -> list[Array]:
        """The results that the drains take, in their order.

        operands: (..., size) by feed, grid floats or symbolic; results are (..., values) too.
        """
        values: dict[str, Array] = {}
        leading = 0
        for (name, feed), operand in zip(self.feeds.items(), operands, strict=True):
            values[name] = operand.reshape(*operand.shape[:-1], *feed.shape)
            leading = max(leading, operand.ndim - 1)
        for name, operation in self.operations.items():
            values[name] = operation(values)
        return [
            values[name].reshape(*values[name].shape[:leading], -1)
            for drain in self.drains
            for name in drain.results
        ]


@dataclass(frozen=True)
class Design:
    """Units, each after those it reads from; `source` feeds the first, `sink` leaves the last."""

    units: list[Unit]
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


def design_of(graph: Any) -> Design:
    """The units of a converted io_stream graph.

    Raises `UserError` for layers that have no form here.
    """
    return _Builder(graph).build()


class _Builder:
    """Goes through the graph in order; a value is in a unit's kernel or comes out of a channel."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.units: list[Unit] = []
        self.channels: dict[str, tuple[int, Channel]] = {}  # with the unit that writes it
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise UserError("RTL of io_stream: the model must have one input and one output")

    def build(self) -> Design:
        for node in self.graph.get_layers():
            self._add(node)
        (output,) = self.graph.outputs
        sink = self._channel(output)
        source = next(c for unit, c in self.channels.values() if unit < 0)
        interval = max(unit.steps for unit in self.units)
        if source.name not in {c.name for c in self.units[0].reads()}:
            raise UserError("RTL of io_stream: the input must go to one layer")
        return Design(self.units, source, sink, interval)

    def _add(self, node: Any) -> None:
        kind = node.class_name
        if kind == "Input":
            (name,) = node.outputs
            variable = node.get_output_variable()
            channel = Channel(name, output_type(node).exact(), token_size(variable))
            self.channels[name] = (-1, channel)
        elif kind == "PartitionedProjection":
            self._projection(node, node.get_attr("arithmetic"))
        elif kind == "ConvAttention":
            self._attention(node, node.get_attr("arithmetic"))
        elif kind == "GlobalPooling1D":
            self._maximum(node)
        elif isinstance(node, ArithmeticNode) or kind in (
            "Clone", "Dense", "Merge", "PointwiseConv1D"
        ):  # fmt: skip
            unit = self._unit(node.inputs, transfers(node.get_output_variable()), node.name)
            for name in node.outputs:
                unit.operations[name] = _of_node(node)
        else:
            raise UserError(f"layer {node.name}: {kind} has no io_stream RTL; use io_parallel")

    def _unit(self, inputs: Sequence[str], steps: int, name: str) -> Unit:
        """The unit in which these tensors meet, transfer by transfer: an earlier one, or a new one.

        Units only read from earlier ones, so what joins one closes no circle.
        """
        inside = [
            max((k for k, u in enumerate(self.units) if u.has(i)), default=-1) for i in inputs
        ]
        outside = [self.channels[i][0] for i in inputs if i in self.channels]
        at = max(inside)
        if at < 0 or at <= max(outside, default=-1) or self.units[at].steps != steps:
            self.units.append(Unit(_identifier(name), steps))
            at = len(self.units) - 1
        unit = self.units[at]
        for tensor in inputs:
            if not unit.has(tensor):
                self._read(unit, tensor)
        return unit

    def _read(self, unit: Unit, tensor: str) -> None:
        channel = self._channel(tensor)
        unit.feeds[tensor] = Read(channel.type, self._shape(tensor), channel, unit.steps)

    def _new(self, name: str, steps: int) -> Unit:
        self.units.append(Unit(_identifier(name), steps))
        return self.units[-1]

    def _drain(self, unit: Unit, drain: Drain) -> Channel:
        unit.drains.append(drain)
        self.channels[drain.channel.name] = self.units.index(unit), drain.channel
        return drain.channel

    def _channel(self, tensor: str) -> Channel:
        """The channel of a tensor; made now if it is inside a kernel."""
        if tensor not in self.channels:
            unit = next(u for u in reversed(self.units) if u.has(tensor))
            variable = self._variable(tensor)
            self._drain(
                unit,
                Write(
                    (tensor,),
                    Channel(
                        tensor,
                        fixed_type_of(variable.type.precision).exact(),
                        math.prod(self._shape(tensor)),
                    ),
                    unit.steps,
                ),
            )
        return self.channels[tensor][1]

    def _variable(self, tensor: str) -> Any:
        return next(n.variables[tensor] for n in self.graph.get_layers() if tensor in n.outputs)

    def _shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a transfer."""
        variable = self._variable(tensor)
        columns = int(variable.shape[-1])
        return (lanes(variable), columns) if len(variable.shape) > 1 else (columns,)

    def _projection(self, node: Any, exact: PartitionedProjection) -> None:
        (source,), (target,) = node.inputs, node.outputs
        wide, (particles, _) = lanes(self._variable(source)), node.input_shape()
        steps, partitions = transfers(self._variable(source)), exact.partitions
        unit = self._unit(node.inputs, steps, node.name)
        weights = _weights_by_step(exact, particles, wide, steps)
        terms = weights.values.shape[1]
        # Some lanes never meet some row: no sum is as wide as the kernel must think.
        sums = exact.accum_type(node.input_type()).exact()
        rom, later, added = (f"{node.name}/{what}" for what in ("weights", "later", "added"))
        row = self._shape(target)
        kind = exact.kernel_type.exact()
        emit = Unit(_identifier(f"{node.name}_emit"), partitions)
        drain: Drain
        if weights.ends:
            # A particle belongs to one row: one set of products, sorted into this and the next.
            values = weights.values.sum(axis=1)
            unit.feeds[rom] = Rom(kind, values.shape[1:], values.reshape(steps, -1))
            if terms > 1:
                sorted_out = np.any(weights.values[:, 1] != 0, axis=1).astype(np.float64)
                unit.feeds[later] = Rom(FixedType(1, 1, False), (wide,), sorted_out)

            def chunks(v: Mapping[str, Array]) -> Array:
                products = [
                    exact.add(v[source][..., i : i + 1, :], v[rom][:, i : i + 1])
                    for i in range(wide)
                ]
                both = [sum(products[1:], products[0])]
                if terms > 1:
                    # The first lane always belongs to the row in which the transfer begins.
                    gated = [p * v[later][i : i + 1] for i, p in enumerate(products) if i > 0]
                    both.append(sum(gated[1:], gated[0]))
                    both[0] = both[0] - both[1]
                return sums.quantize(np.stack(both, axis=-2))

            unit.operations[added] = chunks
            channel = Channel(f"{node.name}/rows", sums, math.prod(row))
            drain = Chunks((added,), channel, steps, terms, weights.ends)
            feed = Read(sums, row, channel, partitions)
        else:
            flat = weights.values.reshape(steps, -1)
            unit.feeds[rom] = Rom(kind, weights.values.shape[1:], flat)
            unit.operations[added] = lambda v: sums.quantize(
                np.stack([exact.add(v[source], v[rom][r]) for r in range(terms)], axis=-2)
            )
            channel = Channel(f"{node.name}/rows", sums, partitions * math.prod(row))
            drain = Accumulate((added,), channel, steps, partitions, terms, weights.first)
            feed = Part(sums, row, channel, partitions)
        self._drain(unit, drain)
        self.units.append(emit)
        emit.feeds[f"{node.name}/row"] = feed
        emit.operations[target] = lambda v: exact.finish(v[f"{node.name}/row"])

    def _attention(self, node: Any, exact: ConvAttention) -> None:
        query, *others = node.inputs
        (target,) = node.outputs
        held = []
        for tensor, what in zip(others, ("keys", "values"), strict=True):
            variable = self._variable(tensor)
            steps = transfers(variable)
            unit = self._unit([tensor], steps, f"{node.name}_{what}")
            channel = Channel(
                f"{node.name}/{what}",
                fixed_type_of(variable.type.precision).exact(),
                math.prod(variable.shape),
            )
            size = token_size(variable)
            held.append(self._drain(unit, Collect((tensor,), channel, steps, steps, size)))
        keys, values = held
        wide, (particles, _) = lanes(self._variable(query)), node.input_shape()
        steps = transfers(self._variable(query))
        partitions, _ = shape = tuple(node.input_shape(1))
        up, down = padding(1 if exact.kernel is None else len(exact.kernel))
        ahead = math.ceil(down / wide)
        early = min(ahead, steps)

        unit = self._new(f"{node.name}_logits", steps)
        unit.feeds["keys"] = Read(keys.type, shape, keys, steps, held=True)
        self._read(unit, query)

        def logits(v: Mapping[str, Array]) -> Array:
            rows = np.moveaxis(exact.logits(v[query], v["keys"]), -3, -2)
            return rows.reshape(*rows.shape[:-2], -1)

        unit.operations["logits"] = logits
        columns = exact.heads * partitions
        size, kind = wide * columns, exact.logits_type.exact()
        first = rest = None
        if early:
            first = Channel(f"{node.name}/early", kind, early * size)
            self._drain(unit, Collect(("logits",), first, steps, early, size))
        if early < steps:
            rest = Channel(f"{node.name}/late", kind, size)
            self._drain(unit, Write(("logits",), rest, steps, early))

        unit = self._new(f"{node.name}_context", steps)
        unit.feeds["window"] = Window(
            kind, (up + wide + down, columns), first, rest, particles, wide, steps, up, ahead
        )
        unit.feeds["values"] = Read(values.type, shape, values, steps, held=True)

        def context(v: Mapping[str, Array]) -> Array:
            window = v["window"]
            window = window.reshape(*window.shape[:-1], exact.heads, partitions)
            return exact.context(np.moveaxis(window, -2, -3), v["values"])

        unit.operations[target] = context

    def _maximum(self, node: Any) -> None:
        (source,), (target,) = node.inputs, node.outputs
        variable = self._variable(source)
        kind = fixed_type_of(variable.type.precision).exact()
        types = {
            kind,
            output_type(node).exact(),
            fixed_type_of(node.get_attr("accum_t").precision).exact(),
        }
        if node.get_attr("pool_op").lower() != "max" or len(types) > 1:
            raise UserError(
                f"layer {node.name}: RTL of io_stream has only the maximum, in its argument's type"
            )
        steps, wide = transfers(variable), lanes(variable)
        unit = self._unit(node.inputs, steps, node.name)
        last = variable.shape[0] - (steps - 1) * wide
        results = [f"{node.name}/all"]
        unit.operations[results[0]] = lambda v: apply(node, [v[source]])
        if last < wide:
            results.append(f"{node.name}/last")
            unit.operations[results[1]] = lambda v: apply(node, [v[source][..., :last, :]])
        channel = Channel(target, kind, int(variable.shape[-1]))
        self._drain(unit, Maximum(tuple(results), channel, steps))


def _of_node(node: Any) -> Operation:
    return lambda values: apply(node, [values[name] for name in node.inputs])


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


@dataclass(frozen=True)
class _Weights:
    """values (steps, terms, H, lanes): of the rows that each step adds to, from row first[step] on.

    ends: the step that completes each row, if rows follow each other and no step has more than two.
    """

    values: NDArray[np.float64]
    first: tuple[int, ...]
    ends: tuple[int, ...] | None


def _weights_by_step(
    exact: PartitionedProjection, particles: int, wide: int, steps: int
) -> _Weights:
    rows, stride = exact.rows(), exact.stride
    heads, partitions, length = rows.shape
    first = [min(step * wide // stride, partitions - 1) if stride else 0 for step in range(steps)]
    values = np.zeros((steps, partitions, heads, wide))
    terms = 1
    for n in range(particles):
        step, lane = divmod(n, wide)
        for c in range(partitions):
            if 0 <= (place := n - c * stride) < length:
                values[step, c - first[step], :, lane] = rows[:, c, place]
                terms = max(terms, c - first[step] + 1)
    ends = tuple((min((c + 1) * stride, particles) - 1) // wide for c in range(partitions))
    one_by_one = stride > 0 and terms <= 2 and len(set(ends)) == partitions
    return _Weights(values[:, :terms], tuple(first), ends if one_by_one else None)
