"""Products of two variables as rows: equal for all operands, and what they are counted as."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from alkaid.codegen.rtl.verilog.comb import comb_logic_gen
from alkaid.types import CombLogic, Op, QInterval
from numpy.typing import NDArray

from salt_hls.rtl import product_table, verilator
from salt_hls.rtl.delays import LUT_NS, adder_ns
from salt_hls.rtl.operations import ADD, CUT, MULTIPLY, MUX, own_delay
from salt_hls.rtl.product_table import PAGE, STATIC, interval, product
from salt_hls.rtl.products import (
    TABLE,
    Factor,
    expand_products,
    is_multiple,
    lut_counts,
)
from salt_hls.rtl.project import Port, RtlProject, _schedule, write_pipeline

SIGNS = list(itertools.product((False, True), repeat=2))


def scaled(kind: Factor, frac_bits: int) -> QInterval:
    step = 2.0**-frac_bits
    return QInterval(*(value * step for value in interval(kind)))


def program(
    pairs: Iterable[tuple[Factor, Factor]], frac_bits: tuple[int, int] = (2, -1)
) -> CombLogic:
    """Products of alkaid's, each of two inputs of its own."""
    ops: list[Op] = []
    outputs = []
    for a, b in pairs:
        x, y = (scaled(kind, bits) for kind, bits in zip((a, b), frac_bits, strict=True))
        ends = [v * w for v in (x.min, x.max) for w in (y.min, y.max)]
        both = QInterval(min(ends), max(ends), x.step * y.step)
        at = len(ops)
        given = len(outputs) * 2
        ops += [Op((), -1, (given + k,), kind, 0.0, 0.0) for k, kind in enumerate((x, y))]
        ops.append(Op((at, at + 1), MULTIPLY, (), both, 2.5, 44.0))
        outputs.append(at + 2)
    count = len(outputs)
    return CombLogic(
        (2 * count, count), [0] * (2 * count), outputs, [0] * count, [False] * count, ops, 1, 1
    )


def values(kind: QInterval) -> NDArray[np.float64]:
    return np.arange(kind.min, kind.max + kind.step / 2, kind.step)


def wrong(a: Factor, b: Factor) -> int:
    """Pairs of operands, of all there are, whose product differs."""
    logic = program([(a, b)])
    rows = expand_products(logic)
    assert not any(op.opcode == MULTIPLY for op in rows.ops)
    x, y = np.meshgrid(*(values(op.qint) for op in logic.ops[:2]))
    given = np.stack([x.ravel(), y.ravel()], axis=1)
    return int(np.sum(rows.predict(given)[:, 0] != given[:, 0] * given[:, 1]))


@pytest.mark.parametrize("signs", SIGNS)
def test_rows_are_the_product_of_all_narrow_operands(signs: tuple[bool, bool]) -> None:
    widths = itertools.product(range(1, 7), repeat=2)
    assert not any(wrong(*map(Factor, pair, signs)) for pair in widths)


@pytest.mark.slow
@pytest.mark.parametrize("signs", SIGNS)
def test_rows_are_the_product_of_all_operands(signs: tuple[bool, bool]) -> None:
    widths = itertools.product(range(1, 11), repeat=2)
    assert not any(wrong(*map(Factor, pair, signs)) for pair in widths)


