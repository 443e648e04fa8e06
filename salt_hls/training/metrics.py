"""How well a tagger separates its classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.metrics import roc_auc_score, roc_curve

SIGNAL_EFFICIENCY = 0.8


class Metrics(BaseModel):
    """Metrics of one model on one set of jets.

    auc: area under the ROC curve, each class against all others, and their mean as "mean".
    rejection: 1 / (background efficiency) at 80 % signal efficiency, each class against all
    others; `None` where no background jet passes.
    """

    events: int
    accuracy: float
    auc: dict[str, float]
    rejection: dict[str, float | None]


def scores(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Class probabilities (jets, classes) of logits; one logit becomes two classes (sigmoid)."""
    z = np.asarray(logits, np.float64)
    if z.shape[-1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=-1)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def correct(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Whether a jet's largest score is that of its class (jets,); the first of equals wins."""
    return np.asarray(scores(logits).argmax(axis=-1) == labels)


def evaluate(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], classes: tuple[str, ...]
) -> Metrics:
    """All metrics of logits (jets, classes) against labels (jets,)."""
    probabilities = scores(logits)
    auc: dict[str, float] = {}
    rejection: dict[str, float | None] = {}
    for i, name in enumerate(classes):
        truth = labels == i
        auc[name] = float(roc_auc_score(truth, probabilities[:, i]))
        false, true, _ = roc_curve(truth, probabilities[:, i])
        passed = float(np.interp(SIGNAL_EFFICIENCY, true, false))
        rejection[name] = 1 / passed if passed > 0 else None
    auc["mean"] = float(np.mean(list(auc.values())))
    accuracy = float(np.mean(correct(logits, labels)))
    return Metrics(events=len(labels), accuracy=accuracy, auc=auc, rejection=rejection)
