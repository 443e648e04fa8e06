"""The vendor report reader against real reports, damaged ones and ones it must leave alone."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salt_hls.errors import UserError
from salt_hls.report.readers import read_file, read_reports, scan_reports
from salt_hls.report.records import SynthesisRecord

from .support import DATA, SHARED, as_truth, samples

OURS = list(samples(DATA))
# Sample 09: truth.json says Synthesized, the file itself says "Design State : Optimized".
SLIPS = {("09-vitis2024.1-u250-ece226-dataflow/vivado_synth.rpt", "design_state"): "Optimized"}


def check(name: str, path: Path, truth: dict[str, Any]) -> None:
    (record,) = read_file(path, name)
    read = as_truth(record)
    for key, value in truth.items():
        in_file = not (".xml" in name and key.startswith("slr_"))  # only the .rpt has SLR rows
        if key != "note" and in_file:
            assert read[key] == SLIPS.get((name, key), value), key


@pytest.mark.parametrize(("name", "path", "truth"), OURS, ids=[name for name, *_ in OURS])
def test_every_value(name: str, path: Path, truth: dict[str, Any]) -> None:
    check(name, path, truth)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/vendor_reports beside the repository")
def test_every_value_of_the_full_set() -> None:
    for name, path, truth in samples(SHARED):
        check(name, path, truth)


def one(name: str) -> SynthesisRecord:
    (path,) = DATA.glob(name)
    (record,) = read_file(path, path.name)
    return record


def test_latency_uses_the_slower_of_target_and_estimate() -> None:
    assert one("07*/csynth.xml.gz").latency_ns == pytest.approx(14409 * 18.982)
    assert one("10*/*.gz").latency_ns == 545.0
    assert one("01*/csynth.xml").latency_ns == (3245.0, 3335.0)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("01*/vivado_synth.rpt.gz", "vsynth"),
        ("09*/vivado_synth.rpt.gz", "vsynth"),
        ("12*/*_placed.rpt.gz", "route"),
        ("09*/vivado_utilization.rpt.gz", "route"),
        ("05*/*_timing.rpt.gz", "route"),
        ("09*/csynth.rpt.gz", "csynth"),
    ],
)
def test_stage(name: str, stage: str) -> None:
    assert one(name).stage == stage


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        ("Physopt postPlace", "route"),
        ("Physopt postRoute", "route"),
        ("Optimized", "vsynth"),
        ("Unplaced", "vsynth"),
    ],
)
def test_stage_of_a_design_state(state: str, stage: str, tmp_path: Path) -> None:
    text = unpacked("01*/vivado_synth.rpt.gz").replace(b": Synthesized", b": " + state.encode())
    (record,) = read_text(tmp_path, "u.rpt", text)
    assert (record.design_state, record.stage) == (state, stage)


def test_block_ram_tiles_are_two_halves() -> None:
    record = one("01*/vivado_synth.rpt.gz")
    assert (record.bram_tile, record.bram18) == (139.5, 279)


def test_what_a_user_must_mind_is_noted() -> None:
    assert "misses the target" in one("07*/csynth.xml.gz").notes[0]
    assert "LUT 415,081 is 780 % of the device." in one("07*/csynth.xml.gz").notes
    assert "DSP is capped at the 220 of the device." in one("07*/vivado_synth.rpt.gz").notes
    assert "Timing Violation" in one("10*/*.gz").notes[0]
    assert "9 black boxes" in one("12*/*_synth.rpt.gz").notes[0]
    assert "2633 failing endpoints" in one("05*/*_timing.rpt.gz").notes[0]
    assert "default (zero) input" in one("07*/*csim.log").notes[0]
    assert one("08*/*cosim.rpt").failed and one("08*/*csim.log").failed


def test_interval_of_a_single_transaction_is_unknown_not_zero() -> None:
    for name in ("16*/lat.rpt", "16*/result.transaction.rpt", "16*/*cosim.rpt"):
        assert one(name).ii_cycles is None
        assert one(name).latency_cycles == 5477


def test_parts_of_a_top_are_marked() -> None:
    records = {r.source: r for r in read_reports(next(DATA.glob("12*")))}
    assert records["myproject_csynth.rpt.gz"].part_of == "myproject_axi"
    assert records["myproject_axi_csynth.rpt.gz"].part_of is None


def test_parts_are_found_without_csynth_xml(tmp_path: Path) -> None:
    for path in DATA.glob("12*/*_csynth.rpt.gz"):
        shutil.copy(path, tmp_path)
    parts = {r.top: r.part_of for r in read_reports(tmp_path)}
    assert parts == {"myproject": "myproject_axi", "myproject_axi": None}


def test_instances_of_the_top_are_read_in_order() -> None:
    modules = one("01*/myproject_csynth.rpt.gz").modules
    assert [m.lut for m in modules] == [102555, 9255, 1794, 1061, 587, 203, 221]
    assert modules[0].latency_cycles == (556, 571)
    assert modules[0].name == "gru_stack_ap_fixed_4_2_5_3_0_ap_fixed_4_2_5_3_0_config2_s"
    assert sum(m.dsp or 0 for m in modules) == 123


def unpacked(name: str) -> bytes:
    (path,) = DATA.glob(name)
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def read_text(tmp_path: Path, name: str, text: bytes | str) -> list[SynthesisRecord]:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_file(path, name)


@pytest.mark.parametrize("name", ["08*/*csynth.rpt.gz", "05*/*timing.rpt.gz", "17*/csynth.xml.gz"])
def test_windows_line_ends_any_name_and_packing_change_nothing(name: str, tmp_path: Path) -> None:
    text = unpacked(name).replace(b"\n", b"\r\n")
    suffix = ".xml" if "xml" in name else ".rpt"
    plain = read_text(tmp_path, f"Encoder{suffix}", text)[0]
    packed = read_text(tmp_path, f"Encoder{suffix}.gz", gzip.compress(text))[0]
    expected = one(name).model_copy(update={"source": plain.source})
    assert plain == expected
    assert packed.model_copy(update={"source": plain.source}) == expected


def test_half_known_range_and_old_units(tmp_path: Path) -> None:
    text = unpacked("08*/*csynth.rpt.gz").replace(
        b"|      695|      695|  3.475 us|  3.475 us|  578|  578|",
        b"|      695|        ?|  3.475 us|         ?|    ?|    ?|",
    )
    (record,) = read_text(tmp_path, "a_csynth.rpt", text)
    assert record.latency_cycles == (695, None)
    assert record.latency_ns == (3475.0, None)
    assert record.ii_cycles is None


def test_summary_range(tmp_path: Path) -> None:
    text = unpacked("09*/csynth.rpt.gz").replace(
        b"|      395|  1.975e+03|         -|      390|",
        b"|  4 ~ 395|20.000 ~ 1.975e+03|  -|  1 ~ 390|",
    )
    (record,) = read_text(tmp_path, "csynth.rpt", text)
    assert (record.latency_cycles, record.ii_cycles) == ((4, 395), (1, 390))
    assert record.latency_ns == (20.0, 1975.0)


def test_simulation_both_languages(tmp_path: Path) -> None:
    text = unpacked("16*/*cosim.rpt").replace(
        b"|      VHDL|        NA|             NA|", b"|      VHDL|      Fail|             NA|"
    )
    (record,) = read_text(tmp_path, "a_cosim.rpt", text)
    assert (record.rtl, record.status, record.latency_cycles) == ("VHDL", "Fail", None)


def test_transactions_with_a_range(tmp_path: Path) -> None:
    text = "    latency    interval\ntransaction 0:   10   4\ntransaction 1:   12   x\n"
    for name in ("result.transaction.rpt", "top.performance.result.transaction.xml"):
        (record,) = read_text(tmp_path, name, text)
        assert (record.latency_cycles, record.ii_cycles) == ((10, 12), 4)


def test_lat_of_newer_tools(tmp_path: Path) -> None:
    text = '$MAX_LATENCY = "9"\n$MIN_LATENCY = "9"\n$AVER_LATENCY = "9"\n'
    (record,) = read_text(tmp_path, "lat.rpt", text + '$TOTAL_EXECUTE_TIME = "40"\n')
    assert (record.latency_cycles, record.ii_cycles, record.total_cycles) == (9, None, 40)


@pytest.mark.parametrize(
    ("line", "kind", "status", "errors"),
    [
        ("INFO: [SIM 211-1] CSim done with 0 errors.", "csim", "pass", 0),
        ("INFO: [SIM 1] CSim done with 3 errors.", "csim", "fail", 3),
        ("ERR: [SIM 100] CSim failed with errors.", "csim", "fail", None),
        ("ERROR: [SIM 211-100] 'csim_design' failed: nonzero return value.", "csim", "fail", None),
        (
            "INFO: [COSIM 212-1000] *** C/RTL co-simulation finished: PASS ***",
            "cosim",
            "Pass",
            None,
        ),
        ("ERROR: [COSIM 212-4] *** C/RTL co-simulation finished: FAIL ***", "cosim", "Fail", None),
    ],
)
def test_log_verdicts(
    line: str, kind: str, status: str, errors: int | None, tmp_path: Path
) -> None:
    (record,) = read_text(tmp_path, "vitis_hls.log", f"noise {'0 ' * 99999}\n{line}\nmore\n")
    assert (record.kind, record.status, record.errors) == (kind, status, errors)


def test_several_clocks(tmp_path: Path) -> None:
    text = (
        unpacked("12*/*timing*.gz")
        .replace(
            b"clk_fpga_0  {0.000 5.000}      10.000          100.000         \n",
            b"clk_in      {0.000 4.000}      8.000           125.000         \n"
            b"  clk_fpga_0  {0.000 5.000}    10.000          100.000         \n",
        )
        .replace(
            b"clk_fpga_0          0.290",
            b"clk_in              0.100        0.000                      0                  12\n"
            b"  clk_fpga_0        0.290",
            1,
        )
    )
    (record,) = read_text(tmp_path, "timing.rpt", text)
    assert (record.clock, record.clock_ns, record.clock_estimated_ns) == ("clk_fpga_0", 10.0, 9.71)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    header = unpacked("09*/vivado_utilization.rpt.gz")[:900].decode()
    others = {
        "component.xml": "<?xml version='1.0'?><spirit:component xmlns:spirit='x'/>",
        "project.xml": "<!DOCTYPE html><html/>",
        "exports.xml": "<exports/>",
        "tb_data/rtl_cosim_results.log": "-0.0136719 0.00292969 \n",
        "tb_data/csim_results.log": "PASS\n",
        "csynth_design_size.rpt": "== Design Size Report\n",
        "csynth_design_size.xml": "<designsize/>",
        "clock_utilization_routed.rpt": header.replace(
            "report_utilization", "report_clock_utilization"
        ).replace("Utilization Design Information", "Clock Utilization Report"),
        "hierarchical_utilization.rpt": header.replace(
            "1. CLB Logic", "1. Utilization by Hierarchy"
        ),
        "power.rpt": "Power Report\n",
        "xsim.log": "",
        "utilities.log": "timing\n",
        "csim_results.log": "0.02 0.97\n",
        "notes.txt": "",
        ".autopilot/db/csynth.xml": "",
    }
    for name, text in others.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(next(DATA.glob("01*/csynth.xml")), tmp_path)
    os.mkfifo(tmp_path / "pipe.rpt")
    assert [r.source for r in read_reports(tmp_path)] == ["csynth.xml"]


def test_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no vendor report found"):
        read_reports(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_reports(tmp_path / "nowhere")


def test_each_bad_file_has_its_line_and_the_rest_is_read(tmp_path: Path) -> None:
    good = next(DATA.glob("01*/csynth.xml"))
    shutil.copy(good, tmp_path)
    (tmp_path / "empty_csynth.rpt").write_text("")
    (tmp_path / "cut.xml").write_bytes(good.read_bytes()[:900])
    (tmp_path / "late.xml").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "packed.xml.gz").write_bytes(gzip.compress(good.read_bytes())[:-9])
    (tmp_path / "plain.rpt.gz").write_bytes(b"not packed")
    (tmp_path / "a_csim.log").write_text("INFO: [SIM 2] ****** CSIM start ******\n")
    records, problems, warnings = scan_reports(tmp_path)
    assert [r.source for r in records] == ["csynth.xml"]
    assert len(problems) == 5
    with pytest.raises(UserError) as error:
        read_reports(tmp_path)
    assert str(error.value).splitlines() == problems
    lines = sorted(problems + warnings)  # csynth.xml has the figures of empty_csynth.rpt
    bad = sorted(p.name for p in tmp_path.iterdir() if p.name != good.name)
    for line, name in zip(lines, bad, strict=True):
        assert line.startswith(f"{tmp_path / name}: "), line
        assert "run the tool again" in line


def test_a_report_whose_figures_another_has_is_a_warning(tmp_path: Path) -> None:
    """C synthesis writes the top's figures three times; cosim and timing say theirs once."""
    shutil.copy(next(DATA.glob("08*/*csynth.xml")), tmp_path / "csynth.xml")
    shutil.copy(next(DATA.glob("08*/*csynth.rpt.gz")), tmp_path)
    (tmp_path / "csynth.rpt").write_text("== Synthesis Summary Report of 'myproject'\n")
    scan = scan_reports(tmp_path)
    assert [r.lut for r in scan.records] == [339116, 339116] and scan.problems == []
    assert [line.partition(": ")[0] for line in scan.warnings] == [str(tmp_path / "csynth.rpt")]
    assert read_reports(tmp_path) == scan.records
    (tmp_path / "myproject_cosim.rpt").write_text("cut")
    assert len(scan_reports(tmp_path).problems) == 1
    # Without csynth.xml nothing says that the other report is the top's.
    (tmp_path / "csynth.xml").unlink()
    assert len(scan_reports(tmp_path).problems) == 2
    # A summary is not the same: it gives no clock.
    shutil.copy(next(DATA.glob("25*/csynth.rpt.gz")), tmp_path)
    (tmp_path / "csynth.xml").write_text("<profile>")
    (tmp_path / "myproject_csynth.rpt.gz").unlink()
    assert any("csynth.xml" in line for line in scan_reports(tmp_path).problems)