def differing(widths: Iterable[int], folder: Path) -> NDArray[np.bool_]:
    """Whether the Verilog of a product is wrong for any operands, for every pair and all signs.

    One design has them all; the operands are the low bits of a counter's two halves.
    """
    kinds = [Factor(width, signed) for width in widths for signed in (False, True)]
    pairs = list(itertools.product(kinds, repeat=2))
    logic = program(pairs, (0, 0))
    write_pipeline(logic, folder, "products", 1000.0, "xcvu13p", 1000.0, "lut")
    bits = max(widths)
    given, got, checks = [], [], []
    at = 0
    for k, (a, b) in enumerate(pairs):
        given += [f"x[{a.width - 1}:0]", f"y[{b.width - 1}:0]"]
        x, y = (
            f"$signed(p{name}[{kind.width - 1}:0])" if kind.signed
            else f"$signed({{1'b0, p{name}[{kind.width - 1}:0]}})"
            for name, kind in (("x", a), ("y", b))
        )  # fmt: skip
        width = sum(map(int, logic.out_qint[k].kif))
        got.append(f"wire signed [21:0] e{k} = {x} * {y};")
        checks.append(f"e{k}[{width - 1}:0] != made[{at + width - 1}:{at}]")
        at += width
    (folder / "src/check.v").write_text(
        f"""module check(input clk, input [{2 * bits - 1}:0] model_inp,
            output reg [{len(pairs) - 1}:0] model_out);
        wire [{bits - 1}:0] x = model_inp[{bits - 1}:0], y = model_inp[{2 * bits - 1}:{bits}];
        // The design has registers before and after it.
        reg [{bits - 1}:0] qx, qy, px, py;
        wire [{at - 1}:0] made;
        products part (.clk(clk), .model_inp({{{", ".join(reversed(given))}}}), .model_out(made));
        {chr(10).join(got)}
        always @(posedge clk) begin
          qx <= x; qy <= y; px <= qx; py <= qy;
          model_out <= {{{", ".join(reversed(checks))}}};
        end
        endmodule
        """
    )
    operands = Port((False,) * 2, (bits,) * 2, (0,) * 2)
    answer = Port((False,), (len(pairs),), (0,))
    project = RtlProject(
        folder, "", "check", "xcvu13p", 1000.0, 1000.0, "lut", False, operands, answer, (), 0, 0, ()
    )  # fmt: skip
    simulator = verilator.build(project, folder / "cache")
    counter = np.arange(4**bits, dtype=np.uint32)
    stream = np.concatenate([counter, counter[:3]]).view(np.uint8).reshape(-1, 4)
    answers = verilator._run(simulator, project, stream)[3:]
    return np.unpackbits(answers.any(axis=0) * answers.max(axis=0), bitorder="little").astype(bool)


@pytest.mark.parametrize(
    ("a", "b"), [((4, True), (4, True)), ((5, False), (3, True)), ((3, True), (3, False))]
)
def test_the_verilog_is_proved_to_be_the_product(
    a: tuple[int, bool], b: tuple[int, bool], tmp_path: Path
) -> None:
    from pyosys import libyosys

    logic = program([(Factor(*a), Factor(*b))], (0, 0))
    (tmp_path / "rows.v").write_text(comb_logic_gen(expand_products(logic), "rows"))
    (tmp_path / "star.v").write_text(comb_logic_gen(logic, "star"))
    bits = a[0] + b[0]
    (tmp_path / "check.v").write_text(
        f"module check(input [{bits - 1}:0] x, output ok); wire [{bits - 1}:0] p, q;"
        "rows r(.model_inp(x), .model_out(p)); star s(.model_inp(x), .model_out(q));"
        "assign ok = p == q; endmodule"
    )
    design = libyosys.Design()
    files = " ".join(str(path) for path in [*STATIC.glob("*.v"), *tmp_path.glob("*.v")])
    commands = [f"read_verilog {files}", "hierarchy -top check", "proc", "flatten", "opt"]
    for command in [*commands, "sat -verify -prove ok 1"]:
        libyosys.run_pass(f"tee -q {command}", design)


@pytest.mark.slow
def test_the_verilog_is_the_product_of_all_operands(tmp_path: Path) -> None:
    assert not differing(range(2, 11), tmp_path / "rtl").any()


def test_one_triple_for_all_products_of_a_factor() -> None:
    """a is there first, so b goes in bits; its multiples are made once, and b's bits too."""
    a, b, c = (Op((), -1, (k,), scaled(Factor(8, True), 0), 0.1 * k, 0.0) for k in range(3))
    both = QInterval(-(2.0**14), 2.0**14, 1.0)
    products = [Op((0, k), MULTIPLY, (), both, 3.0, 44.0) for k in (1, 2)]
    logic = CombLogic((3, 2), [0] * 3, [3, 4], [0] * 2, [False] * 2, [a, b, c, *products], 1, 1)
    rows = expand_products(logic)
    multiples = [op for op in rows.ops if op.addr in ((0, 0), (0,))]
    assert [op.qint.max for op in multiples if op.opcode == ADD] == [3 * 127]
    assert len(multiples) == 2  # 3a and -a
    assert sum(op.opcode == ADD for op in rows.ops) == 1 + 2 * 3
    counted = lut_counts()[Factor(8, True), Factor(8, True)]
    assert rows.cost == pytest.approx(2 * counted + sum(op.cost for op in multiples))
    # Select, then three adders; 3a and -a are ready by then.
    last = max(op.latency for op in rows.ops)
    ready = max(0.2, adder_ns(10))
    assert last == pytest.approx(ready + LUT_NS + 3 * adder_ns(10), abs=0.1)


