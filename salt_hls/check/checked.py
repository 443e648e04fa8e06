"""Firmware that has passed its checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salt_hls.graph.graph import Graph
from salt_hls.models.tagger import Tagger


@dataclass(frozen=True)
class Checked:
    """Firmware that has passed its checks, in its build folder.

    inputs (events, ...) and outputs (events, values): what C-simulation was given and gave, as
    grid floats; several outputs one after the other.
    """

    folder: Path
    tagger: Tagger
    graph: Graph
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float64]