def test_an_interval_of_0_is_unknown_for_a_loop_only(tmp_path: Path) -> None:
    """The .rpt of a pipelined loop prints 0 where the .xml has 2406."""
    name = "25*/conv2d_Pipeline*.rpt.gz"
    assert one(name).ii_cycles is None
    assert one("25*/conv2d_Pipeline*.xml.gz").ii_cycles == 2406
    modules = one("25*/conv2d_csynth.rpt.gz").modules
    assert [(m.latency_cycles, m.ii_cycles) for m in modules] == [
        (cycles, None) for cycles in (1365, 6139, 411, 52291, 404, 2415)
    ]
    text = unpacked(name)
    for kind in (b"loop auto-rewind", b"               no"):
        changed = text.replace(b" loop pipeline stp|", b"   " + kind[-16:] + b"|")
        assert changed != text
        if b"loop" in kind:
            assert read_text(tmp_path, "m_csynth.rpt", changed)[0].ii_cycles is None
        else:
            with pytest.raises(UserError, match="interval 0"):
                read_text(tmp_path, "m_csynth.rpt", changed)


@pytest.mark.parametrize("gap", [b"* Performance", b"+ Performance"])
def test_summaries_are_read_by_their_headings(gap: bytes, tmp_path: Path) -> None:
    """2025.2 has `Latency` over two columns, another order and one column more than 2024.1."""
    text = unpacked("25*/csynth.rpt.gz").replace(b"* Performance", gap)
    (record,) = read_text(tmp_path, "csynth.rpt", text)
    assert (record.latency_cycles, record.ii_cycles, record.lut) == (912528, 912529, 10236)
    assert (record.dsp, record.ff, record.bram18, record.uram) == (12, 9321, 34, 0)
    wider = re.sub(rb"(?m)^([|+])(.*)([|+])$", widened, text)
    assert read_text(tmp_path, "csynth.rpt", wider)[0] == record
    with pytest.raises(UserError, match="no 'LUT' column"):
        read_text(tmp_path, "csynth.rpt", text.replace(b"     LUT     ", b"     LTU     "))


