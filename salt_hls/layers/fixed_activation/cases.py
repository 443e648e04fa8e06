"""Conformance cases of `FixedActivation`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

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
)
