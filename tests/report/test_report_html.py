"""report.html: self-contained, verdict first, whole with any section missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from salt_hls.report.budget import judge, load_budget
from salt_hls.report.page import render_html, write_html
from salt_hls.report.readers import read_reports
from salt_hls.report.records import BitAccuracy, Module, Report, SynthesisRecord

from .support import DATA, FIGURES
from .test_report_json import REPORT

VOID = {"meta", "br", "line"}


class Balance(HTMLParser):
    """Checks that tags are closed in order, and gathers the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def text(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Balance(page).words)).replace("\u200b", "")


def design(**changes: Any) -> Report:
    record: dict[str, Any] = {
        "source": "yosys",
        "stage": "rtl-synth",
        "part": "xcvu13p",
        **FIGURES,
        "ff": 1,
    }
    report = REPORT.model_copy(
        update={"synthesis": [SynthesisRecord.model_validate(record | changes)]}
    )
    report.budget = judge(report, load_budget("cms_l1t_jet"))
    return report


def headline(page: str) -> str:
    found = re.search(r'class="headline (\w+)">([^<]+)<', page)
    assert found
    return f"{found[1]}: {found[2]}"


def test_page_is_self_contained() -> None:
    page = render_html(design(), [("v1", design(lut=190_000))])
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", page)
    assert page.startswith("<!doctype html>") or page.lstrip().startswith("<!doctype html>")
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page


def test_verdict_comes_first() -> None:
    words = text(render_html(design()))
    order = ["Fits its budget", "Bit-exact: 50 values", "Budget cms_l1t_jet", "Bit accuracy",
             "Physics", "ROC", "Where each figure comes from"]  # fmt: skip
    places = [words.index(word) for word in order]
    assert places == sorted(places)


def wrong() -> Report:
    entry = BitAccuracy.model_validate(
        {
            "pair": "csim/rtl",
            "layer": "softmax",
            "events": 10,
            "values": 50,
            "mismatches": 3,
            "max_lsb": 2,
            "examples": [{"event": 7, "index": [0, 1], "expected": 0.5, "got": 0.25}],
        }
    )
    return design().model_copy(update={"bit_accuracy": [*REPORT.bit_accuracy, entry]})


def unchecked() -> Report:
    return design().model_copy(update={"bit_accuracy": []})


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (design(), "good: Fits its budget"),
        (design(stage="estimate"), "open: Fits its budget, by estimate"),
        (design(lut=500_000), "bad: Over budget"),
        (design(ii_cycles=(1, 2)), "bad: Not trigger-ready"),
        (design(part="xcvu9p"), "bad: Built for another part"),
        (design(ii_cycles=None), "warn: Budget not proven"),
        (design(ii_cycles=None, lut=500_000), "bad: Over budget"),
        (design(clock_estimated_ns=None), "warn: Budget not proven"),
        (design(clock_estimated_ns=None, levels=6), "open: Fits its budget, by estimate"),
        (design(clock_estimated_ns=None, levels=7), "bad: Over budget"),
        (unchecked(), "open: Fits its budget; bits not compared"),
        (design().model_copy(update={"budget": None}), "good: Bit-exact"),
        (wrong(), "bad: Not bit-exact"),
        (Report(model="m"), "open: Not judged"),
        (design(kind="cosim", status="Fail"), "bad: Simulation failed"),
    ],
)  # fmt: skip
def test_headline(report: Report, expected: str) -> None:
    assert headline(render_html(report)) == expected


def test_mismatches_are_shown() -> None:
    words = text(render_html(wrong()))
    assert "3 of 100 compared values differ, first in softmax (csim/rtl)" in words
    assert "3 differ up to 2 LSB" in words
    assert "7 [0, 1] 0.5 0.25" in words


def test_estimates_are_labelled_wherever_they_stand() -> None:
    page = render_html(design(stage="estimate"))
    assert page.count('class="stage estimate"') >= 12
    assert "By estimate, not measured: Clock, Latency, II, LUT, FF, DSP, BRAM 18k, URAM." in page
    assert 'class="stage estimate"' not in render_html(design())


def limits(report: Report) -> dict[str, tuple[str, str]]:
    """Of each limit on the page: the class that gives its colour, and its words."""
    found = re.findall(
        r'<div class="limit">\s*<header class="(\w+)">(.*?)</header>',
        render_html(report),
        re.DOTALL,
    )
    words = [(kind, text(body).strip()) for kind, body in found]
    return {body.split()[0]: (kind, body) for kind, body in words}


def test_each_limit_says_its_verdict_in_words_too() -> None:
    report = design(clock_estimated_ns=None, lut=500_000, uram=None)
    assert report.budget is not None
    shown = limits(report)
    assert len(shown) == len(report.budget.checks) == 9
    for name, verdict, words in (
        ("Clock", "unproven", "the target; nobody timed the logic"),
        ("Latency", "unproven", "30 cycles x 2.5 ns, the target"),
        ("URAM", "unproven", "unknown limit 320 unknown: no report gives it"),
        ("LUT", "fail", "500,000 of 432,000"),
        ("FF", "pass", "1 of 864,000"),
    ):
        kind, body = shown[name]
        assert kind == verdict and f" {verdict} " in body, body
        assert words in text(render_html(report))
    summary = "of 9 limits: 1 not kept (LUT), 3 not proven (Clock, Latency, URAM)."
    assert summary in text(render_html(report))


