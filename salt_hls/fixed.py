"""Fixed-point types and their arithmetic, once, for Python, `ap_fixed` and RTL.

A value of type `ap_fixed<W, I>` is k / 2**(W - I) for an integer k of W bits; I counts the sign
bit. Arrays hold such values as float64 ("grid floats"), exact below 53 bits, or as alkaid symbolic
arrays, which then describe the same computation as hardware. `FixedType.quantize`,
`ElementTypes.quantize` and `lookup` accept both; so does everything written with them, `np.einsum`,
`np.max` and `+`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError

Rounding = Literal["TRN", "RND", "RND_CONV"]
Overflow = Literal["WRAP", "SAT", "SAT_SYM"]
ROUNDINGS: tuple[Rounding, ...] = ("TRN", "RND", "RND_CONV")
OVERFLOWS: tuple[Overflow, ...] = ("WRAP", "SAT", "SAT_SYM")

MAX_WIDTH = 48
"""Widest supported value: sums of such products stay exact in float64."""

FLOAT32_BITS = 24
"""float32, in which Keras computes, holds numbers of this many bits (and a sign) exactly."""

MAX_TABLE_BITS = 16
"""Widest argument of a table: 2**16 entries, a constant in C++ and memory in the FPGA."""

Array = Any
"""Grid floats (`NDArray[np.float64]`) or a symbolic array with the same methods."""

_PATTERN = re.compile(r"^(?:ap_)?(u?)fixed<\s*(\d+)\s*,\s*(-?\d+)\s*((?:,\s*\w+\s*){0,2})>$")


@dataclass(frozen=True)
class FixedType:
    """The type `ap_[u]fixed<width, int_bits, rounding, overflow>` of the ap_types standard.

    rounding: TRN (toward minus infinity), RND (half up), RND_CONV (half to even).
    overflow: WRAP (modulo 2**width), SAT (clip), SAT_SYM (clip to +-max).
    """

    width: int
    int_bits: int
    signed: bool = True
    rounding: Rounding = "TRN"
    overflow: Overflow = "WRAP"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_WIDTH:
            raise UserError(f"{self}: width must be 1 ... {MAX_WIDTH}, got {self.width}")
        if self.rounding not in ROUNDINGS or self.overflow not in OVERFLOWS:
            raise UserError(
                f"{self}: rounding must be one of {', '.join(ROUNDINGS)} and overflow one of "
                f"{', '.join(OVERFLOWS)}"
            )

    @staticmethod
    def parse(text: str) -> FixedType:
        """Reads `ap_fixed<8,3,AP_RND,AP_SAT>`; `ap_` and `AP_` may be left out.

        Raises `UserError` when the text is not such a type.
        """
        found = _PATTERN.match(text.strip())
        if not found:
            raise UserError(
                f"type {text!r}: expected ap_fixed<W,I[,rounding[,overflow]]> or ap_ufixed<...>, "
                "for example ap_fixed<8,3,RND,SAT>"
            )
        unsigned, width, int_bits, modes = found.groups()
        if len(width) > 3 or len(int_bits) > 3:
            raise UserError(
                f"type {text[:60]!r}: width must be 1 ... {MAX_WIDTH}, and the number of integer "
                "bits about as large"
            )
        names = [m.strip().removeprefix("AP_") for m in modes.split(",") if m.strip()]
        rounding = next((n for n in names if n in ROUNDINGS), "TRN")
        overflow = next((n for n in names if n in OVERFLOWS), "WRAP")
        unknown = [n for n in names if n not in (rounding, overflow)]
        if unknown:
            raise UserError(f"type {text!r}: unknown rounding or overflow {unknown[0]!r}")
        return FixedType(
            int(width),
            int(int_bits),
            not unsigned,
            cast(Rounding, rounding),
            cast(Overflow, overflow),
        )

    def __str__(self) -> str:
        """The C++ spelling."""
        prefix = "" if self.signed else "u"
        modes = (
            ""
            if (self.rounding, self.overflow) == ("TRN", "WRAP")
            else f",AP_{self.rounding},AP_{self.overflow}"
        )
        return f"ap_{prefix}fixed<{self.width},{self.int_bits}{modes}>"

    @property
    def frac_bits(self) -> int:
        """Bits right of the binary point; the step is 2**-frac_bits."""
        return self.width - self.int_bits

    @property
    def lsb(self) -> float:
        """Distance of neighbouring values."""
        return 2.0**-self.frac_bits

    @property
    def max(self) -> float:
        """Largest value."""
        return (2.0 ** (self.width - self.signed) - 1) * self.lsb

    @property
    def min(self) -> float:
        """Smallest value that quantization gives (SAT_SYM leaves out the most negative code)."""
        if not self.signed:
            return 0.0
        return -self.max if self.overflow == "SAT_SYM" else -(2.0 ** (self.width - 1)) * self.lsb

    def exact(self) -> FixedType:
        """The same grid with the free modes TRN and WRAP, for values that fit."""
        return FixedType(self.width, self.int_bits, self.signed)

    def quantize(self, x: Array) -> Array:
        """Rounds, then handles overflow, as the assignment to an `ap_fixed` variable does."""
        if hasattr(x, "quantize"):
            k = int(self.signed)
            return x.quantize(k, self.int_bits - k, self.frac_bits, self.overflow, self.rounding)
        return self.round_codes(np.asarray(x, np.float64) * 2.0**self.frac_bits) * self.lsb

    def round_codes(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Codes (whole numbers as float64) of values given in units of the LSB."""
        if self.rounding == "TRN":
            code = np.floor(scaled)
        elif self.rounding == "RND":
            code = np.floor(scaled + 0.5)
        else:
            code = np.rint(scaled)
        if self.overflow == "WRAP":
            low = -(2.0 ** (self.width - 1)) if self.signed else 0.0
            wrapped: NDArray[np.float64] = np.mod(code - low, 2.0**self.width) + low
            return wrapped
        return np.clip(code, self.min / self.lsb, self.max / self.lsb)

    def codes(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """Integer codes of values that are on this grid."""
        return np.asarray(np.rint(np.asarray(x, np.float64) * 2.0**self.frac_bits), np.int64)

    def contains(self, x: NDArray[np.float64]) -> bool:
        """Whether every value is finite, on the grid and in range."""
        x = np.asarray(x, np.float64)
        return bool(np.all(np.isfinite(x))) and bool(np.array_equal(self.quantize(x), x))

    def __mul__(self, other: FixedType) -> FixedType:
        """Type of the exact product."""
        return FixedType(
            self.width + other.width, self.int_bits + other.int_bits, self.signed or other.signed
        )

    def __add__(self, other: FixedType) -> FixedType:
        """Type of the exact sum."""
        signed = self.signed or other.signed
        int_bits = 1 + max(t.int_bits + (signed and not t.signed) for t in (self, other))
        return FixedType(int_bits + max(self.frac_bits, other.frac_bits), int_bits, signed)

    def sum_of(self, terms: int) -> FixedType:
        """Type of the exact sum of `terms` values."""
        growth = math.ceil(math.log2(terms)) if terms > 1 else 0
        return FixedType(self.width + growth, self.int_bits + growth, self.signed)

    def difference(self) -> FixedType:
        """Type of a - b for a >= b, both of this type."""
        return FixedType(self.width, self.int_bits, signed=False)


@dataclass(frozen=True, eq=False)
class ElementTypes:
    """A type for each element of a tensor, its grid inside that of the `container`.

    integer_bits, fraction_bits: whole numbers i and f of the tensor's shape; i does not count the
    sign. With k = 1 for a signed container, an element has the step 2**-f and the range
    -k 2**i ... 2**i - 2**-f, is rounded half up and saturates. One without magnitude bits,
    i + f <= 0, is pruned: it is 0, and kept as i = f = 0.
    """

    container: FixedType
    integer_bits: NDArray[np.int64]
    fraction_bits: NDArray[np.int64]

    @staticmethod
    def check_container(container: FixedType, name: str) -> None:
        """Raises `UserError` when a container's values are not handled as elements are."""
        if (container.rounding, container.overflow) != ("RND", "SAT"):
            right = replace(container, rounding="RND", overflow="SAT")
            raise UserError(
                f"layer {name}: elements with widths of their own are rounded RND and saturate "
                f"SAT, their output_type is {container}; give {right}"
            )

    @staticmethod
    def of(
        container: FixedType,
        integer_bits: NDArray[np.floating[Any]],
        fraction_bits: NDArray[np.floating[Any]],
        name: str,
    ) -> ElementTypes:
        """From the trained numbers of bits of the layer `name`: rounded, and clipped to the
        container's.

        Raises `UserError` for numbers that are not finite, and when every element is pruned.
        """
        ElementTypes.check_container(container, name)
        for what, bits in (("integer_bits", integer_bits), ("fraction_bits", fraction_bits)):
            if not np.all(np.isfinite(bits)):
                raise UserError(f"layer {name}: weight {what} holds NaN or infinity; retrain it")
        most_i, most_f = container.int_bits - container.signed, container.frac_bits
        i = np.clip(np.rint(integer_bits), -most_f, most_i).astype(np.int64)
        f = np.clip(np.rint(fraction_bits), -most_i, most_f).astype(np.int64)
        kept = i + f > 0
        if not np.any(kept):
            raise UserError(
                f"layer {name}: every element is pruned (no bits are left), so its output is 0 "
                "for every input; train it with a lower price on bits"
            )
        return ElementTypes(container, np.where(kept, i, 0), np.where(kept, f, 0))

    @property
    def pruned(self) -> NDArray[np.bool_]:
        """Elements that are 0."""
        return np.asarray(self.integer_bits + self.fraction_bits <= 0)

    @property
    def widths(self) -> NDArray[np.int64]:
        """Bits of every element, with the sign; 0 where pruned."""
        bits = self.integer_bits + self.fraction_bits
        return np.where(self.pruned, 0, bits + self.container.signed)

    def quantize(self, x: Array) -> Array:
        """Rounds, then clips, x (..., *shape of the tensor), as the C++ and the RTL do."""
        k = np.where(self.pruned, 0, int(self.container.signed))
        i, f = self.integer_bits, self.fraction_bits
        if hasattr(x, "quantize"):
            return x.quantize(k, i, f, "SAT", "RND")
        low, high = -k * 2.0 ** (i + f), 2.0 ** (i + f) - 1
        return np.asarray(np.clip(self._codes(x), low, high) * 2.0**-f)

    def narrow(self, x: Array) -> Array:
        """Values that are on their grids; symbols lose the bits that elements do not have."""
        if hasattr(x, "quantize"):
            k = np.where(self.pruned, 0, int(self.container.signed))
            return x.quantize(k, self.integer_bits, self.fraction_bits)
        return x

    def overflowed(self, x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where the range of an element that is kept changes x, (..., *shape of the tensor)."""
        rounded = self._codes(x) * 2.0**-self.fraction_bits
        return np.asarray((rounded != self.quantize(x)) & ~self.pruned)

    def _codes(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """In steps of each element, rounded half up."""
        return np.asarray(np.floor(np.asarray(x, np.float64) * 2.0**self.fraction_bits + 0.5))


@dataclass(frozen=True, eq=False)
class Table:
    """A function tabulated on a grid: entry i is its value at `first + i * source.lsb`.

    The entries are grid floats of `result`. One object serves the golden model, the C++ constants
    and the RTL.
    """

    source: FixedType
    result: FixedType
    first: float
    entries: NDArray[np.float64]

    def index(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """Entry numbers of grid values."""
        return np.asarray(np.rint((x - self.first) * 2.0**self.source.frac_bits), np.int64)

    def by_bits(self) -> NDArray[np.float64]:
        """Entries by the bit pattern of the argument (two's complement), as ROMs are addressed."""
        return np.roll(self.entries, -int(self.index(np.zeros(1))[0]))


def check_table(argument: FixedType, name: str) -> None:
    """Raises `UserError` when a table of this argument would be too large to be built."""
    if argument.width > MAX_TABLE_BITS:
        raise UserError(
            f"{name}: its table would have 2^{argument.width} entries; "
            f"give it at most {MAX_TABLE_BITS} bits"
        )


def lookup(table: Table, x: Array) -> Array:
    """`table` at values on its source grid; symbolic arrays become look-up tables."""
    if hasattr(x, "apply"):
        # A symbolic range may reach one step beyond what can occur; those entries are never read.
        reach = len(table.entries) - 1
        symbolic = x.apply(lambda v: table.entries[np.clip(table.index(v), 0, reach)])
        return table.result.exact().quantize(symbolic)
    return table.entries[table.index(np.asarray(x, np.float64))]


class Observer:
    """How an arithmetic rounds and looks up its named tensors; a subclass may look at them."""

    def rounded(self, name: str, to: FixedType | ElementTypes, exact: Array) -> Array:
        """`exact` values, rounded to the declared type, or types, of the tensor `name`."""
        return to.quantize(exact)

    def looked_up(self, name: str, table: Table, argument: Array) -> Array:
        """The tensor `name`: `table` at `argument`."""
        return lookup(table, argument)


UNOBSERVED = Observer()
