"""C-simulation regression: any changed bit of a shipped model's logits fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from salt_hls import config
from salt_hls.check import regression
from salt_hls.check.regression import Golden
from salt_hls.config import MODELS
from salt_hls.errors import UserError
from salt_hls.firmware.build import write_and_compile
from salt_hls.hls.csim import run_csim
from salt_hls.models.tagger import load_tagger, sample_inputs
from salt_hls.system.processes import process_pool

SHIPPED = [
    pytest.param(p.stem, marks=() if p.stem == "salt_p4" else pytest.mark.slow)
    for p in sorted(MODELS.glob("*.yaml"))
]


@pytest.mark.parametrize("model", SHIPPED)
def test_logits_are_the_committed_ones(model: str, tmp_path: Path) -> None:
    tagger = load_tagger(model)
    project = write_and_compile(tagger, tmp_path, "Vitis", tmp_path / "log")
    committed = regression.read_golden(regression.golden_path(tagger.files[0]), model)
    assert committed.logits.shape == (regression.JETS, tagger.config.classes)
    assert all(len(np.unique(column)) > 100 for column in committed.logits.T)
    with process_pool(1) as pool:
        outputs = run_csim(project.csim, sample_inputs(tagger)[0][: regression.JETS], pool)
    (logits,) = project.converted.graph.output_nodes
    codes = logits.output.type.codes(outputs[logits.name])
    new = Golden(codes, committed.version, regression.file_digests(tagger.files))
    change = regression.changes(committed, new)
    assert change == "no bit changed", f"{model}: {change}; if intended, run make golden"


LOGITS = np.arange(12).reshape(4, 3)
OLD = Golden(LOGITS, "0.1.0", {"m.yaml": "0" * 16, "m.weights.h5": "1" * 16})
CHANGED = LOGITS + np.array([[0], [0], [1], [0]]) * [0, 5, -1]
DIFFERENCE = "2 of 12 logits changed in 1 of 4 jets, by up to 5 LSB, first in jet 2"


def test_changes_are_counted() -> None:
    assert regression.logit_changes(LOGITS, LOGITS) == "no bit changed"
    assert regression.logit_changes(LOGITS, CHANGED) == DIFFERENCE
    assert (
        regression.logit_changes(LOGITS, LOGITS[:2])
        == "4 jets of 3 logits became 2 jets of 3 logits"
    )


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({}, "no bit changed"),
        ({"logits": CHANGED}, f"{DIFFERENCE}; m.yaml and m.weights.h5 are the same: salt-hls, hls"),
        ({"logits": CHANGED, "version": "0.2.0"}, "salt-hls (0.1.0 then, 0.2.0 now), hls4ml or"),
        ({"digests": {**OLD.digests, "m.yaml": "2" * 16}}, "no bit changed; since then m.yaml"),
        ({"logits": CHANGED, "digests": {"m.yaml": "2", "m.weights.h5": "3"}},
         f"{DIFFERENCE}; since then m.yaml and m.weights.h5 changed"),
    ],
)  # fmt: skip
def test_changes_name_their_cause(new: dict[str, object], words: str) -> None:
    assert words in regression.changes(OLD, replace(OLD, **new))  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.golden.csv"
    for digests in (OLD.digests, {}, {"m ä sha256 x.yaml": "0" * 16}):
        regression.write_golden(path, replace(OLD, digests=digests))
        read = regression.read_golden(path, "m.yaml")
        assert np.array_equal(read.logits, LOGITS) and read.logits.dtype == np.int64
        assert (read.version, read.digests) == ("0.1.0", digests)
    path.write_text("1,2\n3,4\n")  # without a header
    assert regression.changes(
        regression.read_golden(path, "m"), replace(OLD, logits=LOGITS)
    ).endswith("s")


@pytest.mark.parametrize(
    "text", ["", "# salt-hls 0.1.0\n", "1,2\n3\n", "1.5,2\n", "<<<<<<< HEAD\n1\n"]
)
def test_damaged_files_are_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.golden.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="not a table of integers.*`salt-hls golden m.yaml`"):
        regression.read_golden(path, "m.yaml")
    path.unlink()
    with pytest.raises(UserError, match="no golden logits yet; `salt-hls golden m.yaml` writes"):
        regression.read_golden(path, "m.yaml")


def test_digests_are_of_what_logits_depend_on(small_model: Callable[..., Path]) -> None:
    path = small_model()
    weights, float_ = (path.with_name(f"small{kind}.weights.h5") for kind in ("", ".float"))
    float_.write_bytes(b"any")
    files = (path, weights, float_)
    first = regression.file_digests(files)
    assert list(first) == ["small.yaml", "small.weights.h5"]
    text = path.read_text()
    content = yaml.safe_load(text)
    path.write_text("# another comment\n" + yaml.safe_dump({**content, "training": None}))
    float_.write_bytes(b"other")
    assert regression.file_digests(files) == first
    path.write_text(text.replace("partitions: 2", "partitions: 3"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    second = regression.file_digests(files)
    assert all(first[name] != second[name] for name in first)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert regression.golden_path(tmp_path / "mine.keras") == tmp_path / "mine.golden.csv"
    assert regression.golden_path(MODELS / "salt_p4.yaml") == regression.GOLDEN / "salt_p4.csv"
    for name in ("PACKAGE", "KERAS_MODELS"):
        monkeypatch.setattr(regression, name, config.MODELS)  # as in a wheel
    with pytest.raises(UserError, match="repository"):
        regression.golden_path(MODELS / "salt_p4.yaml")
