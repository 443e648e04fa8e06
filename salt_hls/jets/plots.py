"""Plots of jets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from salt_hls.jets.dataset import JET_COLUMNS, JetSet
from salt_hls.system.store import replacing

PANELS = (
    ("mass", "jet mass [GeV]", (0, 300, 5)),
    ("pt", "jet pT [GeV]", (800, 1300, 10)),
    ("multiplicity", "constituents", (0, 160, 2)),
)


def plot_classes(jets: Path, path: Path) -> None:
    """Mass, pT and multiplicity of each class, normalized, as one picture."""
    sample = JetSet.read(jets)
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (column, label, limits) in zip(axes, PANELS, strict=True):
        bins = np.arange(limits[0], limits[1] + limits[2], limits[2])
        for number, name in enumerate(sample.classes):
            values = sample.jets[sample.labels == number, JET_COLUMNS.index(column)]
            axis.hist(values, bins, density=True, histtype="step", label=name, linewidth=1.4)
        axis.set_xlabel(label)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].legend(frameon=False)
    axes[0].set_ylabel("jets (normalized)")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
