"""`make train`: from jet files to shipped weights, metrics and curves."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from pydantic import BaseModel, Field

from salt_hls.config import ModelConfig, find_model, load_yaml
from salt_hls.jets.dataset import CLASSES, JetSet
from salt_hls.training.metrics import Metrics, evaluate
from salt_hls.training.train import Report, Samples, predict, train

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402


class Result(BaseModel):
    """What a training reached on the test jets; beside the weights as <name>.metrics.json."""

    model: str
    training_jets: int
    float_: Metrics = Field(alias="float")
    quantized: Metrics


def train_model(reference: str, data: Path, folder: Path, report: Report) -> Result:
    """Trains the model of a YAML on `data`/train.h5 and writes, beside the YAML, its weights
    (<name>.weights.h5, <name>.float.weights.h5) and metrics; in `folder`/<name>, state and curves.
    """
    path = find_model(reference)
    config = load_yaml(path, ModelConfig)
    splits = {name: JetSet.read(data / f"{name}.h5") for name in ("train", "validation", "test")}
    training, validation, test = (Samples.of(splits[n], config) for n in splits)
    state = folder / path.stem
    float_model, quantized = train(config, training, validation, state, report)
    result = Result.model_validate(
        {
            "model": path.stem,
            "training_jets": len(training.labels),
            "float": evaluate(predict(float_model, test.inputs), test.labels, CLASSES),
            "quantized": evaluate(predict(quantized, test.inputs), test.labels, CLASSES),
        }
    )
    float_model.save_weights(path.with_name(f"{path.stem}.float.weights.h5"))
    quantized.save_weights(path.with_name(f"{path.stem}.weights.h5"))
    text = result.model_dump_json(by_alias=True, indent=1)
    path.with_name(f"{path.stem}.metrics.json").write_text(text + "\n")
    plot_curves(state, state / "curves.png")
    return result


def plot_curves(folder: Path, path: Path) -> None:
    """Loss and accuracy by epoch, of both stages."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    start = 0
    for stage in ("float", "quantized"):
        rows = json.loads((folder / f"{stage}_history.json").read_text())
        epochs = range(start, start + len(rows))
        start += len(rows)
        left.plot(epochs, [r["loss"] for r in rows], label=f"{stage}, training")
        left.plot(epochs, [r["val_loss"] for r in rows], label=f"{stage}, validation")
        right.plot(epochs, [r["val_accuracy"] for r in rows], label=stage)
    left.set_ylabel("cross-entropy")
    right.set_ylabel("validation accuracy")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
