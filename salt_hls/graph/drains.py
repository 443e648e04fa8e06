"""Drains: from the results of a kernel to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salt_hls.fixed import FixedType
from salt_hls.graph.loops import Drain, State, Token, when


@dataclass(frozen=True)
class Write(Drain):
    """Each result is a token, from step `first` on."""

    first: int = 0

    @property
    def transparent(self) -> bool:
        return self.first == 0

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
