"""Float training, then quantization-aware training, in phases of growing batches.

Each phase trains with Adam until the validation loss stops improving. What is validated and kept is
the running average of the weights. After every epoch the whole state is written, so an interrupted
training continues with its next epoch.

Left alone, weights of a quantized training gather half way between grid points, where their
gradient changes sign, and jump: the loss rises however small the steps. So every step also pulls
them to the grid, from phase to phase harder (M. Nagel et al., arXiv 2203.11086, dampen these
oscillations by a loss).
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from salt_hls.config import LearnedPhase, ModelConfig, Phase, Training, Widths
from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet
from salt_hls.jets.ordering import prepare
from salt_hls.layers.keras_ops import quantizer_of
from salt_hls.models.build import build_model, snap_layer, snap_weights
from salt_hls.models.weights import load_weights, save_weights
from salt_hls.system.store import replacing
from salt_hls.training.metrics import scores


@dataclass(frozen=True)
class Samples:
    """Model inputs (jets, N, features) and labels (jets,)."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int8]

    @staticmethod
    def of(jets: JetSet, config: ModelConfig) -> Samples:
        """Jets as the model of `config` sees them."""
        return Samples(prepare(jets.constituents, config.particles, config.inputs), jets.labels)

    def shuffled(self, seed: int) -> Samples:
        """In the seed's order, of which the batches of every epoch are a reordering."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        return Samples(self.inputs[order], self.labels[order])


@dataclass(frozen=True)
class Place:
    """Where a training is; loss and accuracy are None while the first epoch runs.

    lut: predicted LUTs, where widths are learned.
    """

    stage: str
    phase: int
    phases: int
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    accuracy: float | None
    lut: float | None = None


OnStep = Callable[[Place], None]
"""Told after every step of a training."""


def train(
    config: ModelConfig,
    training: Samples,
    validation: Samples,
    folder: Path,
    on_step: OnStep,
) -> tuple[tf.keras.Model, tf.keras.Model]:
    """The trained float and quantized models; weights of the latter are on their grid.

    The seed fixes the initial weights and the order of the training jets.
    folder: keeps the state of an interrupted training, the history (`history.json`, one row for
    each epoch) and `float.weights.h5`. A finished stage is not trained again.
    """
    if config.widths.learned:
        raise UserError("widths: this training is of tensors of one width; leave the key out")
    float_model, quantized, fit = _after_float(config, training, validation, folder, on_step)
    quantize(float_model, quantized, fit, protocol_of(config).quantized_phases)
    return float_model, quantized


def train_float(
    config: ModelConfig,
    training: Samples,
    validation: Samples,
    folder: Path,
    on_step: OnStep,
) -> tf.keras.Model:
    """The first half of `train`, which goes on from here."""
    return _after_float(config, training, validation, folder, on_step)[0]


def protocol_of(config: ModelConfig) -> Training:
    """How the model is trained; `UserError` where it does not say."""
    if config.training is None:
        raise UserError("training: the key is missing; a model to train declares its phases")
    return config.training


def _after_float(
    config: ModelConfig,
    training: Samples,
    validation: Samples,
    folder: Path,
    on_step: OnStep,
) -> tuple[tf.keras.Model, tf.keras.Model, Callable[..., None]]:
    """The trained float model, the quantized one as it is built, and `fit_stages` of the jets."""
    protocol = protocol_of(config)
    phases: list[Phase | LearnedPhase] = [*protocol.float_phases, *protocol.quantized_phases]
    phases += protocol.learned.phases if protocol.learned else ()
    _require_batches(phases, len(training.labels))  # of both stages, before the first
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(protocol.seed)
    training = training.shuffled(protocol.seed)
    float_model = build_model(config, quantized=False)
    quantized = build_model(config.model_copy(update={"widths": Widths()}), quantized=True)

    fit = partial(
        fit_stages,
        inputs=training.inputs,
        targets=probabilities(training.labels, config.classes),
        validation=validation,
        folder=folder,
        on_step=on_step,
    )
    fit(float_model, "float", protocol.float_phases, grids=weight_grids(quantized))
    return float_model, quantized, fit


def quantize(
    float_model: tf.keras.Model,
    quantized: tf.keras.Model,
    fit: Callable[..., None],
    phases: tuple[Phase, ...],
) -> None:
    """Trains `quantized` from the float model's weights, toward its answers and the labels alike.

    fit: `fit_stages` with its data.
    """
    quantized.set_weights(float_model.get_weights())
    freeze_first_layer(quantized)
    fit(
        quantized,
        "quantized",
        phases,
        grids=weight_grids(quantized),
        pull=PULL,
        teacher=float_model,
    )
    snap_weights(quantized)


def fit_stages(
    model: tf.keras.Model,
    stage: str,
    phases: tuple[Phase, ...],
    *,
    inputs: NDArray[np.float32],
    targets: NDArray[np.float32],
    validation: Samples,
    folder: Path,
    on_step: OnStep,
    grids: list[Grid],
    pull: float = 0.0,
    teacher: tf.keras.Model | None = None,
) -> None:
    """Trains through the phases and leaves the best weights in `model`.

    pull: see `PULL`; it grows with the square of the phase's number, from 0 to this in the last.
    With a teacher the targets are the mean of `targets` and its answers.
    """
    _require_batches(phases, len(targets))
    done = folder / f"{stage}.weights.h5"
    if done.exists():
        load_weights(model, done)
        return
    if teacher is not None:
        answers = scores(predict(teacher, inputs))[:, -targets.shape[1] :]
        targets = ((targets + answers) / 2).astype(np.float32)
    state = State.restore(model, folder / stage)
    for number, phase in enumerate(phases):
        if number < state.phase:
            continue
        while (
            state.phase == number and state.epoch < phase.epochs and state.waited < phase.patience
        ):
            start = time.perf_counter()
            step = _Step(state, phase, grids, pull * (number / max(1, len(phases) - 1)) ** 2)
            order = np.random.default_rng([state.phase, state.epoch]).permutation(len(targets))
            losses = []
            steps = len(order) // phase.batch
            for i in range(steps):
                rows = order[i * phase.batch : (i + 1) * phase.batch]
                losses.append(step(inputs[rows], targets[rows]))
                last = state.history[-1] if state.history else {}
                on_step(
                    Place(
                        stage, number + 1, len(phases), state.epoch + 1, phase.epochs, i + 1, steps,
                        last.get("val_loss"), last.get("val_accuracy"),
                    )
                )  # fmt: skip
            with state.averaged():
                val_loss, val_accuracy = measure(model, validation)
            state.finish_epoch(
                {
                    "stage": stage,
                    "phase": number + 1,
                    "epoch": state.epoch + 1,
                    "loss": float(np.mean(losses)),
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
        state.next_phase()
    model.set_weights(state.best)
    with replacing(folder / f"{stage}_history.json") as partial:
        partial.write_text(json.dumps(state.history, indent=1))
    save_weights(model, done)
    shutil.rmtree(folder / stage, ignore_errors=True)


def _require_batches(phases: Sequence[Phase | LearnedPhase], jets: int) -> None:
    largest = max((phase.batch for phase in phases), default=0)
    if largest > jets:
        raise UserError(
            f"training: batch {largest} is larger than the training set of {jets} jets; "
            "give the phases smaller batches"
        )


def measure(model: tf.keras.Model, samples: Samples) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    logits = predict(model, samples.inputs)
    targets = probabilities(samples.labels, logits.shape[-1])
    loss = cross_entropy(tf.constant(targets), tf.constant(logits))
    chosen = logits.argmax(-1) if logits.shape[-1] > 1 else (logits[:, 0] > 0)
    return float(tf.reduce_mean(loss)), float(np.mean(chosen == samples.labels))


def predict(model: tf.keras.Model, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (jets, classes), without Keras' own progress bar."""
    call = tf.function(model, reduce_retracing=True)
    parts = [
        call(tf.constant(inputs[i : i + 4096]), training=False).numpy()
        for i in range(0, len(inputs), 4096)
    ]
    return np.concatenate(parts)


