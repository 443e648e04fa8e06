"""How an operation runs on streams: loops of one step a clock, and the state around them.

In a step the `Feed`s of a loop make operands of the tokens that they read, the kernel computes
without any state, and the `Drain`s make the tokens that leave. Feeds and drains hold all state, so
a kernel may have a pipeline of any depth.

From the one description come the FIFO depths of the C++ (`graph/network.py`; the loops of a header
in hls_templates read and write as it says) and the units of the streaming RTL. Feeds and drains
have two forms: arrays, compared with the golden model, and Verilog.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import Array, FixedType
from salt_hls.graph.tensor import Channel

Token = NDArray[np.float64]
"""Grid floats (jets, values)."""

State = dict[str, Token]


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


@dataclass(frozen=True)
class Feed(ABC):
    """An operand of a kernel: an array of `shape`, every value of `type`."""

    type: FixedType
    shape: tuple[int, ...]

    @property
    def transparent(self) -> bool:
        """Whether nothing is kept: the operand is the token read in the same step, or a constant.

        The kernel may then have the value itself in place of a token.
        """
        return False

    @property
    def size(self) -> int:
        """Values of the operand."""
        return math.prod(self.shape)

    def narrow(self, operand: Array) -> Array:
        """The operand, (..., *shape), as the kernel has it: symbols without spare bits."""
        return operand

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
class Drain(ABC):
    """Makes the tokens of a channel of a kernel's results; `results` are their names."""

    results: tuple[str, ...]
    channel: Channel
    steps: int

    @property
    def transparent(self) -> bool:
        """Whether every step's token is the result itself, unchanged."""
        return False

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


Step = Callable[[Mapping[str, Array]], Array]


@dataclass
class Loop:
    """A loop of `steps` steps a jet around a kernel.

    feeds: by name of the operand. operations: by name of the value, in order, each a function of
    the values before it. The names are the loop's own.
    """

    name: str
    steps: int
    feeds: dict[str, Feed] = field(default_factory=dict)
    operations: dict[str, Step] = field(default_factory=dict)
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
            values[name] = feed.narrow(operand.reshape(*operand.shape[:-1], *feed.shape))
            leading = max(leading, operand.ndim - 1)
        for name, operation in self.operations.items():
            values[name] = operation(values)
        return [
            values[name].reshape(*values[name].shape[:leading], -1)
            for drain in self.drains
            for name in drain.results
        ]
