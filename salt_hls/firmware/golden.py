"""C-simulation regression: committed integer logits of sample jets for every shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.files import replacing
from salt_hls.firmware.build import Project, Tagger, sample_inputs
from salt_hls.firmware.convert import output_nodes
from salt_hls.firmware.csim import run_csim
from salt_hls.firmware.replay import output_type
from salt_hls.paths import CHECKOUT
from salt_hls.processes import process_pool

GOLDEN = CHECKOUT / "tests" / "golden"
JETS = 500


def golden_path(model: str) -> Path:
    """CSV of a model: one jet a row, one integer logit (in LSB) a column."""
    return GOLDEN / f"{model}.csv"


def simulated_logits(tagger: Tagger, project: Project, workers: int) -> NDArray[np.int64]:
    """Integer logits (500, classes) of the first sample jets, from C-simulation."""
    inputs, _ = sample_inputs(tagger)
    with process_pool(workers) as pool:
        outputs = run_csim(project.csim, inputs[:JETS], pool)
    nodes = output_nodes(project.graph)
    codes = [output_type(node).codes(outputs[node.name]) for node in nodes]
    return np.concatenate([c.reshape(len(c), -1) for c in codes], axis=1)


def read_golden(model: str) -> NDArray[np.int64]:
    """The committed logits; `UserError` when there are none."""
    path = golden_path(model)
    if not path.exists():
        raise UserError(f"{path}: no committed logits; `make golden` writes them")
    return np.loadtxt(path, dtype=np.int64, delimiter=",", ndmin=2)


def write_golden(model: str, logits: NDArray[np.int64]) -> None:
    """Replaces the committed logits."""
    with replacing(golden_path(model)) as partial:
        np.savetxt(partial, logits, fmt="%d", delimiter=",")


def changes(old: NDArray[np.int64], new: NDArray[np.int64]) -> str:
    """One line: how many jets and logits differ, and by how much."""
    if old.shape != new.shape:
        return f"shape {old.shape} became {new.shape}"
    differs = old != new
    if not differs.any():
        return "no bit changed"
    jets = int(differs.any(axis=1).sum())
    return (
        f"{int(differs.sum())} of {old.size} logits changed in {jets} of {len(old)} jets, "
        f"by up to {int(np.abs(old - new).max())} LSB"
    )
