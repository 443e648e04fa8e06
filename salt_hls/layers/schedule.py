"""How a layer runs on streams: its loops, one step a clock, and the step of each transfer.

A tensor (rows, columns) travels as transfers of one row or, with several lanes, of that many rows.
The C++ loops of a layer do exactly what its processes say; everything about depths, throughput and
latency is computed from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Process:
    """A loop of `steps` iterations a jet, all of whose state lives inside it.

    name: of the loop within its layer. reads, writes: for each channel, the step at which each of
    its transfers is read or written, ascending. A channel is an input or output tensor of the
    layer's node, or has any other name and connects two of the layer's processes.
    """

    name: str
    steps: int
    reads: Mapping[str, Sequence[int]]
    writes: Mapping[str, Sequence[int]]


def transfers(variable: Any) -> int:
    """Transfers of a tensor a jet; the last one may be partly filled."""
    return int(math.ceil(math.prod(variable.shape) / token_size(variable)))


def token_size(variable: Any) -> int:
    """Values in one transfer of a stream variable."""
    return int(variable.type.n_elem * variable.type.n_pack)


def lanes(variable: Any) -> int:
    """Rows in one transfer of a stream variable."""
    return int(variable.type.n_pack)


def each_step(node: Any, name: str = "") -> Process:
    """The process of a layer that handles its tensors transfer by transfer."""
    steps = transfers(node.get_output_variable())
    return Process(
        name,
        steps,
        {tensor: range(steps) for tensor in node.inputs},
        {tensor: range(steps) for tensor in node.outputs},
    )
