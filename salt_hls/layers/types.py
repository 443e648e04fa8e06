"""The fixed-point types in a Keras layer's configuration."""

from __future__ import annotations

import math
from typing import Any

from salt_hls.errors import UserError
from salt_hls.fixed import MAX_WIDTH, FixedType


def declared_type(config: dict[str, Any], key: str = "output_type") -> FixedType:
    """The declared type under `key`; a layer without one is a float layer and has no firmware."""
    if config[key] is None:
        raise UserError(
            f"layer {config['name']}: no {key}, so it is a float layer and has no firmware; "
            "declare an ap_fixed type"
        )
    return FixedType.parse(config[key])


def weight_type(
    quantizer: dict[str, Any] | None, layer: str, position: str = "kernel"
) -> FixedType:
    """Type of the values of a QKeras quantizer, from its configuration.

    `quantized_bits(bits, integer, alpha=1)`: QKeras rounds half to even and clips; its `integer`
    excludes the sign, ours includes it. `binary` and `ternary` with alpha=1: -1, 0, 1.
    `quantized_po2`: all powers of two between its least and its greatest.
    Raises `UserError` for quantizers whose values are on no fixed grid.
    """
    if quantizer is None:
        raise UserError(
            f"layer {layer}: no {position} quantizer, so it has no fixed-point form; "
            "give quantized_bits(bits, integer, alpha=1)"
        )
    kind, config = quantizer["class_name"], quantizer["config"]
    if kind == "quantized_po2":
        least, greatest = _exponents(config)
        width = greatest - least + 2
        if width > MAX_WIDTH:
            raise UserError(
                f"layer {layer}: {position} quantizer {kind}({config['bits']}) has values from "
                f"2^{least} to 2^{greatest}, {width} bits; at most {MAX_WIDTH} can be built: "
                "give it fewer bits"
            )
        return FixedType(width, greatest + 2, True, "RND_CONV", "SAT")
    # Without alpha QKeras does not scale a bias; the kernel of a QDense it does.
    alpha = config.get("alpha")
    unscaled = _is_one(alpha) or (alpha is None and position == "bias")
    if kind in ("binary", "ternary") and unscaled:
        return FixedType(2, 2, True, "RND_CONV", "SAT_SYM")
    if kind != "quantized_bits" or not unscaled:
        raise UserError(
            f"layer {layer}: {position} quantizer {kind}(alpha={alpha}) is on no fixed grid; "
            "use quantized_bits(..., alpha=1)"
        )
    signed = bool(config.get("keep_negative", True))
    overflow = "SAT_SYM" if config.get("symmetric") else "SAT"
    return FixedType(
        int(config["bits"]),
        int(config["integer"]) + signed,
        signed,
        "RND_CONV",
        overflow,  # type: ignore[arg-type]
    )


def _exponents(config: dict[str, Any]) -> tuple[int, int]:
    """Least and greatest exponent of a `quantized_po2`."""
    most = config.get("max_value")
    exponent_bits = config["bits"] - 1 - (most is None or most > 1)
    least, greatest = -(2**exponent_bits), 2**exponent_bits - 1
    return least, min(greatest, math.ceil(math.log2(most))) if most else greatest


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, int | float) and float(alpha) == 1.0


def qkeras_text(fixed_type: FixedType) -> str:
    """The QKeras spelling of a weight type; its rounding is always RND_CONV, saturating."""
    if not fixed_type.signed or fixed_type.int_bits < 1:
        raise UserError(f"weight type {fixed_type}: must be signed with at least 1 integer bit")
    return f"quantized_bits({fixed_type.width},{fixed_type.int_bits - 1},alpha=1)"
