"""Training of widths, with the weights, from the float model to a target in LUTs.

loss + price * predicted LUTs: widths shrink where they cost more than they help. The price is
steered so that the LUTs follow a line, straight on a logarithmic scale, from those of the declared
types to the target. Attention is what suffers first: a product of two variables costs least when
one of them has no bits, and attention is constant then. So the inputs of its products and of
projections keep some bits, and so do the weights of projections and of the convolution,
attention's own LUTs have a part of the price only, and the line is not steep.

After every epoch the averaged weights, on their grids, are written to a file, read back into the
model that is deployed, and measured. Files that no other beats in LUTs and accuracy are kept: the
front. The result is the most accurate of those within the target.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel

from salt_hls.config import Learned, ModelConfig
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.keras_ops import quantizer_of
from salt_hls.layers.learned_bits import LearnedBits
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
from salt_hls.models.build import LearnedBuilder, build_model, snap_weights
from salt_hls.models.weights import copy_weights, load_weights, save_weights
from salt_hls.system.digest import digest
from salt_hls.system.store import replacing
from salt_hls.training.cost import most_bits, own_bits, predicted_luts
from salt_hls.training.train import (
    OnStep,
    Place,
    Samples,
    State,
    cross_entropy,
    kept_share,
    measure,
    predict,
    probabilities,
    protocol_of,
    weight_grids,
)

TEMPERATURE = 2.0
"""Of the teacher's answers."""

FLOOR = 2
"""Least bits, without the sign, of the inputs of products of variables and of projections; of
weights of projections and convolutions it is 1."""

ATTENTION = 0.3
"""Attention's part of the price."""

DECAY = 1e-8
"""Price of a bit of any width, so that those whose partners are gone already vanish too."""

CLIP = 1.0
"""Greatest norm of the gradients of a step."""

RAMP = 0.75
"""Part of all steps in which the LUTs fall to the target."""

MARGIN = 0.98
"""What they are steered to is this part of the target: what swings about it must end within."""

SLOWEST = 0.01
"""The learning rate of the last step, by that of the first."""

LEAST, MOST = 1e-3, 30.0
"""The price of all LUTs of the declared types, in units of the loss."""

ANSWER, LATER = 5.0, 0.02
"""How the logarithm of the price follows that of the LUTs over the line: with its changes, and a
step."""

CHECKED = 2048
"""Validation jets on which file and training must agree, bit for bit."""


class Point(BaseModel):
    """A model on the way to the target: predicted LUTs, and accuracy on the validation jets."""

    epoch: int
    lut: int
    accuracy: float

    @property
    def file(self) -> str:
        return f"epoch-{self.epoch:04d}.weights.h5"

    def beats(self, other: Point) -> bool:
        """Whether it costs no more and is no worse."""
        return self.lut <= other.lut and self.accuracy >= other.accuracy


def stage_of(learned: Learned) -> str:
    """The name of a training of widths in the state folder: of other settings, another one."""
    return f"learned-{digest(learned.model_dump_json())[:8]}"


def feature_types(config: ModelConfig) -> list[FixedType]:
    """Of the columns of the input."""
    return [feature.type for feature in config.inputs.features]


def total_lut(model: tf.keras.Model, config: ModelConfig) -> int:
    """Predicted LUTs of a quantized model."""
    return round(float(sum(predicted_luts(model, feature_types(config)).values())))


def require_reachable(config: ModelConfig) -> None:
    """Raises `UserError` when the target is below what the model costs with every width at its
    least."""
    target = _learned(config).target_lut
    model = build_model(config, quantized=True, builder=LearnedBuilder)
    for variable in _widths(model):
        variable.assign(tf.fill(variable.shape, -99.0))
    _Bounds(model).keep()
    least = total_lut(model, config)
    if target < least:
        raise UserError(
            f"training.learned.target_lut: {target:,} is below the {least:,} LUT (predicted) "
            "that are left with every learned width at its least; give more, or narrower types "
            "of attention"
        )


def _learned(config: ModelConfig) -> Learned:
    learned = protocol_of(config).learned
    if learned is None or not config.widths.learned:
        raise UserError(
            "training.learned: no widths to learn toward a target; give widths: "
            "{weights: weight, activations: element} and training.learned"
        )
    return learned


