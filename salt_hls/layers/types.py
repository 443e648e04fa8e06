"""The fixed-point types in a Keras layer's configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salt_hls.errors import UserError
from salt_hls.fixed import FLOAT32_BITS, MAX_WIDTH, FixedType, check_table


def declared_type(
    config: Mapping[str, Any], key: str = "output_type", table: bool = False
) -> FixedType:
    """The declared type under `key`; a layer without one is a float layer and has no firmware.

    table: whether its values are the arguments of a table.
    """
    if config[key] is None:
        raise UserError(
            f"layer {config['name']}: no {key}, so it is a float layer and has no firmware; "
            "declare an ap_fixed type"
        )
    fixed_type = FixedType.parse(config[key])
    if table:
        check_table(fixed_type, f"layer {config['name']}: {key} {fixed_type}")
    return fixed_type


WEIGHTS = "quantized_bits(bits, integer, alpha=1)"
"""The quantizer to recommend for weights."""

WEIGHT_QUANTIZERS = ("quantized_bits", "ternary", "binary", "quantized_po2")
ACTIVATION_QUANTIZERS = ("quantized_relu", "quantized_bits")


def quantizer_text(quantizer: Mapping[str, Any]) -> str:
    """A quantizer as one writes it, from its configuration: what differs from QKeras' defaults."""
    from qkeras import quantizers

    config = dict(quantizer["config"])
    if isinstance(config.get("alpha"), str):
        config.pop("symmetric", None)  # QKeras sets it
    known = getattr(quantizers, quantizer["class_name"], None)
    defaults = {} if known is None else inspect.signature(known).parameters
    said = [str(config.pop(key)) for key in ("bits", "integer") if key in config]
    for key, value in config.items():
        if not isinstance(value, str | int | float | None):
            said.append(f"{key}=[...]")
        elif key not in defaults or value != defaults[key].default:
            said.append(f"{key}={int(value) if isinstance(value, bool) else value!r}")
    return f"{quantizer['class_name']}({','.join(said)})"


def check_quantizer(
    quantizer: Mapping[str, Any], layer: str, position: str, kinds: Sequence[str], fix: str
) -> None:
    """Raises `UserError` for a quantizer whose values are not on one grid that its text gives.

    position: "kernel", "bias" or "activation". kinds: classes that are known there. fix: what to
    give instead of other classes.
    """
    kind, config = quantizer["class_name"], quantizer["config"]
    what = f"layer {layer}: {position} quantizer {quantizer_text(quantizer)}"
    if kind not in kinds:
        raise UserError(f"{what} cannot be built exactly; give {fix}")
    alpha = config.get("alpha", 1)
    # Without alpha, quantized_bits does not scale; as kernel of a QDense it has "auto_po2" then.
    unscaled = alpha is None and kind == "quantized_bits"
    if not unscaled and not (np.ndim(alpha) == 0 and alpha == 1):
        if np.ndim(alpha):
            why = "scales each channel"
        elif alpha is None:
            why = "rounds in float32"
        elif isinstance(alpha, str):
            default = " (QDense's default)" if alpha == "auto_po2" else ""
            why = f"scales by what depends on the weights{default}"
        else:
            why = f"scales by {alpha}"
        raise UserError(f"{what} {why}: its values are on no fixed grid; give alpha=1")
    for key, right in (
        ("use_stochastic_rounding", 0),
        ("qnoise_factor", 1),
        ("use_sigmoid", 0),
        ("negative_slope", 0),
    ):
        if config.get(key, right) != right:
            raise UserError(f"{what} cannot be built exactly; give {key}={right}")
    bits, integer = config.get("bits", 1), config.get("integer", 0)
    if not (_whole(bits) and _whole(integer) and 1 <= bits <= FLOAT32_BITS + 1):
        raise UserError(
            f"{what}: bits must be 1 ... {FLOAT32_BITS + 1}, which float32 holds exactly, "
            "and integer a whole number"
        )


def weight_type(
    quantizer: Mapping[str, Any] | None, layer: str, position: str = "kernel"
) -> FixedType:
    """The narrowest type of all values that a QKeras weight quantizer can give.

    quantizer: its configuration. quantized_bits rounds half to even and clips; its `integer`
    excludes the sign, ours includes it. ternary and binary give -1, 0, 1; quantized_po2 powers of
    two. Raises `UserError` for quantizers whose values are on no fixed grid.
    """
    if quantizer is None:
        raise UserError(
            f"layer {layer}: no {position} quantizer, so it is a float layer and has no firmware; "
            f"give {position}_quantizer {WEIGHTS}"
        )
    check_quantizer(quantizer, layer, position, WEIGHT_QUANTIZERS, WEIGHTS)
    config = quantizer["config"]
    if quantizer["class_name"] == "quantized_po2":
        least, greatest = _exponents(config)
        width = greatest - least + 2
        if width > MAX_WIDTH:
            raise UserError(
                f"layer {layer}: {position} quantizer {quantizer_text(quantizer)} has values from "
                f"2^{least} to 2^{greatest}, {width} bits; at most {MAX_WIDTH} can be built: "
                "give it fewer bits"
            )
        return FixedType(width, greatest + 2, True, "RND_CONV", "SAT")
    signed = bool(config.get("keep_negative", not config.get("use_01")))
    if quantizer["class_name"] != "quantized_bits" or config["bits"] <= signed:
        return FixedType(1 + signed, 1 + signed, signed, "RND_CONV", "SAT_SYM")  # -1, 0 and 1
    overflow = "SAT_SYM" if config.get("symmetric") else "SAT"
    return FixedType(
        int(config["bits"]),
        int(config["integer"]) + signed,
        signed,
        "RND_CONV",
        overflow,  # type: ignore[arg-type]
    )


def activation_type(quantizer: Mapping[str, Any], layer: str) -> FixedType:
    """Type of the values that a QKeras quantizer of activations gives: it rounds half to even."""
    check_quantizer(
        quantizer,
        layer,
        "activation",
        ACTIVATION_QUANTIZERS,
        f"quantized_relu(bits, integer) or {WEIGHTS}",
    )
    config = quantizer["config"]
    if quantizer["class_name"] == "quantized_bits":
        if config["bits"] <= bool(config.get("keep_negative", True)):
            raise UserError(
                f"layer {layer}: activation quantizer {quantizer_text(quantizer)} is the sign of "
                "its argument, -1 or 1, and rounds nothing; give it 2 bits or more"
            )
        return weight_type(quantizer, layer, "activation")
    return FixedType(int(config["bits"]), int(config["integer"]), False, "RND_CONV", "SAT")


def _exponents(config: Mapping[str, Any]) -> tuple[int, int]:
    """Least and greatest exponent of a `quantized_po2`."""
    most = config.get("max_value")
    exponent_bits = config["bits"] - 1 - (most is None or most > 1)
    least, greatest = -(2**exponent_bits), 2**exponent_bits - 1
    return least, min(greatest, math.ceil(math.log2(most))) if most else greatest


def _whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) or (
        isinstance(number, float | np.floating) and float(number).is_integer()
    )


def qkeras_text(fixed_type: FixedType) -> str:
    """The QKeras spelling of a weight type; its rounding is always RND_CONV, saturating."""
    return f"quantized_bits({fixed_type.width},{fixed_type.int_bits - 1},alpha=1)"
