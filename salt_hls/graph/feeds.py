"""Feeds: from tokens to the operands of a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import Array, ElementTypes
from salt_hls.graph.loops import Feed, State, Token, when
from salt_hls.graph.tensor import Channel


@dataclass(frozen=True)
class Read(Feed):
    """A token every step or, `held`, one token for all of them.

    elements: types of the operand's, where they are narrower than `type`.
    """

    channel: Channel
    steps: int
    held: bool = False
    elements: ElementTypes | None = None

    @property
    def transparent(self) -> bool:
        return not self.held

    def narrow(self, operand: Array) -> Array:
        return self.elements.narrow(operand) if self.elements else operand

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

    @property
    def transparent(self) -> bool:
        return True

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