def widened(line: re.Match[bytes]) -> bytes:
    """A line of a table with one more column at its end."""
    fill = b"----" if line[1] == b"+" else b"  - "
    return line[0] + fill + line[1]


EXPORT = """

Implementation tool: Xilinx Vivado v.2022.1
Project:             p
Solution:            hls
Device target:       xcu200-fsgd2104-2-e
Report date:         Mon Feb 26 21:37:41 2024

#=== Post-@step@ Resource usage ===
SLICE:            0
LUT:           7945
FF:            8073
DSP:             12
BRAM:             5
SRL:            678
CLB:           1746

#=== Final timing ===
CP required:                     3.330
CP achieved post-synthesis:      3.605
"""
ROUTED = EXPORT.replace("@step@", "Implementation") + "CP achieved post-implementation: 3.347\n"


def test_exports_that_miss_their_clock(tmp_path: Path) -> None:
    (record,) = read_text(tmp_path, "huffman_export.rpt", ROUTED + "Timing not met\n")
    assert (record.stage, record.top, record.part) == ("route", "huffman", "xcu200-fsgd2104-2-e")
    assert (record.clock_ns, record.needed_ns, record.wns_ns) == (3.33, 3.347, -0.017)
    assert (record.lut, record.bram18, record.uram) == (7945, 5, None)
    assert record.constraints_met is False and "not met" in record.notes[0]
    (record,) = read_text(tmp_path, "x.rpt", EXPORT.replace("@step@", "Synthesis"))
    assert (record.stage, record.needed_ns, record.constraints_met) == ("vsynth", 3.605, None)
    combinational = ROUTED.replace("3.347", "NA") + "No Sequential Path\n"
    (record,) = read_text(tmp_path, "x_export.rpt", combinational)
    assert record.needed_ns is None and record.lut == 7945


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXPORT.replace("@step@", "Implementation"), "what was achieved post-implementation"),
        (ROUTED + "Timing met\n", "says timing is met with a slack of -0.017"),
        (ROUTED.replace("FF: ", "F: "), "no FF count"),
        (ROUTED.replace("7945", "79x5"), "a whole number"),
        (ROUTED[: ROUTED.index("#=== Final")], "Final timing"),
        (ROUTED.replace("required:    ", "required:  "), ""),
    ],
)
def test_damaged_exports(text: str, words: str, tmp_path: Path) -> None:
    if words:
        with pytest.raises(UserError, match=words):
            read_text(tmp_path, "x_export.rpt", text)
    else:
        assert read_text(tmp_path, "x_export.rpt", text)[0].clock_ns == 3.33


