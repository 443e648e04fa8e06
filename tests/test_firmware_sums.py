"""Firmware of the shipped models has the committed bytes, whatever Python and TensorFlow."""

from __future__ import annotations

from pathlib import Path

import firmware_sums
import pytest

from salt_hls.config import MODELS


@pytest.mark.parametrize("model", sorted(p.stem for p in MODELS.glob("*.yaml")))
def test_bytes_are_the_committed_ones(model: str, tmp_path: Path) -> None:
    committed = firmware_sums.committed(model)
    assert len(committed) > 30
    assert firmware_sums.written(model, tmp_path / "firmware") == committed, (
        "if intended, run python tests/firmware_sums.py"
    )
