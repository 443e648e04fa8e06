"""What a node of the graph computes: one object for numbers, symbols and streams."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar

from salt_hls.fixed import Array, ElementTypes, FixedType
from salt_hls.graph.drains import Collect, Write
from salt_hls.graph.feeds import Read, Window
from salt_hls.graph.loops import Drain, Loop
from salt_hls.graph.tensor import Channel, Tensor


class Operation(ABC):
    """A frozen dataclass: its fields are all that its results depend on, besides the operands.

    Called with the operands, (..., *shape) with any batch axes, and an `Observer`, it gives the
    result, (..., *output shape). Operands are grid floats, and the result is what the hardware
    computes; or they are symbolic, and the result describes the hardware. elements: types of the
    result's elements inside `output_type`, where they have their own.
    """

    output_type: FixedType
    elements: ElementTypes | None = None
    __call__: ClassVar[Callable[..., Array]]

    def output_lanes(self, input_lanes: int) -> int:
        """Rows in a transfer of the output, from those of the first input."""
        return input_lanes

    def loops(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> list[Loop] | None:
        """The loops of node `name` under io_stream, each after those it reads from.

        `None`: it has no such form.
        """
        return None


class TokenWise(Operation):
    """An operation that handles its tensors transfer by transfer and keeps nothing."""

    def loops(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> list[Loop] | None:
        steps = outputs[0].transfers
        names = [tensor.name for tensor in inputs]
        return [
            Loop(
                name,
                steps,
                {tensor.name: reading(tensor, steps) for tensor in inputs},
                {tensor.name: lambda v: self(*(v[n] for n in names)) for tensor in outputs},
                [Write((tensor.name,), tensor.channel, steps) for tensor in outputs],
            )
        ]


def reading(tensor: Tensor, steps: int, held: bool = False) -> Read:
    """A transfer of a tensor every step or, `held`, one that stays for all of them."""
    elements = tensor.elements and tensor.of_transfer(tensor.elements)
    return Read(tensor.type.exact(), tensor.transfer_shape, tensor.channel, steps, held, elements)


def sliding(
    name: str, result: str, kind: FixedType, rows: Tensor, columns: int, around: tuple[int, int]
) -> tuple[list[Drain], Window]:
    """Drains for the `result` of a loop of node `name`, and the window that its next loop sees.

    result: rows of `columns` values of type `kind`, as many of them and as many in a transfer as
    the tensor `rows` has. around: rows before and after each that the window shows. Those after
    travel together with the first one, so every step of the next loop emits.
    """
    (up, down), lanes, steps = around, rows.lanes, rows.transfers
    ahead = math.ceil(down / lanes)
    early = min(ahead, steps)
    size = lanes * columns
    drains: list[Drain] = []
    together = rest = None
    if early:
        together = Channel(f"{name}/early", kind, early * size)
        drains.append(Collect((result,), together, steps, early, size))
    if early < steps:
        rest = Channel(f"{name}/late", kind, size)
        drains.append(Write((result,), rest, steps, early))
    shape = (up + lanes + down, columns)
    return drains, Window(kind, shape, together, rest, rows.shape[0], lanes, steps, up, ahead)
