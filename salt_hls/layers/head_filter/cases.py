"""Conformance cases of `HeadFilter`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

W6 = "quantized_bits(6,0,alpha=1)"
OUT = "ap_fixed<8,4,RND,SAT>"


def _filter(heads: int, heights: tuple[int, ...], output_type: str = OUT) -> dict[str, object]:
    return {
        "heads": heads,
        "heights": heights,
        "kernel_quantizer": W6,
        "output_type": output_type,
    }


CASES = (
    Case("queries of SAL-T", _filter(4, (1, 3, 5)), (((8, 8), "ap_fixed<8,4>"),)),
    Case("keys of SAL-T", _filter(2, (4,)), (((4, 6), "ap_fixed<8,3>"),)),
    Case("fewer rows than the filter is high", _filter(1, (5,)), (((2, 3), "ap_fixed<7,4>"),)),
    Case("one row", _filter(2, (3,)), (((1, 4), "ap_fixed<8,4>"),)),
    Case("height 1", _filter(2, (1,), "ap_fixed<6,4,TRN,WRAP>"), (((5, 4), "ap_fixed<8,4>"),)),
    Case("even heights", _filter(1, (2, 4), "ap_fixed<8,4,RND_CONV,SAT_SYM>"),
         (((7, 2), "ap_ufixed<8,4>"),)),
)  # fmt: skip