def test_exports_as_xml(tmp_path: Path) -> None:
    text = unpacked("26*/export_impl.xml.gz")
    (record,) = read_text(tmp_path, "export_syn.xml", text.replace(b">impl<", b">syn<"))
    assert (record.stage, record.design_state) == ("vsynth", "Synthesized")
    assert record.available is not None and record.available.bram18 == 730
    old = (  # Vivado HLS: no word on how far it went
        "<profile><AreaReport><Resources><LUT>5</LUT><FF>4</FF><DSP>0</DSP><BRAM>0</BRAM>"
        "</Resources></AreaReport><TimingReport><TargetClockPeriod>5.00</TargetClockPeriod>"
        "<AchievedClockPeriod>5.10</AchievedClockPeriod></TimingReport></profile>"
    )
    (record,) = read_text(tmp_path, "top_export.xml", old)
    assert (record.stage, record.lut, record.wns_ns) == ("vsynth", 5, -0.1)
    for broken, words in (
        (text[:2000], "cut off"),
        (text.replace(b"<LUT>176</LUT>", b""), "no LUT count"),
        (text.replace(b">TRUE<", b">FALSE<"), "says timing is not met"),
    ):
        with pytest.raises(UserError, match=words):
            read_text(tmp_path, "export_impl.xml", broken)


