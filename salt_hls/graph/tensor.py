"""What travels between the nodes of a graph, and between the loops of a streaming design."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from salt_hls.fixed import ElementTypes, FixedType


def identifier(name: str) -> str:
    """A name as Verilog takes it."""
    return "".join(c if c.isalnum() else "_" for c in name)


@dataclass(frozen=True)
class Tensor:
    """Values of one type that pass from a node to others.

    shape: without the batch axis. lanes: under io_stream, the rows (all axes but the last) that
    travel in one transfer; the last transfer of a jet may be partly filled. elements: their own
    types inside `type`, where they have some.
    """

    name: str
    shape: tuple[int, ...]
    type: FixedType
    lanes: int = 1
    elements: ElementTypes | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.prod(self.shape[:-1])

    @property
    def transfer_shape(self) -> tuple[int, ...]:
        """Shape of a transfer."""
        columns = self.shape[-1]
        return (self.lanes, columns) if len(self.shape) > 1 else (columns,)

    @property
    def transfer_size(self) -> int:
        """Values in a transfer."""
        return self.lanes * self.shape[-1]

    @property
    def transfers(self) -> int:
        """Transfers of a jet."""
        return math.ceil(self.size / self.transfer_size)

    def of_transfer(self, elements: ElementTypes) -> ElementTypes | None:
        """The types of every transfer, from those of the tensor; `None` where they differ among
        the rows of a lane."""
        bits = np.stack([elements.integer_bits, elements.fraction_bits])
        rows = bits.reshape(2, self.rows, self.shape[-1])
        if np.any(rows != rows[:, np.arange(self.rows) % self.lanes]):
            return None
        i, f = rows[:, : self.lanes].reshape(2, *self.transfer_shape)
        return ElementTypes(elements.container, i, f)

    @property
    def channel(self) -> Channel:
        """The channel in which it travels, transfer by transfer."""
        return Channel(self.name, self.type.exact(), math.prod(self.transfer_shape))


@dataclass(frozen=True)
class Channel:
    """Tokens of `size` values of one type that travel from one loop to one other, through a FIFO.

    array: the C++ loops pass all tokens of a jet as one array, when the last one is there.
    """

    name: str
    type: FixedType
    size: int
    array: bool = False

    @property
    def identifier(self) -> str:
        """Its name in Verilog."""
        return f"c_{identifier(self.name)}"

    @property
    def bits(self) -> int:
        """Width of a token."""
        return self.size * self.type.width

    def bus(self, kind: str, signal: str, width: int | None = None) -> str:
        """Declaration of one of its signals."""
        return f"{kind} {f'[{width - 1}:0] ' if width else ''}{self.identifier}_{signal}"
