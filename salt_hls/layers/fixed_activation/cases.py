"""Conformance cases of `FixedActivation`."""

from __future__ import annotations

from typing import Any

import numpy as np

from salt_hls.layers.cases import Case


def _elements(
    name: str,
    function: str,
    output_type: str,
    given: tuple[tuple[int, ...], str],
    integer_bits: Any,
    fraction_bits: Any,
    streams: bool = True,
) -> Case:
    """A case of elements with these bits, or with bits from these to those, drawn."""
    shape, _ = given
    weights = {"integer_bits": integer_bits, "fraction_bits": fraction_bits}
    rng = np.random.default_rng(0)
    bits = {
        key: rng.uniform(value[0], value[1], shape)
        if isinstance(value, tuple)
        else np.broadcast_to(value, shape)
        for key, value in weights.items()
    }
    layer = {"function": function, "output_type": output_type, "elements": True}
    return Case(name, layer, (given,), bits, streams)


ALONE = np.where(np.arange(15).reshape(5, 3) == 7, 3.0, -9.0)
"""Bits of one element only."""

CASES = (
    Case(
        "relu to fewer bits, saturating",
        {"function": "relu", "output_type": "ap_ufixed<6,2,RND,SAT>"},
        (((5, 3), "ap_fixed<10,4>"),),
    ),
    Case(
        "linear, half to even",
        {"function": "linear", "output_type": "ap_fixed<6,3,RND_CONV,SAT>"},
        (((7,), "ap_fixed<11,5>"),),
    ),
    Case(
        "wrap around",
        {"function": "linear", "output_type": "ap_fixed<5,2,TRN,WRAP>"},
        (((9,), "ap_fixed<9,5>"),),
    ),
    Case(
        "symmetric saturation",
        {"function": "linear", "output_type": "ap_fixed<5,2,RND,SAT_SYM>"},
        (((9,), "ap_fixed<9,5>"),),
    ),
    Case(
        "one value, unsigned wrap",
        {"function": "linear", "output_type": "ap_ufixed<4,2,RND,WRAP>"},
        (((1,), "ap_fixed<9,5>"),),
    ),
    _elements(
        "elements: signed",
        "linear",
        "ap_fixed<8,4,RND,SAT>",
        ((5, 3), "ap_fixed<11,5>"),
        (-1.4, 4.4),
        (-1.4, 5.4),
        streams=False,
    ),
    _elements(
        "elements: relu, unsigned",
        "relu",
        "ap_ufixed<7,3,RND,SAT>",
        ((5, 3), "ap_fixed<11,5>"),
        (-1.4, 4.4),
        (-1.4, 5.4),
        streams=False,
    ),
    _elements(
        "elements: relu, signed, a vector",
        "relu",
        "ap_fixed<6,3,RND,SAT>",
        ((13,), "ap_fixed<9,5>"),
        (-1.4, 3.4),
        (-1.4, 3.4),
    ),
    _elements(
        "elements: bits below the point only",
        "linear",
        "ap_fixed<6,-1,RND,SAT>",
        ((4, 2), "ap_fixed<11,1>"),
        (-6.4, -1.6),
        (5.0, 7.4),
        streams=False,
    ),
    _elements(
        "elements: one alone",
        "linear",
        "ap_fixed<8,4,RND,SAT>",
        ((5, 3), "ap_fixed<11,5>"),
        ALONE,
        2.0,
        streams=False,
    ),
    _elements(
        "elements: by channel, the second pruned, the third of one bit",
        "linear",
        "ap_ufixed<7,3,RND,SAT>",
        ((5, 4), "ap_fixed<11,5>"),
        [2.6, 0.4, 1.0, 9.0],
        [1.0, -0.4, 0.0, 2.0],
    ),
)
