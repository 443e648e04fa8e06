"""Measures products of two variables: `python -m salt_hls.rtl.product_table`.

Writes `products.json`, which the estimates of LUTs use, and the table of docs/results/products.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import alkaid
from alkaid.codegen.rtl.verilog.comb import comb_logic_gen
from alkaid.types import CombLogic, Op, QInterval

from salt_hls.rtl.products import TABLE, Factor, Program
from salt_hls.rtl.yosys_stage import RECIPE, count, depth
from salt_hls.system.paths import CHECKOUT
from salt_hls.system.store import replacing

WIDTHS = range(2, 11)
FACTORS = [Factor(width, signed) for width in WIDTHS for signed in (False, True)]
PAGE = CHECKOUT / "docs" / "results" / "products.md"
STATIC = Path(alkaid.__file__).parent / "codegen/rtl/verilog/source"


def interval(kind: Factor) -> QInterval:
    """All integers of a type."""
    signed = kind.signed
    return QInterval(-(2.0 ** (kind.width - 1)) * signed, 2.0 ** (kind.width - signed) - 1, 1.0)


def times(k: int, of: QInterval) -> QInterval:
    """That of a multiple."""
    return QInterval(min(k * of.min, k * of.max), max(k * of.min, k * of.max), of.step)


def product(a: Factor, b: Factor) -> CombLogic:
    """a * b alone: the multiples of a are inputs, like a and b."""
    ranges = [interval(a), interval(b)]
    program = Program()
    given = [*ranges, times(3, ranges[0]), times(-1, ranges[0])]
    for k, kind in enumerate(given):
        program.ops.append(Op((), -1, (k,), kind, 0.0, 0.0))
    program.multiples = {(0, 3): 2, (0, -1): 3}
    # Of factors with as many rows, the later one has the bits.
    program.ops[1] = program.ops[1]._replace(latency=1e-9)
    ends = [x * y for x in (ranges[0].min, ranges[0].max) for y in (ranges[1].min, ranges[1].max)]
    place = program.product(0, 1, QInterval(min(ends), max(ends), 1.0))
    return CombLogic((4, 1), [0] * 4, [place], [0], [False], program.ops, 1, 1)


def multiple(a: Factor, k: int) -> CombLogic:
    """3a or -a."""
    program = Program()
    program.ops.append(Op((), -1, (0,), interval(a), 0.0, 0.0))
    place = program._multiple(0, k)
    return CombLogic((1, 1), [0], [place], [0], [False], program.ops, 1, 1)


def synthesize(parts: Sequence[CombLogic]) -> list[dict[str, Any]]:
    """LUT, levels and the delay by the table of delays, of each program as a module of its own."""
    from pyosys import libyosys

    texts, ports, instances = [], [], []
    for k, logic in enumerate(parts):
        text = comb_logic_gen(logic, f"part{k}")
        texts.append(text.replace("module", "(* keep_hierarchy *)\nmodule", 1))
        widths = (logic.inp_kifs.sum(), logic.out_kifs.sum())
        ports += [f"input [{widths[0] - 1}:0] i{k}", f"output [{widths[1] - 1}:0] o{k}"]
        instances.append(f"part{k} p{k} (.model_inp(i{k}), .model_out(o{k}));")
    top = "\n".join([f"module top({', '.join(ports)});", *instances, "endmodule"])
    with tempfile.TemporaryDirectory() as place:
        source, netlist = Path(place) / "parts.v", Path(place) / "netlist.json"
        source.write_text("\n".join([*texts, top]))
        design = libyosys.Design()
        files = " ".join(f'"{path}"' for path in [*sorted(STATIC.glob("*.v")), source])
        for command in [
            f"read_verilog -defer {files}", "hierarchy -top top",
            *[step.format(dsp="-nodsp") for step in RECIPE],
            "select part*", f'write_json -selected "{netlist}"',
        ]:  # fmt: skip
            libyosys.run_pass(f"tee -q {command}", design)
        modules = json.loads(netlist.read_text())["modules"]
    found = []
    for k, logic in enumerate(parts):
        cells = list(modules[f"part{k}"]["cells"].values())
        ns = max(op.latency for op in logic.ops)
        found.append({"lut": count(cells)["lut"], "levels": depth(cells), "ns": round(ns, 2)})
    return found


def measure() -> dict[str, Any]:
    """The content of `products.json`."""
    pairs = [
        (a, b)
        for a in FACTORS
        for b in FACTORS
        if (a.width + 1) // 2 >= (b.width + 1) // 2
    ]  # fmt: skip
    multiples = [(a, k) for a in FACTORS for k in (3, -1)]
    found = synthesize([*(product(*pair) for pair in pairs), *(multiple(*m) for m in multiples)])
    return {
        "yosys": version("pyosys"),
        "alkaid": version("alkaid"),
        "products": [
            {"a": a.width, "a_signed": a.signed, "b": b.width, "b_signed": b.signed, **figures}
            for (a, b), figures in zip(pairs, found, strict=False)
        ],
        "multiples": [
            {"a": a.width, "a_signed": a.signed, "of": k, **figures}
            for (a, k), figures in zip(multiples, found[len(pairs) :], strict=True)
        ],
    }


def page(content: dict[str, Any]) -> str:
    """The table of docs/results/products.md: widths of a down, of b across, LUT/levels/ns."""
    kinds = {(False, False): "both unsigned", (True, True): "both signed"} | {
        (True, False): "a signed, b unsigned", (False, True): "a unsigned, b signed"
    }  # fmt: skip
    found = {
        (r["a_signed"], r["b_signed"], r["a"], r["b"]): f"{r['lut']} / {r['levels']} / {r['ns']:g}"
        for r in content["products"]
    }
    lines = [
        "# Products of two variables",
        "",
        "LUT / levels of logic / ns by the table of delays of a product a b, as Yosys makes it of "
        "`salt_hls/rtl/products.py`: a is the",
        "factor whose multiples are selected, b the one that goes in bits (that with fewer pairs "
        "of them). 3a and -a, which all products",
        "of a have in common, are not in it. Written by `python -m salt_hls.rtl.product_table` "
        f"(pyosys {content['yosys']}, alkaid {content['alkaid']}).",
    ]
    for (a_signed, b_signed), words in kinds.items():
        lines += ["", f"## {words}", "", f"| a \\ b | {' | '.join(map(str, WIDTHS))} |"]
        lines.append("|---" * (len(WIDTHS) + 1) + "|")
        for a in WIDTHS:
            cells = [found.get((a_signed, b_signed, a, b), "") for b in WIDTHS]
            lines.append(f"| {a} | {' | '.join(cells)} |")
    lines += ["", "## 3a", "", f"| a | {' | '.join(map(str, WIDTHS))} |"]
    lines.append("|---" * (len(WIDTHS) + 1) + "|")
    for signed in (False, True):
        cells = [
            f"{r['lut']} / {r['levels']} / {r['ns']:g}"
            for r in content["multiples"]
            if r["of"] == 3 and r["a_signed"] == signed
        ]
        lines.append(f"| {'signed' if signed else 'unsigned'} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    measured = measure()
    with replacing(TABLE) as target:
        target.write_text(json.dumps(measured, indent=1) + "\n")
    with replacing(PAGE) as target:
        target.write_text(page(measured))
