"""Metrics of scores that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from salt_hls.training.metrics import correct, evaluate, scores


def test_scores() -> None:
    probabilities = scores(np.log([[1.0, 3], [2, 2], [4, 1]]))
    np.testing.assert_allclose(probabilities, [[0.25, 0.75], [0.5, 0.5], [0.8, 0.2]])
    assert scores(np.array([[1000.0, 0, -1000], [-1000, -2000, 0]])).tolist() == [
        [1, 0, 0],
        [0, 0, 1],
    ]
    assert scores(np.zeros((1, 3), np.float32)).dtype == np.float64


def test_one_logit_is_that_of_the_second_class() -> None:
    np.testing.assert_allclose(scores(np.log([[3.0], [1]])), [[0.25, 0.75], [0.5, 0.5]])


def test_the_first_of_equals_wins() -> None:
    logits = np.array([[1.0, 1, 0], [0, 2, 2], [0, 0, 1]])
    assert correct(logits, np.array([0, 2, 2])).tolist() == [True, False, True]


def test_metrics_of_known_scores() -> None:
    """By falling score, s signal and b background: s s b s b b s b."""
    labels = np.array([1, 1, 0, 1, 0, 0, 1, 0])
    logits = np.stack([np.zeros(8), np.arange(8, 0, -1) - 3.5], axis=-1)
    metrics = evaluate(logits, labels, ("b", "s"))
    # Pairs of signal and background in the right order: 4 + 4 + 3 + 1 of 16.
    assert metrics.auc == pytest.approx({"b": 0.75, "s": 0.75, "mean": 0.75})
    # More than three of four signal jets: with three of four background jets.
    assert metrics.rejection["s"] == pytest.approx(4 / 3)
    # More than three of four background jets, the other way round: with two of four signal jets.
    assert metrics.rejection["b"] == pytest.approx(2)
    assert metrics.events == 8 and metrics.accuracy == 5 / 8


def test_no_background_passes() -> None:
    logits = np.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 1], [0, 2, 0]])
    metrics = evaluate(logits, np.array([0, 1, 2, 1]), ("g", "q", "t"))
    assert metrics.rejection == {"g": None, "q": None, "t": None}
    assert metrics.auc == {"g": 1.0, "q": 1.0, "t": 1.0, "mean": 1.0} and metrics.accuracy == 1


def test_rejection_is_at_80_percent_signal_efficiency() -> None:
    """Ten signal jets, twenty background jets: three of these pass where eight of those do."""
    signal = np.arange(10, 0, -1.0)
    background = np.array([9.5, 8.5, 4.5, 1.5, 0.5, *[-1.0] * 15])
    logits = np.concatenate([signal, background])[:, None]
    labels = np.repeat([1, 0], [10, 20])
    metrics = evaluate(logits, labels, ("background", "signal"))
    # Of the signal 3 to 10 pass, of the background 4.5, 8.5 and 9.5.
    assert metrics.rejection["signal"] == pytest.approx(20 / 3)
