"""How well tensors use their declared types, counted while the golden arithmetic runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from salt_hls.fixed import MAX_WIDTH, Array, ElementTypes, FixedType, Observer, Table


class TensorUse(BaseModel):
    """Use of one tensor's type.

    at_min, at_max: share of values at the type's limits. overflowed: share of values that the
    limits changed (clipped by SAT, folded by WRAP); `None` where values come from a
    table or, as the inputs, are rounded elsewhere.
    unused_high_bits: bits the values seen could do without at the top; unused_low_bits: bits at the
    bottom that are always zero. constant: only one value was seen.
    """

    name: str
    type: str
    values: int
    at_min: float
    at_max: float
    overflowed: float | None
    unused_high_bits: int
    unused_low_bits: int
    constant: bool


class TableUse(BaseModel):
    """Use of one table: entries in all, entries that no value looked up, and their share."""

    name: str
    entries: int
    dead: int
    dead_share: float


class HeadUse(BaseModel):
    """Attention of one head, averaged over jets and particles.

    weights: mean weight of each partition. spread: mean difference of a particle's largest and
    smallest weight; 0 when every particle attends to all partitions alike.
    """

    layer: str
    head: int
    weights: list[float]
    spread: float


class _Tensor:
    """Counts of one tensor, batch by batch."""

    def __init__(self, fixed_type: FixedType) -> None:
        self.type = fixed_type
        self.values = self.at_min = self.at_max = self.bits = 0
        self.overflowed: int | None = None
        self.least, self.most = 2**MAX_WIDTH, -(2**MAX_WIDTH)

    def add(self, values: NDArray[np.float64]) -> None:
        codes = self.type.codes(values)
        self.values += codes.size
        self.at_min += int((values == self.type.min).sum())
        self.at_max += int((values == self.type.max).sum())
        self.bits |= int(np.bitwise_or.reduce(codes, axis=None))  # type: ignore[call-overload]
        self.least = min(self.least, int(np.min(codes)))
        self.most = max(self.most, int(np.max(codes)))

    def use(self, name: str) -> TensorUse:
        largest = max(self.most, -self.least - 1, 0)
        needed = largest.bit_length() + self.type.signed
        low = (self.bits & -self.bits).bit_length() - 1 if self.bits else self.type.width
        return TensorUse(
            name=name,
            type=str(self.type),
            values=self.values,
            at_min=self.at_min / self.values,
            at_max=self.at_max / self.values,
            overflowed=None if self.overflowed is None else self.overflowed / self.values,
            unused_high_bits=max(self.type.width - needed, 0),
            unused_low_bits=low,
            constant=self.least == self.most,
        )


class _Attention:
    """Running mean of attention weights and of their spread over the partitions."""

    def __init__(self, heads: int, partitions: int) -> None:
        self.rows = 0
        self.weights = np.zeros((heads, partitions))
        self.spread = np.zeros(heads)

    def add(self, attention: NDArray[np.float64]) -> None:
        """attention: (jets, heads, particles, partitions)."""
        self.rows += attention.shape[0] * attention.shape[2]
        self.weights += attention.sum(axis=(0, 2))
        self.spread += (attention.max(axis=-1) - attention.min(axis=-1)).sum(axis=(0, 2))

    def use(self, layer: str) -> list[HeadUse]:
        return [
            HeadUse(layer=layer, head=h, weights=list(weights / self.rows), spread=s / self.rows)
            for h, (weights, s) in enumerate(zip(self.weights, self.spread, strict=True))
        ]


class Tally:
    """Observers that count, and what they counted."""

    def __init__(self) -> None:
        self._tensors: dict[str, _Tensor] = {}
        self._tables: dict[str, NDArray[np.bool_]] = {}
        self._attention: dict[str, _Attention] = {}

    def observer(self, layer: str) -> Observer:
        """What counts the tensors of one layer, as <layer>.<tensor>."""
        return _Counter(self, layer)

    def tensors(self) -> list[TensorUse]:
        """In the order in which values pass them."""
        return [tensor.use(name) for name, tensor in self._tensors.items()]

    def tables(self) -> list[TableUse]:
        """Tables by the tensor they give."""
        uses = []
        for name, seen in self._tables.items():
            dead = int((~seen).sum())
            uses.append(
                TableUse(name=name, entries=len(seen), dead=dead, dead_share=dead / len(seen))
            )
        return uses

    def heads(self) -> list[HeadUse]:
        """Every head of every attention layer."""
        return [use for layer, attention in self._attention.items() for use in attention.use(layer)]

    def add_attention(self, layer: str, attention: Array) -> None:
        """Counts attention weights (jets, heads, particles, partitions)."""
        shape = attention.shape
        self._attention.setdefault(layer, _Attention(shape[1], shape[3])).add(attention)

    def add_values(self, name: str, fixed_type: FixedType, values: Array) -> None:
        """Counts values (any shape) that are on their grid already."""
        self._tensors.setdefault(name, _Tensor(fixed_type)).add(values)

    def add_rounded(
        self, name: str, to: FixedType | ElementTypes, exact: Array, rounded: Array
    ) -> None:
        """Counts values (any shape) before and after they were rounded."""
        if isinstance(to, ElementTypes):
            container, changed = to.container, to.overflowed(exact)
        else:
            container = to
            wide = FixedType(MAX_WIDTH, MAX_WIDTH - to.frac_bits, True, to.rounding)
            changed = wide.quantize(exact) != rounded
        self.add_values(name, container, rounded)
        tensor = self._tensors[name]
        tensor.overflowed = (tensor.overflowed or 0) + int(changed.sum())

    def add_looked_up(self, name: str, table: Table, argument: Array, values: Array) -> None:
        """Counts values looked up, and which entries they were."""
        self.add_values(name, table.result, values)
        seen = self._tables.setdefault(name, np.zeros(len(table.entries), bool))
        seen[table.index(argument)] = True


class _Counter(Observer):
    def __init__(self, tally: Tally, layer: str) -> None:
        self.tally, self.layer = tally, layer

    def rounded(self, name: str, to: FixedType | ElementTypes, exact: Array) -> Array:
        values = super().rounded(name, to, exact)
        self.tally.add_rounded(f"{self.layer}.{name}", to, exact, values)
        if name == "attention":
            self.tally.add_attention(self.layer, values)
        return values

    def looked_up(self, name: str, table: Table, argument: Array) -> Array:
        values = super().looked_up(name, table, argument)
        self.tally.add_looked_up(f"{self.layer}.{name}", table, argument, values)
        return values
