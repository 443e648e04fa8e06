"""How well a tagger tags: float, quantized and as firmware, on the shipped jets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from salt_hls.jets.dataset import CLASSES
from salt_hls.models.tagger import SAMPLE, Tagger, single_output
from salt_hls.report.records import Physics, RocCurve, Scores
from salt_hls.training.metrics import Metrics, evaluate, scores

ROC_POINTS = 60


def physics_of(
    tagger: Tagger,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int8] | None,
    csim_logits: NDArray[np.float64],
) -> Physics | None:
    """Of a tagger of jets, from the logits of its C-simulation (events, classes); else `None`."""
    classes = CLASSES
    model = single_output(tagger)
    if labels is None or model is None or model.output_shape[-1] != len(classes):
        return None
    logits: dict[str, NDArray[np.floating[Any]]] = {
        "quantized": model(inputs).numpy(),
        "csim": csim_logits,
    }
    if tagger.float_model is not None:
        logits["float"] = tagger.float_model(inputs).numpy()
    metrics = {name: evaluate(z, labels, classes) for name, z in logits.items()}

    def compared(value: Callable[[Metrics], float | None]) -> Scores:
        return Scores.model_validate({name: value(m) for name, m in metrics.items()})

    return Physics(
        dataset=SAMPLE.name,
        events=len(labels),
        accuracy=compared(lambda m: m.accuracy),
        auc=compared(lambda m: m.auc["mean"]),
        background_rejection={
            f"{name} at 80 %": compared(partial(_rejection, name)) for name in classes
        },
        roc=[
            _roc(name, model, scores(logits[model])[:, i], labels == i)
            for i, name in enumerate(classes)
            for model in ("csim", "float")
            if model in logits
        ],
    )


def _rejection(name: str, metrics: Metrics) -> float | None:
    return metrics.rejection[name]


def _roc(label: str, model: Any, score: NDArray[np.float64], truth: NDArray[np.bool_]) -> RocCurve:
    background, signal, _ = roc_curve(truth, score)
    points = np.linspace(0, 1, ROC_POINTS)
    return RocCurve(
        label=label,
        model=model,
        signal=[round(float(p), 4) for p in points],
        background=[round(float(b), 6) for b in np.interp(points, signal, background)],
    )
