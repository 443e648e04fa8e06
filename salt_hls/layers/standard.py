"""The layers of hls4ml that taggers need besides ours, by the same rule: every sum is exact, and
rounded once to the declared type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import UNOBSERVED, Array, FixedType, Observer
from salt_hls.graph.drains import Maximum
from salt_hls.graph.loops import Loop
from salt_hls.graph.operation import Operation, TokenWise, reading
from salt_hls.graph.tensor import Tensor

Weights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dense(TokenWise):
    """y = Q(x kernel + bias) along the last axis: (..., inputs) to (..., outputs).

    kernel: (inputs, outputs). accum_type: holds every sum exactly, or wraps as C++ does.
    """

    kernel: Weights
    bias: Weights
    accum_type: FixedType
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        total = np.einsum("...i,io->...o", x, self.kernel) + self.bias
        return self.output_type.quantize(self.accum_type.quantize(total))


@dataclass(frozen=True)
class Windows:
    """Those of `width` rows that a convolution or a pooling sees, `stride` apart.

    before, after: rows of zeros around the tensor.
    """

    width: int
    stride: int
    before: int
    after: int

    def __call__(self, x: Array) -> list[Array]:
        """x (..., N, columns): entry j holds row j of every window."""
        zeros = [np.zeros((*x.shape[:-2], n, x.shape[-1])) for n in (self.before, self.after)]
        x = np.concatenate([zeros[0], x, zeros[1]], axis=-2)
        count = (x.shape[-2] - self.width) // self.stride + 1
        last = self.stride * (count - 1) + 1
        return [x[..., j : j + last : self.stride, :] for j in range(self.width)]


@dataclass(frozen=True, eq=False)
class Conv1D(Operation):
    """A dense layer over windows of particles."""

    windows: Windows
    dense: Dense
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.dense(np.concatenate(self.windows(x), axis=-1))


@dataclass(frozen=True, eq=False)
class Scale(Operation):
    """y = Q(x scale + bias), by column."""

    scale: Weights
    bias: Weights
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.output_type.quantize(x * self.scale + self.bias)


@dataclass(frozen=True)
class Activation(Operation):
    """y = Q(x) or Q(max(x, 0))."""

    function: Literal["linear", "relu"]
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.output_type.quantize(np.maximum(x, 0) if self.function == "relu" else x)


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "average": lambda x, y: (x + y) * 0.5,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@dataclass(frozen=True)
class Merge(TokenWise):
    """Two tensors of one shape, value by value; operator: one of `MERGES`."""

    operator: str
    output_type: FixedType

    def __call__(self, x: Array, y: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.output_type.quantize(MERGES[self.operator](x, y))


@dataclass(frozen=True)
class Clone(TokenWise):
    """The same values for several readers."""

    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return x


@dataclass(frozen=True)
class Concatenate(Operation):
    """Two tensors one after the other along an axis, which is counted from the last."""

    axis: int
    output_type: FixedType

    def __call__(self, x: Array, y: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.output_type.quantize(np.concatenate([x, y], axis=self.axis))


@dataclass(frozen=True)
class Reshape(Operation):
    """The same values in another shape; rank: axes of the input without those of the batch."""

    rank: int
    shape: tuple[int, ...]
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return x.reshape(*x.shape[: x.ndim - self.rank], *self.shape)


@dataclass(frozen=True)
class Transpose(Operation):
    """Axes in another order: axis i of the result is axis order[i] of the input."""

    order: tuple[int, ...]
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        batch = x.ndim - len(self.order)
        return x.transpose(*range(batch), *(batch + axis for axis in self.order))


@dataclass(frozen=True)
class GlobalPooling(Operation):
    """Maximum or mean over the rows, through the accumulator: (..., N, columns) to (..., columns).

    A mean is of a power of two of rows, which is exact.
    """

    function: Literal["max", "average"]
    accum_type: FixedType
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        if self.function == "max":
            return self.output_type.quantize(self.accum_type.quantize(np.max(x, axis=-2)))
        total = self.accum_type.quantize(np.sum(x, axis=-2))
        return self.output_type.quantize(total * (1 / x.shape[-2]))

    def loops(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> list[Loop] | None:
        """A running maximum; without its lanes beyond the last row in the last transfer."""
        (source,), (target,) = inputs, outputs
        types = {source.type.exact(), self.accum_type.exact(), self.output_type.exact()}
        if self.function != "max" or len(types) > 1:
            return None
        steps = source.transfers
        last = source.rows - (steps - 1) * source.lanes
        loop = Loop(name, steps, {source.name: reading(source, steps)})
        results = [f"{name}/all"]
        loop.operations[results[0]] = lambda v: self(v[source.name])
        if last < source.lanes:
            results.append(f"{name}/last")
            loop.operations[results[1]] = lambda v: self(v[source.name][..., :last, :])
        loop.drains.append(Maximum(tuple(results), target.channel, steps))
        return [loop]


@dataclass(frozen=True)
class Pooling(Operation):
    """Maximum or mean over windows of particles."""

    windows: Windows
    pool: GlobalPooling
    output_type: FixedType

    def __call__(self, x: Array, observer: Observer = UNOBSERVED) -> Array:
        return self.pool(np.stack(self.windows(x), axis=-2))
