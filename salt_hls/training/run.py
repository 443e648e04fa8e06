"""`make train`: from jet files to weights, metrics and curves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from salt_hls.config import MODELS, ModelConfig, find_model, load_yaml
from salt_hls.errors import UserError
from salt_hls.jets.readers import load_data
from salt_hls.models.weights import save_weights
from salt_hls.system.digest import digest
from salt_hls.system.processes import cores
from salt_hls.system.store import locked, replacing
from salt_hls.system.wording import option
from salt_hls.training.cost import width_maps
from salt_hls.training.learned import feature_types, learn, require_reachable, stage_of, total_lut
from salt_hls.training.metrics import Metrics, correct, evaluate
from salt_hls.training.train import OnStep, Samples, predict, train, train_float

Note = Callable[[str], None]

STATE, TRAINED = "train", "trained"
"""Folders, in that of the builds, of interrupted trainings and of the weights of shipped models."""


class Result(BaseModel):
    """What a training reached on the test jets; beside its weights as <name>.metrics.json.

    lost, won: jets that only the float, only the quantized model classifies correctly. seconds: by
    the clock, of the epochs of both stages, on `cores` cores; `None` if it began before epochs were
    timed. predicted_lut: what `training/cost.py` predicts for unrolled hardware, no measurement;
    `None` where it was not predicted yet.
    """

    model: str
    training_jets: int
    seconds: float | None = None
    cores: int | None = None
    float_: Metrics = Field(alias="float")
    quantized: Metrics
    lost: int
    won: int
    predicted_lut: int | None = None

    @property
    def loss(self) -> tuple[float, float]:
        """Accuracy of the float minus that of the quantized model, and its standard error.

        Both see the same jets, so only those that one of them gets right scatter.
        """
        mean = (self.lost - self.won) / self.quantized.events
        changed = (self.lost + self.won) / self.quantized.events
        return mean, ((changed - mean**2) / self.quantized.events) ** 0.5


def weights_folder(path: Path, build: Path, ship: bool) -> Path:
    """Where the weights of a model's YAML go: beside it, but those of a shipped model to
    `build`/trained, with a copy of the YAML, unless they are to be the shipped ones.

    Raises `UserError` for `ship` of a model that is not shipped.
    """
    shipped = path.resolve().parent == MODELS
    if ship and not shipped:
        raise UserError(
            f"{path}: not a shipped model; leave {option('ship')}, its weights go beside it"
        )
    return build / TRAINED if shipped and not ship else path.parent


def train_model(
    reference: str,
    data: Path,
    build: Path,
    on_step: OnStep,
    note: Note = lambda text: None,
    seed: int | None = None,
    ship: bool = False,
    target_lut: int | None = None,
) -> Result:
    """Trains the model of a YAML on a data set (`jets.readers.load_data`) and writes, into
    `weights_folder`, its weights (<name>.weights.h5, <name>.float.weights.h5) and metrics; state
    and curves go to `build`/train/<name>/<digest of YAML and jets>, so that a training continues
    only what is the same. What was mended in the data is told to `note`, a line each.

    seed, target_lut: instead of the YAML's; <name> is then <YAML>.seed<seed>, <YAML>.lut<target>,
    or has both.
    """
    path = find_model(reference)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{path}: a training starts from a model's YAML; this is no YAML")
    target = weights_folder(path, build, ship)
    config = load_yaml(path, ModelConfig)
    if config.training is None or config.types is None:
        key = "training" if config.training is None else "types"
        raise UserError(f"{path}: the key {key!r} is missing; a model to train declares it")
    name = of_seed = path.stem
    changes: dict[str, Any] = {}
    if seed is not None:
        name = of_seed = f"{name}.seed{seed}"
        changes["seed"] = seed
    if target_lut is not None:
        if config.training.learned is None:
            raise UserError(
                f"{path}: {option('target-lut')} is for learned widths; give the YAML widths: "
                "{weights: weight, activations: element} and training.learned"
            )
        name += f".lut{target_lut}"
        changes["learned"] = config.training.learned.model_copy(update={"target_lut": target_lut})
    changed = config.training.model_copy(update=changes)
    config = config.model_copy(update={"training": changed})
    jets = load_data(data, config.particles)
    jets.require_fit(config.inputs, config.classes, path)
    for line in jets.notes:
        note(line)
    training, validation, test = (
        Samples.of(split, config) for split in (jets.train, jets.validation, jets.test)
    )
    classes = jets.test.classes
    seen = (a for split in (training, validation) for a in (split.inputs, split.labels))
    # Trainings to several targets share the float one.
    left_out: dict[str, Any] = {"training": {"learned"}}
    if not config.widths.learned:
        left_out["widths"] = True
    state = build / STATE / of_seed / digest(config.model_dump_json(exclude=left_out), *seen)[:12]
    with locked(state, lambda: note(f"waiting for another training of {name} on these jets")):
        if changed.learned is None:
            stages, files = ("float", "quantized"), ""
            float_model, quantized = train(config, training, validation, state, on_step)
        else:
            require_reachable(config)
            stages = ("float", stage_of(changed.learned))
            float_model = train_float(config, training, validation, state, on_step)
            quantized = learn(config, float_model, training, validation, state, on_step)
            files = f"{stages[1]}/"
            plot_widths(width_maps(quantized, feature_types(config)), state / files / "widths.png")
        plot_curves(state, state / files / "curves.png", stages)
    logits = [predict(model, test.inputs) for model in (float_model, quantized)]
    float_, quantized_ = (evaluate(z, test.labels, classes) for z in logits)
    hits = [correct(z, test.labels) for z in logits]
    result = Result(
        model=name,
        training_jets=len(training.labels),
        seconds=_seconds(state, stages),
        cores=cores(),
        float=float_,
        quantized=quantized_,
        lost=int(np.sum(hits[0] & ~hits[1])),
        won=int(np.sum(hits[1] & ~hits[0])),
        predicted_lut=total_lut(quantized, config),
    )
    with locked(build / STATE / name):
        for model, kind in ((float_model, ".float"), (quantized, "")):
            save_weights(model, target / f"{name}{kind}.weights.h5")
        with replacing(target / f"{name}.metrics.json") as partial:
            partial.write_text(result.model_dump_json(by_alias=True, indent=1) + "\n")
        if target != path.parent or target_lut is not None:
            with replacing(target / f"{name}.yaml") as partial:
                partial.write_text(_changed(path.read_text(), seed, target_lut))
    return result


def _changed(text: str, seed: int | None, target_lut: int | None) -> str:
    """The text of a model's YAML, that of another seed or target without its comments."""
    if seed is None and target_lut is None:
        return text
    content = yaml.safe_load(text)
    if seed is not None:
        content["training"]["seed"] = seed
    if target_lut is not None:
        content["training"]["learned"]["target_lut"] = target_lut
    return str(yaml.safe_dump(content, sort_keys=False))


