"""Conformance cases of `ConvAttention`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

W6 = "quantized_bits(6,0,alpha=1)"
TYPES = {
    "logits": "ap_fixed<8,4,RND,SAT>",
    "conv": "ap_fixed<8,4,RND,SAT>",
    "exp": "ap_ufixed<8,1,RND,SAT>",
    "sum": "ap_ufixed<8,3>",
    "reciprocal": "ap_ufixed<8,1,RND,SAT>",
    "attention": "ap_ufixed<8,1,RND,SAT>",
    "output": "ap_fixed<8,4,RND,SAT>",
}
NO_CONV = {key: text for key, text in TYPES.items() if key != "conv"}
CONTEXT = {key: text for key, text in TYPES.items() if key != "attention"} | {
    "context": "ap_fixed<9,5,RND,SAT>"
}
BOUNDED = {
    "conv": "ap_fixed<6,2,RND,SAT>",
    "exp": "ap_ufixed<8,3,RND,SAT>",
    "sum": "ap_ufixed<9,5,RND,SAT>",
    "reciprocal": "ap_ufixed<8,2,RND,SAT>",
}
CLIPPED = {"sum": "ap_ufixed<10,3>", "reciprocal": "ap_ufixed<9,6,RND,SAT>"}
Q = "ap_fixed<8,3>"


def _inputs(
    particles: int, partitions: int, columns: int
) -> tuple[tuple[tuple[int, ...], str], ...]:
    return (((particles, columns), Q), ((partitions, columns), Q), ((partitions, columns), Q))


def _sal_t(heads: int, heights: tuple[int, ...], **options: object) -> dict[str, object]:
    return {
        "heads": heads,
        "filter_heights": heights,
        "kernel_quantizer": W6,
        "types": TYPES,
        **options,
    }


CASES = (
    Case("SAL-T", _sal_t(4, (1, 3, 5)), _inputs(8, 4, 16)),
    Case("fewer particles than the filter is high", _sal_t(2, (1, 3, 5)), _inputs(3, 3, 4)),
    Case("even heights, two partitions", _sal_t(2, (2, 4)), _inputs(6, 2, 6)),
    Case("one filter of height 1", _sal_t(1, (1,)), _inputs(5, 3, 4)),
    Case("one partition", _sal_t(2, (3,)), _inputs(4, 1, 4)),
    Case("no convolution (Linformer)", {"heads": 2, "types": NO_CONV}, _inputs(6, 4, 8)),
    Case(
        "full attention",
        {"heads": 2, "types": {**NO_CONV, "sum": "ap_ufixed<9,4>"}},
        _inputs(6, 6, 4),
    ),
    Case(
        "normalized after the context, scaled in the table",
        _sal_t(2, (1, 3), normalize="context", scale="table", types=CONTEXT),
        _inputs(5, 4, 6),
    ),
    Case(
        "exp of the logits themselves",
        _sal_t(2, (3,), stable=False, types=TYPES | BOUNDED),
        _inputs(6, 4, 8),
    ),
    Case(
        "exp of logits beyond both ends of its type",
        _sal_t(2, (1,), stable=False, types=TYPES | CLIPPED),
        _inputs(6, 3, 8),
    ),
    Case(
        "all three, unsigned logits, no convolution",
        {
            "heads": 1,
            "types": {key: t for key, t in (CONTEXT | BOUNDED).items() if key != "conv"}
            | {"logits": "ap_ufixed<6,2,RND,SAT>"},
            "stable": False,
            "normalize": "context",
            "scale": "table",
        },
        _inputs(5, 4, 8),
    ),
    Case(
        "narrow and coarse",
        {
            "heads": 1,
            "filter_heights": (3,),
            "kernel_quantizer": "quantized_bits(4,0,alpha=1)",
            "types": {
                "logits": "ap_fixed<6,4,TRN,WRAP>",
                "conv": "ap_fixed<5,3,RND,SAT>",
                "exp": "ap_ufixed<4,0,RND,SAT>",
                "sum": "ap_ufixed<5,2,RND,SAT>",
                "reciprocal": "ap_ufixed<4,1,RND,SAT>",
                "attention": "ap_ufixed<4,0,RND,SAT>",
                "output": "ap_fixed<6,3,RND_CONV,SAT>",
            },
        },
        _inputs(5, 4, 4),
    ),
)