def learn(
    config: ModelConfig,
    float_model: tf.keras.Model,
    training: Samples,
    validation: Samples,
    folder: Path,
    on_step: OnStep,
) -> tf.keras.Model:
    """The most accurate quantized model within the target, trained from the float model.

    folder: keeps in <stage>/ the state of an interrupted training and the files of the front with
    `front.json`; <stage>.weights.h5 is the result, <stage>_history.json a row for each epoch. A
    finished training is not done again.

    Raises `UserError` when the loss is no number any more, or the target is not reached.
    """
    learned, stage = _learned(config), stage_of(_learned(config))
    done = folder / f"{stage}.weights.h5"
    if done.exists():
        deployed = build_model(config, quantized=True)
        load_weights(deployed, done)
        return deployed
    run = _Run(config, float_model, training, validation, folder / stage)
    run.to_the_end(on_step)
    with replacing(folder / f"{stage}_history.json") as partial:
        partial.write_text(json.dumps(run.state.history, indent=1))
    within = [point for point in run.front if point.lut <= learned.target_lut]
    if not within:
        last = run.state.history[-1]["lut"]
        raise UserError(
            f"training.learned: ended at {last:,} LUT (predicted), above the target of "
            f"{learned.target_lut:,}; give more epochs or a higher learning_rate; the points on "
            f"the way are in {folder / stage}"
        )
    best = max(within, key=lambda point: point.accuracy)
    load_weights(run.deployed, folder / stage / best.file)
    save_weights(run.deployed, done)
    for old in (folder / stage).glob("state*"):
        old.unlink()
    return run.deployed


