"""The graph that firmware is made from. Executed on grid floats it is the golden model, on symbolic
arrays the RTL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from salt_hls.errors import UserError
from salt_hls.fixed import UNOBSERVED, Array, Observer
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import Operation
from salt_hls.graph.tensor import Tensor

IoType = Literal["io_parallel", "io_stream"]


@dataclass(frozen=True)
class Node:
    """An operation, and the tensors it reads and gives; an input has no operation.

    kind: what hls4ml calls it. traced: whether C-simulation records its output. keras_layer: the
    layer of the Keras model whose output it computes, if it has a partner there.
    """

    name: str
    kind: str
    operation: Operation | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    traced: bool
    keras_layer: str

    @property
    def output(self) -> Tensor:
        """The result; several outputs have the same values."""
        return self.outputs[0]

    def loops(self) -> list[Loop]:
        """How it runs under io_stream; `UserError` where it has no such form."""
        if self.operation is None:
            return []
        loops = self.operation.loops(self.name, self.inputs, self.outputs)
        if loops is None:
            raise UserError(
                f"layer {self.name}: {self.kind} has no io_stream form here; "
                "use io_type io_parallel"
            )
        return loops


@dataclass(frozen=True)
class Graph:
    """Nodes, each after those it reads from; tensors that enter and leave."""

    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    io_type: IoType

    def node(self, name: str) -> Node:
        """The node of this name."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def output_nodes(self) -> list[Node]:
        """The nodes that give the outputs, in order."""
        by_tensor = {tensor.name: node for node in self.nodes for tensor in node.outputs}
        return [by_tensor[tensor.name] for tensor in self.outputs]

    def loops(self) -> list[Loop]:
        """How it runs under io_stream: each loop after those it reads from, under a name of its
        own; `UserError` for a node that has no such form."""
        found: dict[str, Loop] = {}
        for node in self.nodes:
            for loop in node.loops():
                while loop.name in found:
                    loop.name += "_"
                found[loop.name] = loop
        return list(found.values())

    def run(
        self,
        inputs: Sequence[Array],
        observers: Callable[[str], Observer] = lambda name: UNOBSERVED,
    ) -> dict[str, Array]:
        """Every node's output by node name, in graph order.

        inputs: one array for each input, (..., *shape) with any batch axes, on its grid. observers:
        by node name, what sees the tensors inside an operation.
        """
        values: dict[str, Array] = {}
        results: dict[str, Array] = {}
        waiting = list(inputs)
        for node in self.nodes:
            if node.operation is None:
                result = waiting.pop(0)
            else:
                operands = [values[tensor.name] for tensor in node.inputs]
                result = node.operation(*operands, observers(node.name))
            values |= {tensor.name: result for tensor in node.outputs}
            results[node.name] = result
        return results

    def by_name(self) -> Mapping[str, Tensor]:
        """All tensors."""
        return {tensor.name: tensor for node in self.nodes for tensor in node.outputs}
