"""FixedType against the ap_fixed of the HLS headers, value by value."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hls4ml
import numpy as np
import pytest
from alkaid.trace import FVArray, HWConfig, trace
from hypothesis import given
from hypothesis import strategies as st

from salt_hls.errors import UserError
from salt_hls.fixed import OVERFLOWS, ROUNDINGS, UNOBSERVED, FixedType, Table, lookup

AP_TYPES = Path(hls4ml.__file__).parent / "templates" / "vivado" / "ap_types"
SOURCE = FixedType(12, 6)


def all_types() -> list[FixedType]:
    shapes = ((4, 2), (5, 0), (6, 6), (7, 9), (3, -2), (9, 4))
    return [
        FixedType(w, i, signed, r, o)
        for w, i in shapes
        for signed in (True, False)
        for r in ROUNDINGS
        for o in OVERFLOWS
    ]


@cache
def printed(program: str) -> str:
    """What a C++ program prints; compiled once."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "main.cpp").write_text(program)
        build = ["g++", "-std=c++11", "-w", f"-I{AP_TYPES}", "main.cpp", "-o", "main"]
        subprocess.run(build, cwd=folder, check=True)
        run = subprocess.run([f"{folder}/main"], capture_output=True, text=True, check=True)
    return run.stdout


def test_quantize_is_ap_fixed_assignment() -> None:
    """Every value of a 12-bit source into every rounding, overflow and several widths."""
    types = all_types()
    lines = "\n".join(f"  {{ {t} y = x; std::cout << y.to_double() << ' '; }}" for t in types)
    program = f"""#include <iostream>
#include "ap_fixed.h"
int main() {{
  std::cout.precision(17);
  for (int code = -2048; code < 2048; code++) {{
  {SOURCE} x = 0;
  x.range(11, 0) = code;
{lines}
  std::cout << std::endl;
  }}
}}
"""
    truth = np.array([[float(v) for v in row.split()] for row in printed(program).splitlines()])
    x = np.arange(-2048, 2048) * SOURCE.lsb
    for column, fixed_type in enumerate(types):
        ours = fixed_type.quantize(x)
        wrong = np.flatnonzero(ours != truth[:, column])
        assert not len(wrong), f"{fixed_type}: {x[wrong[0]]} gives {ours[wrong[0]]}"


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("ap_fixed<8,3>", "ap_fixed<8,3>"),
        ("fixed<8, 3, RND, SAT>", "ap_fixed<8,3,AP_RND,AP_SAT>"),
        ("ap_ufixed<8,0,AP_RND_CONV,AP_SAT_SYM>", "ap_ufixed<8,0,AP_RND_CONV,AP_SAT_SYM>"),
        ("ufixed<4,-2,TRN,SAT>", "ap_ufixed<4,-2,AP_TRN,AP_SAT>"),
    ],
)
def test_parse(text: str, spelling: str) -> None:
    assert str(FixedType.parse(text)) == spelling
    assert FixedType.parse(spelling) == FixedType.parse(text)


@pytest.mark.parametrize(
    "text", ["float", "ap_fixed<8>", "ap_fixed<8,3,RNDX>", "ap_fixed<0,0>", ""]
)
def test_parse_says_what_is_wrong(text: str) -> None:
    with pytest.raises(UserError) as error:
        FixedType.parse(text)
    assert "\n" not in str(error.value)


widths = st.tuples(st.integers(1, 10), st.integers(-3, 8), st.booleans())


@given(widths, widths)
def test_exact_types_hold_sums_and_products(
    a: tuple[int, int, bool], b: tuple[int, int, bool]
) -> None:
    x, y = FixedType(*a), FixedType(*b)
    extremes = [(p, q) for p in (x.min, x.max) for q in (y.min, y.max)]
    if (x + y).width <= 48:
        assert (x + y).contains(np.array([p + q for p, q in extremes]))
    assert (x * y).contains(np.array([p * q for p, q in extremes]))
    assert x.sum_of(5).contains(np.array([5 * x.min, 5 * x.max]))


def test_contains() -> None:
    t = FixedType.parse("ap_fixed<4,2>")
    assert t.contains(np.array([-2.0, 1.75]))
    for bad in (2.0, 0.1, np.nan, np.inf):
        assert not t.contains(np.array([bad]))


def test_exact_types_have_no_bit_to_spare() -> None:
    signed, unsigned = FixedType(6, 2, rounding="RND", overflow="SAT"), FixedType(5, 3, False)
    assert signed.exact() == FixedType(6, 2) and unsigned.exact() == unsigned
    assert signed.difference() == FixedType(6, 2, False)
    assert signed + signed == FixedType(7, 3) and unsigned + unsigned == FixedType(6, 4, False)
    assert signed + unsigned == unsigned + signed == FixedType(9, 5)  # -2 ... 9.6875
    assert signed * unsigned == FixedType(11, 5) and (unsigned * unsigned).signed is False
    grown = [unsigned.sum_of(n) for n in (1, 2, 3, 4, 5)]
    assert grown == [FixedType(5 + g, 3 + g, False) for g in (0, 1, 2, 2, 3)]


