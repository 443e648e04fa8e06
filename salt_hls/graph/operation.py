"""What a node of the graph computes: one object for numbers, symbols and streams."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar

from salt_hls.fixed import Array, FixedType
from salt_hls.graph.drains import Write
from salt_hls.graph.feeds import Read
from salt_hls.graph.loops import Loop
from salt_hls.graph.tensor import Tensor


class Operation(ABC):
    """A frozen dataclass: its fields are all that its results depend on, besides the operands.

    Called with the operands, (..., *shape) with any batch axes, and an `Observer`, it gives the
    result, (..., *output shape). Operands are grid floats, and the result is what the hardware
    computes; or they are symbolic, and the result describes the hardware.
    """

    output_type: FixedType
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
    return Read(tensor.type.exact(), tensor.transfer_shape, tensor.channel, steps, held)