def _seconds(folder: Path, stages: Sequence[str]) -> float | None:
    rows = [row for stage in stages for row in _history(folder, stage)]
    return round(sum(r["seconds"] for r in rows)) if all("seconds" in r for r in rows) else None


def _history(folder: Path, stage: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{stage}_history.json").read_text())
    return rows


def plot_curves(folder: Path, path: Path, stages: Sequence[str]) -> None:
    """Loss and accuracy by epoch, of both stages, and predicted LUTs where widths are learned."""
    histories = {stage: _history(folder, stage) for stage in stages}
    priced = any("lut" in row for rows in histories.values() for row in rows)
    figure = Figure(figsize=(16 if priced else 11, 4), layout="constrained")
    left, right, *third = figure.subplots(1, 3 if priced else 2)
    start = 0
    for stage, rows in histories.items():
        name, epochs = stage.split("-")[0], range(start, start + len(rows))
        start += len(rows)
        left.plot(epochs, [r["loss"] for r in rows], label=f"{name}, training")
        left.plot(epochs, [r["val_loss"] for r in rows], label=f"{name}, validation")
        right.plot(epochs, [r["val_accuracy"] for r in rows], label=name)
        for axis in third if "lut" in rows[0] else ():
            axis.semilogy(epochs, [r["lut"] for r in rows], label=name)
            axis.set_ylabel("LUT, predicted")
    left.set_ylabel("cross-entropy")
    right.set_ylabel("validation accuracy")
    for axis in (left, right, *third):
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def plot_widths(maps: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """A map of every tensor whose elements have widths of their own, particles by columns, and of
    the bits of every layer's weights, rows by columns; what is pruned is white."""
    columns = 4
    rows = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    most = max(float(m.max()) for m in maps.values())
    for axis, (name, widths) in zip(axes, maps.items(), strict=False):
        shown = np.where(widths == 0, np.nan, widths).reshape(-1, widths.shape[-1])
        image = axis.imshow(shown, vmin=0, vmax=most, aspect="auto", interpolation="nearest")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes, label="bits", shrink=0.5)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
