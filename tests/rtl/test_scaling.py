"""Cost against particles and lanes: small designs, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from salt_hls.cli.commands import app
from salt_hls.errors import UserError
from salt_hls.graph.graph import Graph
from salt_hls.models.tagger import load_tagger
from salt_hls.studies import scaling
from salt_hls.studies.scaling import Scaling, measure, resized
from salt_hls.system.jobs import Runner

STREAM = {"io_type": "io_stream", "clock_ns": 10}


@pytest.fixture
def streaming(small_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scaling, "JETS", 20)
    monkeypatch.setattr(scaling, "POINTS", ((5, 1), (8, 2)))
    return small_model(firmware=STREAM)


@pytest.mark.slow
def test_points_are_simulated_and_synthesized(
    streaming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out/scaling.json"
    arguments = ["scaling", str(streaming), "--path", str(path), "--build", str(tmp_path / "b")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = Scaling.model_validate_json(path.read_text())
    one, two = result.points
    assert (one.ii_cycles, two.ii_cycles) == (5, 4) and one.events == two.events == 177
    assert one.latency_cycles > one.ii_cycles and two.lut > one.lut > 1000 and one.ff > 1000
    assert path.with_suffix(".png").stat().st_size > 10_000

    run = Graph.run

    def wrong(*arguments: Any) -> dict[str, Any]:
        *others, (name, logits) = run(*arguments).items()
        logits[3, 1] += 2.0**-7
        return {**dict(others), name: logits}

    monkeypatch.setattr(Graph, "run", wrong)
    other = tmp_path / "scaling.json"
    with pytest.raises(UserError, match="small_n5_x1: the RTL does not give golden's bits"):
        measure(str(streaming), other, tmp_path / "b/cache", 1, Runner(1), lambda *_: None)
    assert not other.exists()


def test_only_streaming_models(small_model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a model of a YAML with firmware.io_type: io_stream"):
        measure(str(small_model()), tmp_path / "s.json", tmp_path, 1, Runner(1), lambda *_: None)


def test_weights_fit_the_new_size(streaming: Path) -> None:
    tagger = load_tagger(str(streaming))
    same, longer = resized(tagger, 6, 1), resized(tagger, 12, 3)
    for old, kept, new in zip(
        tagger.quantized.get_weights(),
        same.quantized.get_weights(),
        longer.quantized.get_weights(),
        strict=True,
    ):
        assert np.array_equal(old, kept)
        if old.shape != new.shape:
            assert np.array_equal(old[..., [0, -1]], new[..., [0, -1]])  # ends of a chunk
        else:
            assert np.array_equal(old, new)
    assert longer.config.chunk == 6 and longer.config.firmware.particles_per_clock == 3