def test_codes() -> None:
    t = FixedType(8, 3)
    codes = t.codes(np.array([0.5, -1.0, 3.96875], np.float32))
    assert codes.tolist() == [16, -32, 127] and codes.dtype == np.int64
    assert t.codes([1, 2]).tolist() == [32, 64]  # type: ignore[arg-type]


def test_float32_and_integers_are_quantized_in_float64() -> None:
    t = FixedType(40, 4)
    assert t.quantize(np.float32([0.1])).dtype == np.float64
    assert t.quantize([1, -2]).tolist() == [1, -2] and t.contains([1, -2])  # type: ignore[arg-type]
    table = Table(FixedType(3, 2), t, -2.0, np.arange(8) * 0.5)
    assert lookup(table, [-2, 1]).tolist() == [0, 3]


def test_errors_say_all_that_is_allowed() -> None:
    for make, says in (
        (lambda: FixedType(49, 3), "ap_fixed<49,3>: width must be 1 ... 48, got 49"),
        (lambda: FixedType(0, 3), "ap_fixed<0,3>: width must be 1 ... 48, got 0"),
        (
            lambda: FixedType(8, 3, rounding="UP"),  # type: ignore[arg-type]
            "ap_fixed<8,3,AP_UP,AP_WRAP>: rounding must be one of TRN, RND, RND_CONV and overflow "
            "one of WRAP, SAT, SAT_SYM",
        ),
        (
            lambda: FixedType.parse("fixed<8>"),
            "type 'fixed<8>': expected ap_fixed<W,I[,rounding[,overflow]]> or ap_ufixed<...>, "
            "for example ap_fixed<8,3,RND,SAT>",
        ),
        (
            lambda: FixedType.parse("fixed<8,3,SAT,UP>"),
            "type 'fixed<8,3,SAT,UP>': unknown rounding or overflow 'UP'",
        ),
    ):
        with pytest.raises(UserError) as error:
            make()
        assert str(error.value) == says
    assert FixedType(48, 3).width == 48 and FixedType(1, 1).width == 1


def symbol(kind: FixedType) -> Any:
    """A symbolic array of one value of this type."""
    k = int(kind.signed)
    bits = ([k], [kind.int_bits - k], [kind.frac_bits])
    return FVArray.from_kif(*(np.array(b) for b in bits), HWConfig(1, 1, -1), 0.0, {})


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("target", ["ap_fixed<4,3>", "ap_ufixed<3,1>", "ap_fixed<5,5>"])
def test_quantization_of_symbols_equals_numbers(rounding: Any, overflow: Any, target: str) -> None:
    source, plain = FixedType(7, 4), FixedType.parse(target)
    kind = FixedType(plain.width, plain.int_bits, plain.signed, rounding, overflow)
    x = symbol(source)
    values = np.arange(-64, 64) * source.lsb
    logic = trace(x, kind.quantize(x), optimize=False)
    assert np.array_equal(logic.predict(values[:, None])[:, 0], kind.quantize(values))


def test_tables_of_symbols_equal_those_of_numbers() -> None:
    """Also where the symbol could be one step beyond the table on either side."""
    source, result = FixedType(3, 1), FixedType(8, 4, rounding="RND", overflow="SAT")
    table = Table(source, result, -0.75, np.array([3.5, -1, 0.25, 7, 2, -8]))
    values = np.arange(-3, 3) * source.lsb
    assert lookup(table, values).tolist() == table.entries.tolist()
    x = symbol(source)
    logic = trace(x, lookup(table, x), optimize=False)
    assert np.array_equal(logic.predict(values[:, None])[:, 0], table.entries)


def test_without_an_observer_tensors_are_rounded_and_looked_up() -> None:
    table = Table(FixedType(3, 3), FixedType(8, 4), -4.0, np.arange(8) * 0.5)
    x = np.array([-1.0, 2.0])
    assert UNOBSERVED.looked_up("x", table, x).tolist() == [1.5, 3.0]
    assert UNOBSERVED.rounded("x", FixedType(4, 3), np.array([0.75])).tolist() == [0.5]


def test_lookup() -> None:
    source, result = FixedType(3, 3), FixedType(8, 4)
    table = Table(source, result, -4.0, np.arange(8) * 0.5)
    assert lookup(table, np.array([[-4.0, 3.0], [0.0, -1.0]])).tolist() == [[0, 3.5], [2, 1.5]]