def test_a_pass_without_a_latency_is_no_verdict() -> None:
    (note,) = one("27*/*_cosim.rpt").notes
    assert "no verdict" in note
    assert one("16*/*_cosim.rpt").notes == []


def test_an_estimate_with_its_uncertainty_is_noted(tmp_path: Path) -> None:
    text = unpacked("08*/*csynth.xml")
    target, estimate, uncertainty = (
        float(re.search(rb"<%b>([\d.]+)<" % name, text)[1])  # type: ignore[index]
        for name in (b"TargetClockPeriod", b"EstimatedClockPeriod", b"ClockUncertainty")
    )
    assert estimate + uncertainty < target
    for margin, noted in ((target - estimate, False), (target - estimate + 0.01, True)):
        changed = text.replace(
            b"<ClockUncertainty>%g<" % uncertainty, b"<ClockUncertainty>%.3f<" % margin
        )
        assert changed != text
        (record,) = read_text(tmp_path, "csynth.xml", changed)
        assert any("Estimate + uncertainty" in note for note in record.notes) == noted


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "01*/vivado_synth.rpt.gz",
            b"|  123 |     0 |     12288 |",
            b"|    0 |     0 |     12288 |",
        ),
        ("01*/vivado_synth.rpt.gz", b"| 139.5 |", b"|   0.0 |"),
        ("08*/*csynth.rpt.gz", b"|      332|    29|", b"|        0|    29|"),
        ("08*/*csynth.rpt.gz", b"|      332|    29|", b"|      332|     0|"),
        ("08*/*csynth.rpt.gz", b"|      695|      695|", b"|        0|        0|"),
        ("08*/*csynth.xml", b"Best-caseLatency>695", b"Best-caseLatency>0"),
        ("09*/csynth.rpt.gz", b"467 (3%)", b"0 (3%)"),
        ("09*/csynth.rpt.gz", b"|      395|  1.975", b"|        0|  1.975"),
        ("08*/*csynth.rpt.gz", b"|  578|  578|", b"|    0|    0|"),
        ("10*/*.gz", b"<BRAM_18K>90<", b"<BRAM_18K> 0<"),
        ("05*/*timing.rpt.gz", b"       2633 ", b"          0 "),
        ("08*/*csynth.rpt.gz", b"|    29|   65881|", b"|    2\x00|   65881|"),
        ("08*/*csynth.rpt.gz", b"|    29|   65881|", b"|    29   65881|"),
        ("08*/*csynth.xml", b"<LUT>339116</LUT>", b"<LUT></LUT>"),
        ("08*/*csynth.xml", b"<LUT>339116</LUT>", b"<LUT>-1</LUT>"),
        ("08*/*csynth.xml", b"<unit>ns</unit>", b"<unit>ps</unit>"),
        ("01*/csynth.xml", b"<Worst-caseLatency>667", b"<Worst-caseLatency>67"),
        ("05*/*timing.rpt.gz", b"-0.627     -539.669", b"-0.6e7     -539.669e+999"),
    ],
)
def test_damage_is_told(name: str, old: bytes, new: bytes, tmp_path: Path) -> None:
    text = unpacked(name)
    assert old in text
    file = next(DATA.glob(name)).name.removesuffix(".gz")
    with pytest.raises(UserError, match=file):
        read_text(tmp_path, file, text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("09*/vivado_utilization.rpt.gz", "3. BLOCKRAM\n-"),
        ("09*/vivado_utilization.rpt.gz", "4. ARITHMETIC\n-"),
        ("09*/vivado_utilization.rpt.gz", "15. SLR IO Utilization\n-"),
        ("08*/*csynth.rpt.gz", "== Utilization Estimates"),
        ("08*/*csynth.rpt.gz", "|Available "),
        ("08*/*csynth.rpt.gz", "== Interface"),
        ("05*/*timing.rpt.gz", "| Clock Summary"),
        ("05*/*timing.rpt.gz", "| Intra Clock Table"),
        ("09*/csynth.rpt.gz", "    +---"),
        ("08*/*cosim.rpt", "|   Verilog"),
    ],
)
def test_a_cut_between_lines_is_told(name: str, before: str, tmp_path: Path) -> None:
    text = unpacked(name).decode()
    file = next(DATA.glob(name)).name.removesuffix(".gz")
    with pytest.raises(UserError, match=file):
        read_text(tmp_path, file, text[: text.rindex(before)])


