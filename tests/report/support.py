"""What the report tests share: the sample reports, and records written the way truth.json is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salt_hls.report.records import Resources, SynthesisRecord

DATA = Path(__file__).parent / "samples"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "vendor_reports"

FIGURES: dict[str, Any] = {
    "lut": 200_000,
    "ff": 60_000,
    "dsp": 0,
    "bram18": 0,
    "uram": 0,
    "latency_cycles": 30,
    "ii_cycles": 1,
    "clock_ns": 2.5,
    "clock_estimated_ns": 2.3,
}
"""A record's, inside the budgets of the tests."""

HLS_NAMES = {"bram18": "BRAM_18K", "dsp": "DSP", "ff": "FF", "lut": "LUT", "uram": "URAM"}


def samples(folder: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """(sample/file, path, truth) of every report that `folder`/truth.json speaks of."""
    for sample, entry in json.loads((folder / "truth.json").read_text())["samples"].items():
        for name, truth in entry["files"].items():
            yield f"{sample}/{name}", folder / sample / name, truth


def as_truth(record: SynthesisRecord) -> dict[str, Any]:
    """A record under the keys that truth.json uses for its kind."""
    data: dict[str, Any] = {"kind": record.kind, "tool": record.tool, "version": record.version}
    return data | {
        "csynth": _csynth,
        "csynth_summary": _summary,
        "utilization": _utilization,
        "timing": _timing,
        "export": _export,
        "cosim": _plain,
        "cosim_lat": _lat,
        "cosim_transaction": _transaction,
        "csim": _plain,
    }[record.kind or "csim"](record)


def _hls(resources: Resources | None) -> dict[str, int | None] | None:
    if resources is None:
        return None
    return {theirs: getattr(resources, ours) for ours, theirs in HLS_NAMES.items()}


def _ends(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _csynth(record: SynthesisRecord) -> dict[str, Any]:
    latency, ii = _ends(record.latency_cycles), _ends(record.ii_cycles)
    return {
        "top": record.top,
        "part": record.part,
        "clock_target_ns": record.clock_ns,
        "clock_uncertainty_ns": record.clock_uncertainty_ns,
        "clock_estimated_ns": record.clock_estimated_ns,
        "latency_cycles_min": latency[0],
        "latency_cycles_max": latency[1],
        "ii_min": ii[0],
        "ii_max": ii[1],
        "pipeline_type": record.pipeline_type,
        "used": _hls(record),
        "available": _hls(record.available),
        "absolute_latency": record.absolute_latency,
        "slr_available": _hls(record.slr_available),
        "slr_percent": _hls(record.slr_percent),
        "pipeline_ii": record.pipeline_ii,
        "pipeline_depth": record.pipeline_depth,
    }


def _summary(record: SynthesisRecord) -> dict[str, Any]:
    used = {k: v for k, v in (_hls(record) or {}).items() if v}  # 0 is printed as "-"
    return {
        "top": record.top,
        "part": record.part,
        "latency_cycles": record.latency_cycles,
        "latency_ns": record.latency_ns,
        "interval": record.ii_cycles,
        "pipeline": record.pipeline_type,
        "slack_ns": record.slack_ns,
        "used": used,
    }


def _utilization(record: SynthesisRecord) -> dict[str, Any]:
    room = record.available or Resources()
    halves = room.bram18
    tiles = None if halves is None else halves / 2
    return {
        "design": record.top,
        "device": record.part,
        "design_state": record.design_state,
        "lut": record.lut,
        "ff": record.ff,
        "bram_tile": record.bram_tile,
        "ramb36": record.ramb36,
        "ramb18": record.ramb18,
        "dsp": record.dsp,
        "uram": record.uram,
        "available": {
            "lut": room.lut,
            "ff": room.ff,
            "bram_tile": tiles,
            "ramb36": tiles,
            "ramb18": halves,
            "dsp": room.dsp,
            "uram": room.uram,
        },
    }


def _timing(record: SynthesisRecord) -> dict[str, Any]:
    names = ("wns_ns", "tns_ns", "tns_failing_endpoints", "tns_total_endpoints", "whs_ns", "clock")
    return {
        "device": record.part,
        "design_state": record.design_state,
        "period_ns": record.clock_ns,
        "constraints_met": record.constraints_met,
        **{name: getattr(record, name) for name in names},
    }


def _export(record: SynthesisRecord) -> dict[str, Any]:
    names = ("top", "part", "design_state", "lut", "ff", "dsp", "bram18", "uram", "wns_ns")
    return {
        "period_ns": record.clock_ns,
        "achieved_ns": record.clock_estimated_ns,
        "constraints_met": record.constraints_met,
        **{name: getattr(record, name) for name in names},
    }


def _plain(record: SynthesisRecord) -> dict[str, Any]:
    names = ("status", "errors", "message", "rtl", "total_cycles")
    more = ("latency_min_avg_max", "interval_min_avg_max")
    return {name: getattr(record, name) for name in (*names, *more)}


def _lat(record: SynthesisRecord) -> dict[str, Any]:
    low, average, high = record.interval_min_avg_max or [None] * 3
    return {
        "aver_latency": (record.latency_min_avg_max or [None] * 3)[1],
        "throughput_min_max_avg": [low, high, average],
    }


def _transaction(record: SynthesisRecord) -> dict[str, Any]:
    return {
        "latency": sorted(set(record.latency_min_avg_max or [])),
        "interval": sorted(set(record.interval_min_avg_max or [])),
    }
