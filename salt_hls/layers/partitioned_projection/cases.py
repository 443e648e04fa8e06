"""Conformance cases of `PartitionedProjection`."""

from __future__ import annotations

from salt_hls.layers.cases import Case

W6 = "quantized_bits(6,0,alpha=1)"
OUT = "ap_fixed<8,4,RND,SAT>"
IN = "ap_fixed<8,3>"

CASES = (
    Case(
        "four chunks",
        {"heads": 2, "partitions": 4, "kernel_quantizer": W6, "output_type": OUT},
        (((8, 4), IN),),
    ),
    Case(
        "p does not divide N",
        {"heads": 2, "partitions": 3, "kernel_quantizer": W6, "output_type": OUT},
        (((7, 4), IN),),
    ),
    Case(
        "a chunk beyond the particles",
        {"heads": 1, "partitions": 4, "kernel_quantizer": W6, "output_type": OUT},
        (((5, 2), IN),),
    ),
    Case(
        "p = N",
        {"heads": 2, "partitions": 4, "kernel_quantizer": W6, "output_type": OUT},
        (((4, 4), IN),),
    ),
    Case(
        "p = 1",
        {"heads": 2, "partitions": 1, "kernel_quantizer": W6, "output_type": OUT},
        (((6, 4), IN),),
    ),
    Case(
        "projection before the key matrix",
        {
            "heads": 3,
            "partitions": 3,
            "broadcast": True,
            "kernel_quantizer": "quantized_bits(5,1,alpha=1)",
            "output_type": "ap_fixed<9,5,RND_CONV,SAT>",
        },
        (((7, 4), "ap_ufixed<7,3>"),),
    ),
    Case(
        "dense (Linformer)",
        {
            "heads": 2,
            "partitions": 3,
            "mode": "dense",
            "kernel_quantizer": W6,
            "output_type": "ap_fixed<8,4,TRN,WRAP>",
        },
        (((7, 4), IN),),
    ),
    Case(
        "dense, projection first",
        {
            "heads": 2,
            "partitions": 3,
            "mode": "dense",
            "broadcast": True,
            "kernel_quantizer": W6,
            "output_type": OUT,
        },
        (((5, 3), IN),),
    ),
)
