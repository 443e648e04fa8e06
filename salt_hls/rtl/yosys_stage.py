"""Synthesizes one module in a process of its own: `python -m salt_hls.rtl.yosys_stage JOB RESULT`.

JOB is JSON: `top`, `sources` (Verilog files), `dsp` (map products to DSP slices), `boxes` (modules
that stay outside: the design then has state, and its memories are mapped as such). RESULT gets
counts of primitives and the depth of the logic.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

LUTS_OF_WIDTH = {7: 2, 8: 4}
"""Functions of 7 and 8 inputs are LUT6s joined by the multiplexers of a slice."""

MEMORIES = {"RAM32M": 4, "RAM32M16": 8, "RAM64M": 4, "RAM64M8": 8} | {
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8
}  # fmt: skip
"""Look-up tables that a distributed memory takes."""

_MAP = (
    "opt -full",
    "synth_xilinx -family xcup -noiopad -noclkbuf -flatten {dsp} -run begin:map_luts",
    "opt_expr -mux_undef -noclkinv",
    # synth_xilinx's own mapper does not end in useful time on stages of this size.
    "abc -luts 2:2,3,6:5,10,20",
    "clean",
)
# ROMs read without a clock have no block-RAM form: make them logic.
RECIPE = ("proc", "flatten", "opt -full", "memory -nomap", "memory_map", *_MAP)
RECIPE_WITH_MEMORIES = ("proc -norom", "flatten", *_MAP)


def main(job: Path, result: Path) -> None:
    """Runs the recipe and writes the figures."""
    from pyosys import libyosys

    given = json.loads(job.read_text())
    netlist = result.with_suffix(".netlist")
    design = libyosys.Design()
    commands = [f'read_verilog -defer "{source}"' for source in given["sources"]]
    commands += [f"hierarchy -top {given['top']}"]
    boxes = given["boxes"]
    recipe = RECIPE_WITH_MEMORIES if boxes else RECIPE
    commands += [step.format(dsp="" if given["dsp"] else "-nodsp") for step in recipe]
    commands += [f"select {given['top']}", f'write_json -selected "{netlist}"']
    for command in commands:
        libyosys.run_pass(command, design)
    found = json.loads(netlist.read_text())["modules"][given["top"]]["cells"]
    cells = [cell for cell in found.values() if cell["type"] not in boxes]
    result.write_text(json.dumps({**count(cells), "levels": depth(cells)}))


def count(cells: Any) -> dict[str, int]:
    """Primitives of a mapped netlist; inverters apart, as placers absorb most of them.

    A look-up table that only feeds a carry chain beside another one shares its site (outputs O5
    and O6 of a LUT6_2) when the two have five inputs at most, as Vivado packs them.
    """
    cells = list(cells)
    found: Counter[str] = Counter()
    for cell in cells:
        kind = cell["type"]
        if kind == "$lut":
            width = int(cell["parameters"]["WIDTH"], 2)
            found["inv" if width == 1 else "lut"] += LUTS_OF_WIDTH.get(width, 1)
        elif kind == "$scopeinfo":
            continue
        elif kind in ("LUT1", "INV"):
            found["inv"] += 1
        elif kind.startswith("LUT"):
            found["lut"] += 1
        elif kind == "CARRY4":
            found["carry4"] += 1
        elif kind.startswith("DSP48"):
            found["dsp"] += 1
        elif kind.startswith(("RAMB18", "RAMB36")):
            found["bram18"] += 1 if kind.startswith("RAMB18") else 2
        elif kind in MEMORIES:
            found["lut"] += MEMORIES[kind]
        elif kind.startswith("FD"):
            found["ff"] += 1
        elif not kind.startswith("MUXF"):
            raise ValueError(f"unexpected cell {kind} after mapping")
    found["lut"] -= shared(cells)
    return {key: found[key] for key in ("lut", "inv", "carry4", "dsp", "bram18", "ff")}


def shared(cells: list[dict[str, Any]]) -> int:
    """Look-up tables at DI of a carry chain that fit into the site of the one at S."""
    inputs = {}
    readers: Counter[Any] = Counter()
    for cell in cells:
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                readers.update(bits)
        if cell["type"] == "$lut" and len(cell["connections"]["A"]) > 1:
            inputs[cell["connections"]["Y"][0]] = {
                bit for bit in cell["connections"]["A"] if isinstance(bit, int)
            }
    pairs = (
        pair
        for cell in cells
        if cell["type"] == "CARRY4"
        for pair in zip(cell["connections"]["DI"], cell["connections"]["S"], strict=True)
    )
    return sum(
        data in inputs
        and select in inputs
        and data != select
        and readers[data] == 1
        and len(inputs[data] | inputs[select]) <= 5
        for data, select in pairs
    )


def depth(cells: list[dict[str, Any]]) -> int:
    """Look-up tables and carry chains on the longest path; a chain counts once, however long.

    Paths begin and end at registers; of a memory only the addresses are on one.
    """
    cells = [cell for cell in cells if not cell["type"].startswith("FD")]
    driver: dict[int, int] = {}
    for number, cell in enumerate(cells):
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "output":
                driver.update((bit, number) for bit in bits if isinstance(bit, int))
    users: dict[int, list[tuple[int, int]]] = defaultdict(list)
    waiting: Counter[int] = Counter()
    for number, cell in enumerate(cells):
        sources: dict[int, int] = {}
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "output":
                continue
            if cell["type"] in MEMORIES and not pin.startswith(("ADDR", "DPRA")):
                continue
            # A carry that comes from the chain's earlier part adds nothing.
            step = 0 if cell["type"].startswith(("$scope", "MUXF")) or pin == "CI" else 1
            for bit in bits:
                if bit in driver:
                    sources[driver[bit]] = max(step, sources.get(driver[bit], 0))
        for source, step in sources.items():
            users[source].append((number, step))
            waiting[number] += 1
    level = [int(not cell["type"].startswith("$scope")) for cell in cells]
    ready = [number for number in range(len(cells)) if waiting[number] == 0]
    for number in ready:  # grows while it is read: a topological order
        for user, step in users[number]:
            level[user] = max(level[user], level[number] + step)
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    return max(level, default=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
