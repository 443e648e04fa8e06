"""The fixed-point types in a Keras layer's configuration."""

from __future__ import annotations

from typing import Any

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType


def declared_type(config: dict[str, Any], key: str = "output_type") -> FixedType:
    """The declared type under `key`; a layer without one is a float layer and has no firmware."""
    if config[key] is None:
        raise UserError(
            f"layer {config['name']}: no {key}, so it is a float layer and has no firmware; "
            "declare an ap_fixed type"
        )
    return FixedType.parse(config[key])


def weight_type(quantizer: dict[str, Any] | None, layer: str) -> FixedType:
    """Type of a `quantized_bits(bits, integer, alpha=1)` configuration.

    QKeras rounds half to even and clips; its `integer` excludes the sign, ours includes it.
    Raises `UserError` for quantizers whose values are on no fixed grid.
    """
    if quantizer is None:
        raise UserError(
            f"layer {layer}: no weight quantizer, so it has no fixed-point form; "
            "give quantized_bits(bits, integer, alpha=1)"
        )
    config = quantizer["config"]
    if quantizer["class_name"] != "quantized_bits" or not _is_one(config.get("alpha")):
        raise UserError(
            f"layer {layer}: weight quantizer {quantizer['class_name']}"
            f"(alpha={config.get('alpha')}) is on no fixed grid; use quantized_bits(..., alpha=1)"
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


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, int | float) and float(alpha) == 1.0


def qkeras_text(fixed_type: FixedType) -> str:
    """The QKeras spelling of a weight type; its rounding is always RND_CONV, saturating."""
    if not fixed_type.signed or fixed_type.int_bits < 1:
        raise UserError(f"weight type {fixed_type}: must be signed with at least 1 integer bit")
    return f"quantized_bits({fixed_type.width},{fixed_type.int_bits - 1},alpha=1)"
