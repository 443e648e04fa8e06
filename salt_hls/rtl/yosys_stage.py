"""Synthesizes one module in a process of its own: `python -m salt_hls.rtl.yosys_stage JOB RESULT`.

JOB is JSON: `top`, `sources` (Verilog files), `dsp` (map products to DSP slices), `boxes` (modules
that stay outside: the design then has state, and its memories are mapped as such). RESULT gets
counts of primitives and the depth of the logic, in levels and by the table of delays.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from salt_hls.rtl.delays import CARRY4_NS, CARRY_NS, LUT_NS, WIDE_LUT_NS

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
    mapped = json.loads(netlist.read_text())["modules"][given["top"]]["cells"]
    cells = [cell for cell in mapped.values() if cell["type"] not in boxes]
    result.write_text(
        json.dumps({**count(cells), "levels": depth(cells), "delay_ns": delay(cells)})
    )


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
        elif kind.startswith("SRL"):
            found["lut"] += 1
            found["srl"] += 1
        elif not kind.startswith("MUXF"):
            raise ValueError(f"unexpected cell {kind} after mapping")
    found["lut"] -= shared(cells)
    return {key: found[key] for key in ("lut", "inv", "carry4", "dsp", "bram18", "ff", "srl")}


def shared(cells: list[dict[str, Any]]) -> int:
    """Look-up tables that need no site of their own, for a LUT6_2 has two outputs.

    At DI of a carry chain: those that fit, by their inputs, into the site of the one at S.
    Elsewhere: one of two that have the same inputs, five at most, as the two words of a counter.
    """
    inputs = {}
    readers: Counter[Any] = Counter()
    for cell in cells:
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                readers.update(bits)
        if cell["type"] == "$lut" and len(cell["connections"]["A"]) > 1:
            inputs[cell["connections"]["Y"][0]] = frozenset(
                bit for bit in cell["connections"]["A"] if isinstance(bit, int)
            )
    pairs = [
        pair
        for cell in cells
        if cell["type"] == "CARRY4"
        for pair in zip(cell["connections"]["DI"], cell["connections"]["S"], strict=True)
    ]
    at_chains = sum(
        data in inputs
        and select in inputs
        and data != select
        and readers[data] == 1
        and len(inputs[data] | inputs[select]) <= 5
        for data, select in pairs
    )
    taken = {bit for pair in pairs for bit in pair}
    alike = Counter(
        given for output, given in inputs.items() if output not in taken and len(given) <= 5
    )
    return int(at_chains) + sum(count // 2 for count in alike.values())


def depth(cells: list[dict[str, Any]]) -> int:
    """Look-up tables and carry chains on the longest path; a chain counts once, however long.

    Paths begin and end at registers; of a memory only the addresses are on one.
    """

    def level(cell: dict[str, Any], pin: str, _: dict[str, Any] | None) -> int:
        # A carry that comes from the chain's earlier part adds nothing.
        return int(not (cell["type"].startswith(("$scope", "MUXF")) or pin == "CI"))

    return round(_longest(cells, level))


def delay(cells: list[dict[str, Any]]) -> float:
    """Nanoseconds on the longest path by the table of delays; inverters take none."""

    def ns(cell: dict[str, Any], pin: str, source: dict[str, Any] | None) -> float:
        kind, inputs = cell["type"], _table_inputs(cell)
        if kind == "CARRY4":
            if pin == "CI":
                return CARRY4_NS
            # An adder's table is a cell of its own where there is one.
            return CARRY_NS + (0 if source and _table_inputs(source) > 1 else LUT_NS)
        if kind.startswith("MUXF"):
            return WIDE_LUT_NS
        if kind.startswith("$scope") or inputs == 1:
            return 0
        return LUT_NS + WIDE_LUT_NS * max(inputs - 6, 0)

    return round(_longest(cells, ns), 3)


def _table_inputs(cell: dict[str, Any]) -> int:
    """Inputs of a look-up table; 0 of another cell."""
    kind = cell["type"]
    if kind == "$lut":
        return len(cell["connections"]["A"])
    if kind == "INV":
        return 1
    return int(kind[3:]) if kind.startswith("LUT") else 0


def _longest(
    cells: list[dict[str, Any]],
    step: Callable[[dict[str, Any], str, dict[str, Any] | None], float],
) -> float:
    """The longest path through cells, each of which adds a step for the pin that it is entered by.

    The third argument of `step` is the cell that drives the pin; None: a register or a port.
    """
    cells = [cell for cell in cells if not cell["type"].startswith(("FD", "SRL"))]
    driver: dict[int, int] = {}
    for number, cell in enumerate(cells):
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "output":
                driver.update((bit, number) for bit in bits if isinstance(bit, int))
    users: dict[int, list[tuple[int, float]]] = defaultdict(list)
    waiting: Counter[int] = Counter()
    length = [0.0] * len(cells)
    for number, cell in enumerate(cells):
        sources: dict[int, float] = {}
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "output":
                continue
            timed = cell["type"] not in MEMORIES or pin.startswith(("ADDR", "DPRA"))
            for bit in bits:
                if bit in driver and timed:
                    source = driver[bit]
                    taken = step(cell, pin, cells[source])
                    sources[source] = max(taken, sources.get(source, 0))
                elif isinstance(bit, int) and pin != "CI":
                    length[number] = max(length[number], step(cell, pin, None))
        for source, taken in sources.items():
            users[source].append((number, taken))
            waiting[number] += 1
    ready = [number for number in range(len(cells)) if waiting[number] == 0]
    for number in ready:  # grows while it is read: a topological order
        for user, taken in users[number]:
            length[user] = max(length[user], length[number] + taken)
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    return max(length, default=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
