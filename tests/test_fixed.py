"""FixedType against the ap_fixed of the HLS headers, value by value."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import hls4ml
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salt_hls.errors import UserError
from salt_hls.fixed import OVERFLOWS, ROUNDINGS, FixedType, Table, lookup

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


def test_lookup() -> None:
    source, result = FixedType(3, 3), FixedType(8, 4)
    table = Table(source, result, -4.0, np.arange(8) * 0.5)
    assert lookup(table, np.array([[-4.0, 3.0], [0.0, -1.0]])).tolist() == [[0, 3.5], [2, 1.5]]