def probabilities(labels: NDArray[np.int8], classes: int) -> NDArray[np.float32]:
    """Labels (jets,) as targets (jets, classes); one class means signal or not."""
    if classes == 1:
        return labels[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Of logits (jets, classes) against the probabilities of classes, a value a jet."""
    if logits.shape[-1] == 1:
        return tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def freeze_first_layer(quantized: tf.keras.Model) -> None:
    """Rounds the embedding's weights once and for all; what follows learns to live with them.

    One of their steps times an input of the full range moves every particle, so while they are
    trained they jump between grid points and the loss never settles.
    """
    embed = quantized.get_layer("embed")
    snap_layer(embed)
    embed.trainable = False


AVERAGING = 0.998
"""Share of the old average kept in each step; less in the first steps, when the average is of their
last third, so that short trainings are not held back by their initial weights."""

PULL = 0.3
"""Pull of a weight half way between two grid points, in steps of its learning rate.

Adam's own steps are that long where the gradient keeps its sign, so a gradient that does moves
weights over to the next grid point, and noise does not.
"""


class Grid(NamedTuple):
    """Least value, greatest value and step of a weight's type; the default is any value."""

    low: float = -float("inf")
    high: float = float("inf")
    step: float = 0.0


def weight_grids(quantized: tf.keras.Model) -> list[Grid]:
    """The grid of every trainable variable."""
    grids: dict[str, Grid] = {}
    for layer in quantized.layers:
        for name in ("kernel", "bias"):
            weight = getattr(layer, name, None)
            quantizer = quantizer_of(layer, name)
            if weight is not None and quantizer is not None:
                low, high = float(quantizer.min()), float(quantizer.max())
                step = 2.0 ** (quantizer.integer + quantizer.keep_negative - quantizer.bits)
                grids[weight.name] = Grid(low, high, step)
    return [grids.get(v.name, Grid()) for v in quantized.trainable_variables]


def kept_share(optimizer: tf.keras.optimizers.Optimizer) -> tf.Tensor:
    """Share of the old average that the step about to be applied keeps; see `AVERAGING`."""
    before = tf.cast(optimizer.iterations, tf.float32)
    return tf.minimum(AVERAGING, before / (before + 3))


class _Step:
    """One compiled training step; weights are kept in the range of their type.

    Without that a float training drifts to weights that their types cut off, and quantization-aware
    training would have to mend that.
    """

    def __init__(self, state: State, phase: Phase, grids: list[Grid], pull: float) -> None:
        model, optimizer = state.model, state.optimizer
        optimizer.learning_rate.assign(phase.learning_rate)

        @tf.function(reduce_retracing=True)
        def step(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(cross_entropy(targets, model(inputs, training=True)))
            kept = kept_share(optimizer)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            for variable, average, grid in zip(
                model.trainable_variables, state.average, grids, strict=True
            ):
                value = tf.clip_by_value(variable, grid.low, grid.high)
                if pull and grid.step:
                    nearest = tf.round(value / grid.step) * grid.step
                    share = min(1.0, pull * phase.learning_rate / (grid.step / 2))
                    value += share * (nearest - value)
                variable.assign(value)
                average.assign(kept * average + (1 - kept) * variable)
            return loss

        self._step = step

    def __call__(self, inputs: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
        return float(self._step(tf.constant(inputs), tf.constant(targets)))


class State:
    """What an interrupted training needs: weights, optimizer, counters, best weights.

    control: what steers a training of widths.
    """

    counters: ClassVar[tuple[str, ...]] = (
        "phase", "epoch", "waited", "best_loss", "history", "control",
    )  # fmt: skip

    def __init__(self, model: tf.keras.Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.optimizer = tf.keras.optimizers.Adam()
        self.optimizer.build(model.trainable_variables)
        self.average = [tf.Variable(v) for v in model.trainable_variables]
        self.phase = self.epoch = self.waited = 0
        self.best_loss = float("inf")
        self.best: list[NDArray[Any]] = model.get_weights()
        self.history: list[dict[str, Any]] = []
        self.control: dict[str, float] = {}

    @staticmethod
    def restore(model: tf.keras.Model, folder: Path) -> State:
        state = State(model, folder)
        if (folder / "state.json").exists():
            saved = json.loads((folder / "state.json").read_text())
            arrays = np.load(folder / f"{saved['arrays']}.npz")
            lists: dict[str, list[NDArray[Any]]] = {
                kind: [] for kind in ("model", "best", "optimizer", "average")
            }
            for key in sorted(arrays.files):
                lists[key.split("-")[0]].append(arrays[key])
            model.set_weights(lists["model"])
            state.best = lists["best"]
            for variable, value in zip(state.optimizer.variables, lists["optimizer"], strict=True):
                variable.assign(value)
            for variable, value in zip(state.average, lists["average"], strict=True):
                variable.assign(value)
            for name in State.counters:
                setattr(state, name, saved.get(name, getattr(state, name)))
        return state

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights."""
        variables = self.model.trainable_variables
        present = [v.numpy() for v in variables]
        for variable, average in zip(variables, self.average, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, present, strict=True):
                variable.assign(value)

    def finish_epoch(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.epoch += 1
        if row["val_loss"] < self.best_loss:
            self.best_loss, self.waited = row["val_loss"], 0
            with self.averaged():
                self.best = self.model.get_weights()
        else:
            self.waited += 1
        self._write()

    def next_phase(self) -> None:
        """A phase starts from the best weights so far."""
        self.phase, self.epoch, self.waited = self.phase + 1, 0, 0
        self.model.set_weights(self.best)
        for variable, average in zip(self.model.trainable_variables, self.average, strict=True):
            average.assign(variable)
        self._write()

    def _write(self) -> None:
        name = f"state-{len(self.history)}-{self.phase}"
        arrays: dict[str, Any] = {
            f"{kind}-{i:04d}": np.asarray(value)
            for kind, values in (
                ("model", self.model.get_weights()),
                ("best", self.best),
                ("optimizer", [v.numpy() for v in self.optimizer.variables]),
                ("average", [v.numpy() for v in self.average]),
            )
            for i, value in enumerate(values)
        }
        content = io.BytesIO()  # a zip file on a full disk fails once more when it is dropped
        np.savez(content, **arrays)
        with replacing(self.folder / f"{name}.npz") as partial:
            partial.write_bytes(content.getvalue())
        saved = {k: getattr(self, k) for k in self.counters}
        with replacing(self.folder / "state.json") as partial:
            partial.write_text(json.dumps({**saved, "arrays": name}))
        for old in self.folder.glob("state-*.npz"):
            if old.stem != name:
                old.unlink()