def zeros(record: SynthesisRecord) -> set[str]:
    data = record.model_dump(mode="json", exclude={"notes", "modules"})
    flat = {k: v if isinstance(v, list) else [v] for k, v in data.items()}
    return {
        k for k, values in flat.items() if any(type(v) in (int, float) and v == 0 for v in values)
    }


SMALL = [path for _, path, _ in OURS]
TRUE_ZEROS = {path: zeros(read_file(path, path.name)[0]) for path in SMALL}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Path, bytes]:
    """A real report, cut off or with bytes replaced: by anything but digits, which no reader
    can tell from a true figure."""
    path = draw(st.sampled_from(SMALL))
    data = bytearray(path.read_bytes())
    if path.suffix == ".gz" and draw(st.booleans()):
        data = bytearray(gzip.decompress(bytes(data)))
    noise = st.integers(0, 255).filter(lambda byte: not 48 <= byte <= 57)
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data) - 1)) :]
    for _ in range(draw(st.integers(0, 4))):
        if data:
            start = draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from((4000, 10**9))))))
            data[start : start + draw(st.sampled_from((1, 1, 40)))] = bytes(
                draw(st.lists(noise, min_size=1, max_size=3))
            )
    return path, bytes(data)


@given(damaged())
@settings(
    max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_reports_never_give_a_wrong_zero(tmp_path: Path, case: tuple[Path, bytes]) -> None:
    path, data = case
    name = path.name if data[:2] == b"\x1f\x8b" else path.name.removesuffix(".gz")
    try:
        records = read_text(tmp_path, name, data)
    except UserError as error:
        assert "\n" not in str(error)
        assert name in str(error)
    else:
        assert records  # a report that should be there is not passed over in silence
        for record in records:
            assert zeros(record) <= TRUE_ZEROS[path]


@given(
    st.binary(max_size=3000),
    st.sampled_from(
        [
            "csynth.xml",
            "a_csynth.rpt",
            "vivado_synth.rpt",
            "a_cosim.rpt",
            "lat.rpt",
            "a_csim.log",
            "csynth.xml.gz",
            "result.transaction.rpt",
            "timing.rpt",
        ]
    ),
)
@settings(deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_an_error(tmp_path: Path, data: bytes, name: str) -> None:
    with pytest.raises(UserError):
        read_text(tmp_path, name, data)


def test_forty_megabytes_in_five_seconds_and_little_memory(tmp_path: Path) -> None:
    head = unpacked("10*/*.gz").removesuffix(b"</profile>\n")
    area = b"<AreaEstimates><Resources><LUT>0</LUT></Resources></AreaEstimates>"
    module = b"<Module><Name>m</Name>" + area + b"</Module>\n"
    text = head + b"<ModuleInformation>\n" + module * (42_000_000 // len(module))
    text += b"</ModuleInformation>\n</profile>\n"
    path = tmp_path / "csynth.xml"
    path.write_bytes(text)
    code = (
        "import re, sys, time; from pathlib import Path; from salt_hls.report.readers import *\n"
        "start = time.process_time()\n"
        "(r,) = read_reports(Path(sys.argv[1])); assert r.lut == 3910515\n"
        # ru_maxrss would count the parent's memory, which a fork shares.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(int(peak[1]) // 1024, time.process_time() - start)"
    )
    for file in (path, tmp_path / "packed.xml.gz"):
        if file.suffix == ".gz":
            file.write_bytes(gzip.compress(text, 1))
        run = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
        )
        megabytes, seconds = (float(value) for value in run.stdout.split())
        assert seconds < 5 and megabytes < 200
