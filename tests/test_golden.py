"""C-simulation regression: any changed bit of a shipped model's logits fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from salt_hls.config import MODELS
from salt_hls.errors import UserError
from salt_hls.firmware import golden
from salt_hls.firmware.build import load_tagger, write_and_compile


@pytest.mark.parametrize("model", sorted(p.stem for p in MODELS.glob("*.yaml")))
def test_logits_are_the_committed_ones(model: str, tmp_path: Path) -> None:
    tagger = load_tagger(model)
    project = write_and_compile(tagger, tmp_path, "Vitis", tmp_path / "log")
    committed = golden.read_golden(model)
    assert committed.shape == (golden.JETS, tagger.config.classes)
    assert all(len(np.unique(column)) > 100 for column in committed.T)
    change = golden.changes(committed, golden.simulated_logits(tagger, project, 1))
    assert change == "no bit changed", f"{model}: {change}; if intended, run make golden"


def test_changes_are_counted() -> None:
    old = np.arange(12).reshape(4, 3)
    new = old.copy()
    new[2] += [0, 5, -1]
    assert golden.changes(old, old) == "no bit changed"
    assert golden.changes(old, new) == ("2 of 12 logits changed in 1 of 4 jets, by up to 5 LSB")
    assert "shape" in golden.changes(old, new[:2])


def test_missing_logits_are_named() -> None:
    with pytest.raises(UserError, match="make golden"):
        golden.read_golden("no_such_model")