class _Run:
    """A training on its way."""

    def __init__(
        self,
        config: ModelConfig,
        float_model: tf.keras.Model,
        training: Samples,
        validation: Samples,
        folder: Path,
    ) -> None:
        self.config, self.learned, self.folder = config, _learned(config), folder
        self.validation = validation
        training = training.shuffled(protocol_of(config).seed)
        self.inputs = training.inputs
        self.targets = probabilities(training.labels, config.classes)
        self.answers = predict(float_model, training.inputs)
        self.deployed = build_model(config, quantized=True)
        self.model = build_model(config, quantized=True, builder=LearnedBuilder)
        copy_weights(float_model, self.model)
        # Traced once, not after every epoch.
        self.answer, self.answer_deployed = map(tf.function, (self.model, self.deployed))
        self.first = total_lut(self.model, config)
        self.state = State.restore(self.model, folder)
        self.state.control = self.state.control or {"price": LEAST, "over": 0.0}
        path = folder / "front.json"
        rows = json.loads(path.read_text()) if path.exists() else []
        # Points of an epoch that was interrupted after they were written come again.
        points = [Point.model_validate(row) for row in rows]
        self.front = [point for point in points if point.epoch <= self.state.epoch]
        jets = len(training.labels)
        self.epochs = [
            (p.batch, jets // p.batch) for p in self.learned.phases for _ in range(p.epochs)
        ]
        self.steps = sum(steps for _, steps in self.epochs)

    def to_the_end(self, on_step: OnStep) -> None:
        state, step = self.state, self._compiled()
        while state.epoch < len(self.epochs):
            start = time.perf_counter()
            batch, steps = self.epochs[state.epoch]
            before = sum(steps for _, steps in self.epochs[: state.epoch])
            order = np.random.default_rng([state.epoch]).permutation(len(self.targets))
            losses: list[float] = []
            last = state.history[-1] if state.history else {}
            for i in range(steps):
                rows = order[i * batch : (i + 1) * batch]
                progress = (before + i + 1) / self.steps
                state.optimizer.learning_rate.assign(self.rate(progress))
                price = tf.constant(state.control["price"] / self.first, tf.float32)
                arrays = (a[rows] for a in (self.inputs, self.targets, self.answers))
                try:
                    loss, lut = map(float, step(*map(tf.constant, arrays), price))
                except tf.errors.InvalidArgumentError:  # a table has no entry of NaN
                    self._require_numbers()
                    raise
                losses.append(loss)
                if not math.isfinite(loss + lut):
                    self._require_numbers()
                self.steer(lut, progress)
                on_step(
                    Place(
                        "learned", self.phase, len(self.learned.phases), state.epoch + 1,
                        len(self.epochs), i + 1, steps, loss, last.get("val_accuracy"), lut,
                    )
                )  # fmt: skip
            self._finish_epoch(float(np.mean(losses)), start)

    @property
    def phase(self) -> int:
        ends = np.cumsum([phase.epochs for phase in self.learned.phases])
        return int(np.searchsorted(ends, self.state.epoch, side="right")) + 1

    def rate(self, progress: float) -> float:
        """The learning rate after a part of all steps."""
        falling = (1 + math.cos(math.pi * progress)) / 2
        return self.learned.learning_rate * (SLOWEST + (1 - SLOWEST) * falling)

    def line(self, progress: float) -> float:
        """What the LUTs should be after a part of all steps."""
        end = min(1.0, MARGIN * self.learned.target_lut / self.first)
        return float(self.first * end ** min(1.0, progress / RAMP))

    def steer(self, lut: float, progress: float) -> None:
        """Sets the price of the next step."""
        control = self.state.control
        over = math.log(lut / self.line(progress))
        change = ANSWER * (over - control["over"]) + LATER * over * self.pace
        price = control["price"] * math.exp(max(-1.0, min(1.0, change)))
        self.state.control = {"price": max(LEAST, min(MOST, price)), "over": over}

    @property
    def pace(self) -> float:
        """Short trainings have to be steered more in a step."""
        return max(1.0, 10_000 / self.steps)

    def _compiled(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """A training step: cross-entropy of the labels and predicted LUTs, both before it."""
        model, optimizer, features = self.model, self.state.optimizer, feature_types(self.config)
        bounds, widths = _Bounds(model), _widths(model)
        attention = {x.name for x in model.layers if isinstance(x, ConvAttention)}

        @tf.function(reduce_retracing=True)
        def step(
            inputs: tf.Tensor, targets: tf.Tensor, answers: tf.Tensor, price: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True)
                loss = distilled(targets, answers, logits)
                luts = predicted_luts(model, features)
                charged = sum(x * (ATTENTION if n in attention else 1) for n, x in luts.items())
                bits = sum(tf.reduce_sum(v) for v in widths)
                total = loss + price * charged + DECAY * bits
            gradients = tape.gradient(total, model.trainable_variables)
            gradients, _ = tf.clip_by_global_norm(gradients, CLIP)
            kept = kept_share(optimizer)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            bounds.keep()
            for variable, average in zip(
                model.trainable_variables, self.state.average, strict=True
            ):
                average.assign(kept * average + (1 - kept) * variable)
            return tf.reduce_mean(cross_entropy(targets, logits)), sum(luts.values())

        return step  # type: ignore[no-any-return]

    def _finish_epoch(self, loss: float, start: float) -> None:
        state, epoch = self.state, self.state.epoch + 1
        with state.averaged():
            snap_weights(self.model)
            copy_weights(self.model, self.deployed)
            check = self.validation.inputs[:CHECKED]
            trained = predict(self.answer, check)
        path = self.folder / Point(epoch=epoch, lut=0, accuracy=0).file
        save_weights(self.deployed, path)
        load_weights(self.deployed, path)
        val_loss, accuracy = measure(self.answer_deployed, self.validation)
        if not np.array_equal(predict(self.answer_deployed, check), trained):
            raise RuntimeError(f"{path}: other logits than those of the training")
        point = Point(epoch=epoch, lut=total_lut(self.deployed, self.config), accuracy=accuracy)
        if not _alive(self.deployed) or any(other.beats(point) for other in self.front):
            path.unlink()
        else:
            beaten = [other for other in self.front if point.beats(other)]
            self.front = [other for other in self.front if other not in beaten] + [point]
            with replacing(self.folder / "front.json") as partial:
                rows = sorted((p.model_dump() for p in self.front), key=lambda row: row["lut"])
                partial.write_text(json.dumps(rows, indent=1) + "\n")
            for other in beaten:
                (self.folder / other.file).unlink(missing_ok=True)
        state.finish_epoch(
            {
                "stage": "learned",
                "phase": self.phase,
                "epoch": epoch,
                "loss": loss,
                "val_loss": val_loss,
                "val_accuracy": accuracy,
                "lut": point.lut,
                "price": state.control["price"] / self.first,
                "seconds": round(time.perf_counter() - start, 1),
            }
        )

    def _require_numbers(self) -> None:
        for variable in self.model.variables:
            if not np.all(np.isfinite(variable.numpy())):
                name = variable.name.split(":")[0]
                raise UserError(
                    f"training.learned: NaN or infinity in {name}, in epoch "
                    f"{self.state.epoch + 1}; give a smaller learning_rate (the front so far is in "
                    f"{self.folder})"
                )


def distilled(targets: tf.Tensor, answers: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy against labels, and against the teacher's logits, half and half."""
    soft = tf.nn.sigmoid if logits.shape[-1] == 1 else tf.nn.softmax
    taught = cross_entropy(soft(answers / TEMPERATURE), logits / TEMPERATURE)
    # Softer answers have smaller gradients, by the square of the temperature.
    return tf.reduce_mean(cross_entropy(targets, logits) + TEMPERATURE**2 * taught) / 2


def _alive(model: tf.keras.Model) -> bool:
    """Whether every layer has something left; what is all 0 has no firmware."""
    return all(bool(tf.reduce_any(own_bits(x).live)) for x in element_layers(model))


def element_layers(model: tf.keras.Model) -> list[FixedActivation]:
    """Those with a width for each element."""
    return [x for x in model.layers if isinstance(x, FixedActivation) and x.elements]


def learned_kernels(model: tf.keras.Model) -> list[tuple[tf.keras.layers.Layer, LearnedBits]]:
    """Layers whose weights learn their widths, with the quantizer."""
    found = [(layer, quantizer_of(layer, "kernel")) for layer in model.layers]
    return [(layer, q) for layer, q in found if isinstance(q, LearnedBits)]


def _widths(model: tf.keras.Model) -> list[tf.Variable]:
    """The variables that are widths."""
    elements = [v for x in element_layers(model) for v in (x.integer_bits, x.fraction_bits)]
    return [*elements, *(q.fraction_bits for _, q in learned_kernels(model))]


class _Bounds:
    """Keeps weights and widths in their declared types, and the floors of attention."""

    def __init__(self, model: tf.keras.Model) -> None:
        self.weights = list(zip(model.trainable_variables, weight_grids(model), strict=True))
        consumers = (ConvAttention, PartitionedProjection)
        fed = [x.input for x in model.layers if isinstance(x, consumers)]
        tensors = [t for given in fed for t in (given if isinstance(given, list) else [given])]
        floored = {t.ref() for t in tensors}
        self.elements = [
            (x, float(FLOOR) if x.output.ref() in floored else None) for x in element_layers(model)
        ]
        self.kernels = [(x.kernel, q, isinstance(x, consumers)) for x, q in learned_kernels(model)]

    def keep(self) -> None:
        """Moves every variable to the nearest value inside."""
        for variable, grid in self.weights:
            if grid.step:
                variable.assign(tf.clip_by_value(variable, grid.low, grid.high))
        for layer, floor in self.elements:
            i, f = layer.integer_bits, layer.fraction_bits
            most_i, most_f = most_bits(layer)
            least = -most_f if floor is None else min(floor, most_i + most_f) - most_f
            i.assign(tf.clip_by_value(i, least, most_i))
            needed = -most_i if floor is None else least + most_f - tf.round(i)
            f.assign(tf.clip_by_value(f, needed, most_f))
        for kernel, quantizer, floor in self.kernels:
            least = tf.fill(kernel.shape, -float(quantizer.integer))
            if floor:
                # The step that is no larger than the weight.
                first = tf.math.log(tf.maximum(tf.abs(kernel), 2.0**-24)) / math.log(2)
                least = tf.clip_by_value(-tf.floor(first), least + 1, float(quantizer.most))
            width: Any = quantizer.fraction_bits
            width.assign(tf.clip_by_value(width, least, float(quantizer.most)))