def test_a_clock_from_levels_of_logic_is_called_an_estimate() -> None:
    page = render_html(design(clock_estimated_ns=None, levels=7))
    words = text(page)
    assert "By estimate, not measured: Clock, Latency." in words
    assert "estimated from 7 levels of logic, not placed and routed" in words
    assert page.count('<span class="stage estimate">rtl-synth, estimate</span>') == 4
    assert "2.65 of 2.5 ns, estimated from 7 levels of logic" in words
    assert "2.3 of 2.5 ns" in text(render_html(design()))


def test_conditions_and_what_is_not_included_stand_beside_the_figures() -> None:
    words = text(render_html(design()))
    assert "Figures at a 2.5 ns target, not placed and routed." in words
    missing = "Not in these figures: what must come before the firmware"
    assert missing in words and "32 hardest particles, sorting them (by kT), log2" in words
    routed = design(stage="route")
    assert "Figures at a 2.5 ns target, placed and routed." in text(render_html(routed))
    foreign = Report(model="m", synthesis=routed.synthesis)  # of a folder: no model of ours
    assert missing not in text(render_html(foreign))
    assert "Figures" not in text(render_html(Report(model="m")))


@pytest.mark.parametrize("section", ["bit_accuracy", "physics", "synthesis", "budget"])
def test_sections_may_be_missing(section: str) -> None:
    empty = Report(model="m").model_dump()[section]
    words = text(render_html(design().model_copy(update={section: empty})))
    assert "None" not in words


def test_bit_accuracy_alone() -> None:
    report = Report(model="m", bit_accuracy=REPORT.bit_accuracy)
    words = text(render_html(report))
    assert "Bit-exact" in words and "No hardware figures yet." in words
    assert "Where each figure comes from" not in words


@pytest.mark.parametrize("sample", sorted(p for p in DATA.iterdir() if p.is_dir()))
def test_every_sample_renders(sample: Path) -> None:
    report = Report(model=sample.name, synthesis=read_reports(sample))
    report.budget = judge(report, load_budget("atlas_gep"))
    words = text(render_html(report))
    assert "None" not in words and "nan" not in words
    for record in report.synthesis:
        assert record.source in words


def test_pipeline_bars_stand_where_the_stages_do() -> None:
    modules = [
        Module(name="embed", start_cycle=0, latency_cycles=3, lut=5, levels=4),
        Module(name="softmax<b>", start_cycle=3, latency_cycles=1),
    ]
    page = render_html(design(modules=modules))
    assert "left:75.00%;width:25.00%" in page
    assert "softmax&lt;b&gt;" in page
    assert "4 in all" in text(page)
    assert "3 cycles, 5 LUT, 4 levels" in text(page)
    loose = [module.model_copy(update={"start_cycle": None}) for module in modules]
    assert "parts overlap" in text(render_html(design(modules=loose)))


def test_stages_over_their_budget_are_named_beside_the_pipeline() -> None:
    modules = [
        Module(name=f"s{k}", start_cycle=k, latency_cycles=1, delay_ns=2 + k / 4) for k in range(3)
    ]
    page = render_html(design(modules=modules, stage_budget_ns=2.25))
    assert '<p class="warn">1 of 3 stages over the 2.25 ns of a stage: s2 2.5 ns.</p>' in page
    assert "of a stage" not in render_html(design(modules=modules))


def test_a_long_pipeline_is_a_profile() -> None:
    stages = [
        Module(name=f"s{k}", start_cycle=k + 1, latency_cycles=1, lut=10 * k, levels=k % 5)
        for k in range(40)
    ]
    page = render_html(design(modules=stages))
    heights = [float(h) for h in re.findall(r'class="column".*? height="([\d.]+)"', page)]
    assert len(heights) == 40 and heights[0] == 0 and max(heights) == heights[39] == 170
    assert "390 LUT at most" in page
    assert "<title>s39: 390 LUT, 4\u00a0levels</title>" in page


def test_history_marks_regressions_between_like_stages() -> None:
    now = design(lut=200_000, ff=2)
    history = [("old", design(lut=210_000)), ("last", design(lut=190_000))]
    page = render_html(now, history)
    assert re.search(r'<span class="bad">200,000</span><small class="bad">\+5.3', page)
    assert re.search(r'<span class="open">190,000</span><small class="good">-9.5', page)
    words = text(page)
    assert words.index("this report last old") < words.index("Where each figure")
    other = render_html(now, [("estimate", design(lut=1, stage="estimate"))])
    assert not re.search(r'<span class="bad">200,000', other)


def test_names_are_escaped_and_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(Report(model="<script>x</script>"), path)
    page = path.read_text()
    assert "<script>" not in page
    assert page.rstrip().endswith("</html>")
