"""Trains the runs of a study, several processes of one thread each at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import CLASSES, JetSet
from salt_hls.models.build import build_model
from salt_hls.studies.pairwise import build_biased_model
from salt_hls.studies.study import Record, Results, Run, Settings
from salt_hls.system.jobs import Job, Runner
from salt_hls.system.processes import tell
from salt_hls.system.progress import Progress
from salt_hls.system.store import locked, replacing
from salt_hls.system.wording import command
from salt_hls.training.metrics import correct, evaluate
from salt_hls.training.train import (
    Grid,
    OnStep,
    Place,
    Samples,
    fit_stages,
    predict,
    probabilities,
    quantize,
    weight_grids,
)

BLOCK = 20_000
"""Jets prepared at a time: bounds memory."""

SPLITS = ("train", "validation", "test")


def run_missing(
    results: Results,
    runs: Sequence[Run],
    data: Path,
    work: Path,
    runner: Runner,
    progress: Progress,
) -> int:
    """Trains the runs that have no result yet, in order, a core each; returns how many.

    data: folder of train.h5, validation.h5, test.h5. work: keeps the state of what is interrupted,
    and weights and results of finished trainings. `progress` counts runs. Raises
    `UserError` for missing jets, and what a run raises.
    """
    if not runs:
        return 0
    # Nobody has to generate jets to learn that nothing is missing.
    if not (data / "train.h5").exists() and not results.missing(runs):
        return 0
    settings = runs[0].settings
    jets = fingerprint(data, settings.training_jets, settings.validation_jets)
    missing = results.missing(runs, jets)
    done = len(runs) - len(missing)
    progress("start", done, len(runs))

    data, work = data.resolve(), work.resolve()
    jobs = [
        Job(run.name, _run, (run, data, work, jets), work / jets / f"{run.settings.key}.npz")
        for run in missing
    ]

    def trained(job: Job) -> None:
        nonlocal done
        done += 1
        results.add(*_read(job.arguments[0], job.output))
        progress("", done, len(runs))

    runner.do(jobs, trained, lambda text: progress(text, done, len(runs)))
    return len(missing)


def one_core() -> None:
    """Has TensorFlow use one core in this process, which is a worker's."""
    tf.get_logger().setLevel("ERROR")  # it warns of the new functions of every training
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def telling(name: str) -> OnStep:
    """Tells of every epoch of a training that is a job."""

    def on_step(step: Place) -> None:
        if step.step == 1:
            so_far = "" if step.accuracy is None else f", accuracy {step.accuracy:.4f}"
            tell(f"{name} {step.stage} {step.phase}.{step.epoch}{so_far}")

    return on_step


def _run(run: Run, data: Path, work: Path, jets: str, output: Path) -> None:
    """A job: one run."""
    one_core()
    record, correct = train_run(run, data, work, jets, telling(run.name))
    with replacing(output) as partial:
        np.savez(partial, record=record.model_dump_json(), correct=correct)


def _read(run: Run, path: Path) -> tuple[Record, NDArray[np.bool_]]:
    """What `_run` wrote, which may be of another row or study with the same settings."""
    with np.load(path) as found:
        record = Record.model_validate_json(str(found["record"]))
        return record.model_copy(update={"row": run.row, "seed": run.seed}), found["correct"]


def train_run(
    run: Run, data: Path, work: Path, jets: str, on_step: OnStep
) -> tuple[Record, NDArray[np.bool_]]:
    """Trains one run, continuing where it was interrupted; its result, and which test jets it
    classified correctly (test jets,).

    The seed fixes the initial weights and the order of the training jets.
    """
    start = time.process_time()
    settings, seed = run.settings, run.settings.training.seed
    training = read_samples(data, "train", settings, settings.training_jets)
    training = training.shuffled(seed)
    validation = read_samples(data, "validation", settings, settings.validation_jets)
    model = _trained(settings, training, validation, work / jets, on_step)
    test = read_samples(data, "test", settings)
    logits = predict(model, test.inputs)
    metrics = evaluate(logits, test.labels, CLASSES)
    record = Record(
        row=run.row,
        seed=run.seed,
        settings=settings.dump(),
        key=settings.key,
        jets=jets,
        test_jets=len(test.labels),
        accuracy=metrics.accuracy,
        auc=metrics.auc,
        parameters=model.count_params(),
        cpu_seconds=round(time.process_time() - start),
    )
    return record, correct(logits, test.labels)


def _trained(
    settings: Settings, training: Samples, validation: Samples, work: Path, on_step: OnStep
) -> tf.keras.Model:
    """The model after its float and, with widths, its quantized training."""
    config, protocol = settings.model, settings.training
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(protocol.seed)
    build = build_biased_model if settings.pairwise_bias else partial(build_model, quantized=False)
    model = build(config)
    grids = [Grid()] * len(model.trainable_variables)
    if settings.bounded:
        grids = weight_grids(build_model(config, quantized=True))
    fit = partial(
        fit_stages,
        inputs=training.inputs,
        targets=probabilities(training.labels, config.classes),
        validation=validation,
        on_step=on_step,
    )
    folder = work / settings.float_stage.key
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # rows of several widths share it
        fit(model, "float", protocol.float_phases, folder=folder, grids=grids)
    if settings.widths is None or config.types is None:
        return model
    types = settings.widths.types(config.types)
    quantized = build_model(config.model_copy(update={"types": types}), quantized=True)
    folder = work / settings.key
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        quantize(model, quantized, partial(fit, folder=folder), protocol.quantized_phases)
    return quantized


def read_samples(data: Path, split: str, settings: Settings, jets: int | None = None) -> Samples:
    """The first `jets` jets of a split (all if `None`) as the model sees them.

    Noise is added to the measured angles of all particles, the same for every model and seed,
    before they are ordered: kT and deltaR of a trigger come from the angles it measured.
    """
    parts: list[Samples] = []
    first = 0
    while jets is None or first < jets:
        last = first + BLOCK if jets is None else min(first + BLOCK, jets)
        block = JetSet.read(data / f"{split}.h5", slice(first, last))
        if len(block) == 0:
            break
        if settings.noise:
            rng = np.random.default_rng([SPLITS.index(split), first])
            smear_angles(block.constituents, settings.noise, rng)
        parts.append(Samples.of(block, settings.model))
        first = last
    return Samples(
        np.concatenate([p.inputs for p in parts]), np.concatenate([p.labels for p in parts])
    )


def smear_angles(constituents: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> None:
    """Adds Gaussian noise of `sigma` [rad] to deta and dphi of the particles, in place."""
    real = constituents[..., :1] > 0
    noise = rng.normal(0, sigma, (*constituents.shape[:2], 2))
    constituents[..., 1:] += np.where(real, noise, 0)


def fingerprint(data: Path, training: int, validation: int) -> str:
    """Hash of the jets of a study, by their labels and kinematics.

    Raises `UserError` when a file is missing or holds too few jets.
    """
    state = hashlib.sha256()
    for split, wanted in zip(SPLITS, (training, validation, 1), strict=True):
        path = data / f"{split}.h5"
        JetSet.read(path, slice(0, 1))  # its errors name what is wrong
        with h5py.File(path, "r") as file:
            rows = slice(0, wanted if split != "test" else None)
            labels, jets = file["labels"][rows], file["jets"][rows]
        if len(labels) < wanted:
            raise UserError(
                f"{path}: the study needs {wanted} jets, found {len(labels)}; run {command('data')}"
            )
        state.update(labels.tobytes() + jets.tobytes())
    return state.hexdigest()[:16]
