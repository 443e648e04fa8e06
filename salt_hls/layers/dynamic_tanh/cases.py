"""Conformance cases of `DynamicTanh`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

CASES = (
    Case(
        "residual sum, rounded into the table",
        {"input_type": "ap_fixed<8,3,RND,SAT>", "output_type": "ap_fixed<8,1,RND,SAT>"},
        (((5, 4), "ap_fixed<14,6>"),),
    ),
    Case(
        "unsigned argument",
        {"input_type": "ap_ufixed<6,2,RND,SAT>", "output_type": "ap_fixed<6,1,RND_CONV,SAT>"},
        (((7,), "ap_ufixed<9,3>"),),
    ),
    Case(
        "argument wraps",
        {"input_type": "ap_fixed<7,3,TRN,WRAP>", "output_type": "ap_fixed<10,2,TRN,WRAP>"},
        (((3, 3), "ap_fixed<10,5>"),),
    ),
)
