"""Figures of merit, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from salt_hls.training.metrics import evaluate


def test_rejection_is_at_80_percent_signal_efficiency() -> None:
    """Ten signal jets, twenty background jets: three of these pass where eight of those do."""
    signal = np.arange(10, 0, -1.0)
    background = np.array([9.5, 8.5, 4.5, 1.5, 0.5, *[-1.0] * 15])
    logits = np.concatenate([signal, background])[:, None]
    labels = np.repeat([1, 0], [10, 20])
    metrics = evaluate(logits, labels, ("background", "signal"))
    # Of the signal 3 to 10 pass, of the background 4.5, 8.5 and 9.5.
    assert metrics.rejection["signal"] == pytest.approx(20 / 3)