@pytest.mark.parametrize("budget", [1.4, 2.25, 2.8, 4.5])
def test_a_row_is_selected_where_it_is_added(budget: float) -> None:
    """In whatever stage: apart, the multiple would take tables and registers of its own."""
    rows = expand_products(program([(Factor(8, True), Factor(8, False))]))
    ops = _schedule(rows, budget).ops
    stages = [int(np.ceil(op.latency / budget - 1e-9)) for op in ops]
    # The first row is added to nothing: its table is its own.
    muxes = [i for i, op in enumerate(ops) if op.opcode == MUX and not own_delay(rows, rows.ops[i])]
    readers = {i: k for k, op in enumerate(ops) for i in op.addr}
    assert muxes and all(stages[i] == stages[readers[i]] for i in muxes)
    assert max(stages) > 1 or budget > 3


def test_multiples_are_made_when_they_are_needed() -> None:
    """Not as soon as their factor is there: they would wait in more registers than it does."""
    kind = interval(Factor(8, True))
    ops = [Op((), -1, (k,), kind, 0.0, 0.0) for k in range(2)]
    # Stages of something that takes one clock each.
    ops += [Op((k + 1,), CUT, (0,), kind, 2.25 * (k + 1), 0.0) for k in range(8)]
    both = QInterval(-(2.0**14), 2.0**14, 1.0)
    ops.append(Op((0, 9), MULTIPLY, (), both, 20.5, 44.0))
    logic = CombLogic((2, 1), [0] * 2, [10], [0], [False], ops, 1, 1)
    rows = expand_products(logic)
    ops = _schedule(rows, 2.25).ops
    stages = [int(np.ceil(op.latency / 2.25 - 1e-9)) for op in ops]
    multiples = [i for i, op in enumerate(ops) if is_multiple(op)]
    readers = [min(stages[k] for k, op in enumerate(ops) if i in op.addr) for i in multiples]
    assert [stages[i] for i in multiples] == [k - 1 for k in readers] and min(readers) == 9


def test_an_estimate_of_n_bits_is_that_of_the_table() -> None:
    """n (n + 2) / 2 look-up tables of even n, for all signs; beyond the table the rows' widths."""
    counts = lut_counts()
    for width in range(2, 11):
        for signs in SIGNS:
            a, b = (Factor(width, signed) for signed in signs)
            rows = (width + 1) // 2
            assert rows * width <= counts[a, b] <= rows * (width + 3)
            assert width % 2 or counts[a, b] == width * (width + 2) / 2
            assert expand_products(product(a, b)).cost == pytest.approx(counts[a, b])
    wide = expand_products(program([(Factor(12, True), Factor(12, True))]))
    assert 12 * 14 / 2 <= wide.cost <= 12 * 14 / 2 + 30


def test_the_table_is_what_yosys_makes() -> None:
    """Two of its rows here; the page has them all."""
    content = json.loads(TABLE.read_text())
    pairs = [(Factor(4, True), Factor(3, False)), (Factor(5, False), Factor(5, True))]
    for (a, b), found in zip(
        pairs, product_table.synthesize([product(*pair) for pair in pairs]), strict=True
    ):
        row = {"a": a.width, "a_signed": a.signed, "b": b.width, "b_signed": b.signed, **found}
        assert row in content["products"]
    assert product_table.page(content) == PAGE.read_text()


@pytest.mark.slow
def test_the_whole_table_is_what_yosys_makes() -> None:
    assert product_table.measure() == json.loads(TABLE.read_text())
