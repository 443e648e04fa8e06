"""Conformance cases of `HeadDense`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

CASES = (
    Case(
        "four heads",
        {
            "heads": 4,
            "depth": 4,
            "kernel_quantizer": "quantized_bits(6,0,alpha=1)",
            "output_type": "ap_fixed<8,4,RND,SAT>",
        },
        (((3, 16), "ap_fixed<8,4>"),),
    ),
    Case(
        "one head, wide to narrow",
        {
            "heads": 1,
            "depth": 2,
            "kernel_quantizer": "quantized_bits(4,1,alpha=1)",
            "output_type": "ap_fixed<7,4,RND_CONV,WRAP>",
        },
        (((2, 9), "ap_ufixed<6,2>"),),
    ),
    Case(
        "narrow to wide",
        {
            "heads": 3,
            "depth": 5,
            "kernel_quantizer": "quantized_bits(3,0,alpha=1)",
            "output_type": "ap_fixed<9,4,TRN,SAT_SYM>",
        },
        (((1, 3), "ap_fixed<9,4>"),),
    ),
)
