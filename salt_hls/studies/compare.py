"""Paired comparisons of rows, with their uncertainties and verdicts.

A difference of accuracy has two sources of error. The jets: the test set is a sample, and every
run is tested on the same one, so what counts is how the per-jet differences scatter. The seed:
initial weights and the order of training move a result; three seeds alone measure that badly, so
the median variance of all differences of the study is taken, and a row's own when larger. (Not the
mean: a row that one seed fails to train would blur all that train steadily.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.studies.study import Expectation, Results, Study

Verdict = Literal["holds", "does not hold", "cannot be decided"]

MIN_SEEDS = 3
"""Below this a claim is not judged."""

SIGMAS = 2.0
"""Half width of the judged interval in standard errors (95 %)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error."""

    mean: float
    error: float
    seeds: int


@dataclass(frozen=True)
class RowResult:
    """What the runs of a row say; accuracies are shares of jets.

    difference: accuracy minus that of the row it is compared with, on seeds that both have.
    verdict: on the row's claim, `None` without one.
    """

    accuracy: Estimate
    auc: float
    parameters: int
    difference: Estimate | None
    verdict: Verdict | None


def judge(difference: Estimate, expect: Expectation, margin: float) -> Verdict:
    """Whether a claim on a difference holds.

    "better": the interval of `SIGMAS` standard errors is above 0; it does not hold when even the
    interval's upper end is no gain that matters (`margin`). "worse" likewise. "same": the interval
    is inside the margin, or outside of 0 and reaching beyond the margin.
    """
    low = difference.mean - SIGMAS * difference.error
    high = difference.mean + SIGMAS * difference.error
    if difference.seeds < MIN_SEEDS:
        return "cannot be decided"
    if expect == "same":
        holds, fails = -margin < low and high < margin, low > 0 or high < 0
    else:
        if expect == "worse":
            low, high = -high, -low
        holds, fails = low > 0, high < margin
    return "holds" if holds else "does not hold" if fails else "cannot be decided"


def row_results(study: Study, results: Results) -> dict[str, RowResult]:
    """Results of all rows that have runs of the study's present settings.

    Raises `UserError` when these runs were tested on different jets.
    """
    keys = {run.name: run.settings.key for run in study.runs()}
    records = [r for r in results.records().values() if keys.get(r.name) == r.key]
    if len({r.jets for r in records}) > 1:
        raise UserError(f"{results.path}: holds runs of different jets; rerun them all")
    correct: dict[str, dict[int, NDArray[np.bool_]]] = {name: {} for name in study.rows}
    for record in records:
        correct[record.row][record.seed] = results.correct(record)
    hits = {
        name: np.stack(list(seeds.values())).astype(float)
        for name, seeds in correct.items()
        if seeds
    }
    pairs = {
        name: paired
        for name, row in study.rows.items()
        if row.against and (paired := _paired(correct[name], correct[row.against])) is not None
    }
    accuracies, differences = _estimates(hits), _estimates(pairs)
    found = {}
    for name, row in study.rows.items():
        own = [r for r in records if r.row == name]
        if own:
            difference = differences.get(name)
            verdict = None
            if difference and row.expect:
                verdict = judge(difference, row.expect, study.margin)
            auc = float(np.mean([r.auc["mean"] for r in own]))
            found[name] = RowResult(accuracies[name], auc, own[0].parameters, difference, verdict)
    return found


def _paired(
    row: dict[int, NDArray[np.bool_]], reference: dict[int, NDArray[np.bool_]]
) -> NDArray[np.float64] | None:
    """Per-jet differences (seeds, test jets) of the seeds both have, or `None`."""
    seeds = sorted(row.keys() & reference.keys())
    if not seeds:
        return None
    differences: list[NDArray[np.float64]] = [
        row[s].astype(np.float64) - reference[s].astype(np.float64) for s in seeds
    ]
    return np.stack(differences)


def _estimates(values: dict[str, NDArray[np.float64]]) -> dict[str, Estimate]:
    """Mean and error of each (seeds, test jets)."""
    means = {name: v.mean(axis=1) for name, v in values.items()}
    spread = [_variance(m) for m in means.values() if len(m) > 1]
    typical = float(np.median(spread)) if spread else 0.0
    found = {}
    for name, v in values.items():
        seeds, jets = v.shape
        own = float(np.var(means[name], ddof=1)) if seeds > 1 else 0.0
        variance = max(own, typical) / seeds + float(np.var(v.mean(axis=0))) / jets
        found[name] = Estimate(float(v.mean()), variance**0.5, seeds)
    return found


def _variance(values: NDArray[np.float64]) -> float:
    """Of few values, as often too small as too large: a median of such estimates is unbiased.

    Wilson and Hilferty: the median of chi-squared with f degrees of freedom is f (1 - 2/9f)^3.
    """
    freedom = len(values) - 1
    return float(np.var(values, ddof=1)) / (1 - 2 / (9 * freedom)) ** 3
