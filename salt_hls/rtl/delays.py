"""The table of delays: what every operation, and every primitive of a netlist, is taken to need.

An adder, a multiplexer and a table are alkaid's, which its authors fitted to designs routed for
VU13P; each has the wire that leads to it. docs/hardware.md says how far they are from published
post-route results. The rest is made of them.
"""

from __future__ import annotations

ADDER_NS, ADDER_BIT_NS = 1.09375, 0.025390625
"""An adder of one bit, and each further bit of its carry chain."""

LUT_NS = 0.5
"""A look-up table and the wire to it: a multiplexer, bitwise logic, a selected multiple,
a counter."""

CONSTANT_ADDER_NS = 0.7
"""Adding a constant: a carry chain, of which alkaid counts nothing."""

WIDE_LUT_NS = 0.2
"""Each input more than six: a multiplexer of the slice that joins look-up tables."""

CARRY_NS = ADDER_NS - LUT_NS
"""Into a carry chain and out of it; the look-up table before it makes it an adder."""

CARRY4_NS = 4 * ADDER_BIT_NS
"""Through four more bits of a carry chain."""

CLOCK_UNCERTAINTY = 0.1
"""Share of the clock period that is for registers and jitter; the logic gets the rest."""


def adder_ns(bits: int) -> float:
    """An adder whose carry chain has so many bits."""
    return ADDER_NS + ADDER_BIT_NS * (max(bits, 1) - 1)


def stage_budget(clock_ns: float) -> float:
    """Greatest delay of a pipeline stage for a clock period, both in nanoseconds.

    An operation longer than that gets a stage of its own.
    """
    return clock_ns * (1 - CLOCK_UNCERTAINTY)


def period_for(delay_ns: float) -> float:
    """The clock period that logic of this delay needs, to the picosecond."""
    return round(delay_ns / (1 - CLOCK_UNCERTAINTY), 3)
