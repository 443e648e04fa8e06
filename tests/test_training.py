"""Training: phases, resume, averaged weights, what is shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_data import Truth, write_quark_gluon

from salt_hls.config import MODELS, ModelConfig, Phase, load_yaml
from salt_hls.errors import UserError
from salt_hls.jets.dataset import CLASSES, JetSet
from salt_hls.models.build import build_model
from salt_hls.models.tagger import load_tagger
from salt_hls.models.weights import load_weights
from salt_hls.system.processes import cores
from salt_hls.system.progress import Progress
from salt_hls.training import run
from salt_hls.training import train as training
from salt_hls.training.metrics import scores
from salt_hls.training.run import Result, train_model
from salt_hls.training.train import Samples, measure, train

Make = Callable[..., Path]

PHASES = {
    "seed": 3,
    "float_phases": [
        {"batch": 50, "epochs": 2, "patience": 2, "learning_rate": 0.01},
        {"batch": 100, "epochs": 2, "patience": 1, "learning_rate": 0.005},
    ],
    "quantized_phases": [{"batch": 100, "epochs": 2, "patience": 2, "learning_rate": 0.001}],
}


@pytest.fixture
def jets() -> JetSet:
    return JetSet.read(MODELS / "sample.h5", slice(0, 600))


def silent(step: Progress) -> None:
    pass


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("eager")
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    small_model: Make, jets: JetSet, tmp_path: Path
) -> None:
    config = load_yaml(small_model(weights=False, training=PHASES), ModelConfig)
    data = Samples.of(jets, config)
    _, whole = train(config, data, data, tmp_path / "whole", silent)

    def stop(step: Progress) -> None:
        if (step.stage, step.phase, step.epoch, step.step) in stops:
            stops.remove((step.stage, step.phase, step.epoch, step.step))
            raise Stopped

    stops = {("float", 1, 2, 3), ("float", 2, 1, 1), ("quantized", 1, 2, 1)}
    for _ in range(3):
        with pytest.raises(Stopped):
            train(config, data, data, tmp_path / "parts", stop)
    _, resumed = train(config, data, data, tmp_path / "parts", silent)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # float32 sums in threads of any order
    history = json.loads((tmp_path / "parts" / "float_history.json").read_text())
    assert [(r["phase"], r["epoch"]) for r in history][:3] == [(1, 1), (1, 2), (2, 1)]
    assert not list((tmp_path / "parts").glob("*/state*"))


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_every_seed_and_epoch_has_its_own_order_of_jets(
    small_model: Make, jets: JetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_yaml(small_model(weights=False, training=PHASES), ModelConfig)
    data = Samples.of(jets, config)
    data.inputs[:, 0, 0] = np.arange(len(data.labels))  # tells the jets apart
    seen: list[int] = []

    class Recorder:
        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, inputs: Any, targets: Any) -> float:
            seen.extend(inputs[:, 0, 0].astype(int))
            return 0.0

    monkeypatch.setattr(training, "_Step", Recorder)
    orders = []
    for number, seed in enumerate((3, 3, 4)):
        assert config.training is not None
        seeded = config.training.model_copy(update={"seed": seed})
        seen.clear()
        train(
            config.model_copy(update={"training": seeded}),
            data, data, tmp_path / str(number), silent,
        )  # fmt: skip
        epochs = np.reshape(seen, (-1, len(data.labels)))
        assert len(epochs) >= 4 and (np.sort(epochs) == np.arange(len(data.labels))).all()
        # The epochs of a stage; those of the other stage may be the same.
        orders.append([tuple(epoch) for epoch in epochs[:3]])
    assert orders[0] == orders[1]
    assert len({*orders[0], *orders[2]}) == 6


@pytest.mark.slow
def test_training_learns_and_weights_stay_on_their_grid(
    small_model: Make, jets: JetSet, tmp_path: Path
) -> None:
    config = load_yaml(small_model(weights=False, training=PHASES), ModelConfig)
    data = Samples.of(jets, config)
    untrained = training.build_model(config, quantized=False)
    float_model, quantized = train(config, data, data, tmp_path, silent)
    assert measure(float_model, data)[0] < measure(untrained, data)[0] - 0.02
    assert config.types is not None
    embed = quantized.get_layer("embed").kernel.numpy()
    assert config.types.weight("embed").contains(embed)
    for grid, variable in zip(
        training.weight_grids(quantized), quantized.trainable_variables, strict=True
    ):
        assert np.all(variable.numpy() <= grid.high) and np.all(variable.numpy() >= grid.low)
        assert not grid.step or np.all(variable.numpy() % grid.step == 0)


def _fit(model: tf.keras.Model, jets: JetSet, folder: Path, **options: Any) -> None:
    """Four epochs on the jets in three phases; the last two epochs have the full pull."""
    config = load_yaml(MODELS / "salt_p4_n16.yaml", ModelConfig)
    data = Samples.of(jets, config)
    training.fit_stages(
        model,
        "quantized",
        tuple(
            Phase(batch=100, epochs=epochs, patience=epochs, learning_rate=0.01)
            for epochs in (1, 1, 2)
        ),
        inputs=data.inputs,
        validation=data,
        folder=folder,
        on_step=silent,
        **options,
    )


@pytest.mark.usefixtures("eager")
def test_the_pull_keeps_weights_near_their_grid(
    jets: JetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "AVERAGING", 0.0)
    config = load_yaml(MODELS / "salt_p4_n16.yaml", ModelConfig)
    targets = training.probabilities(jets.labels, 5)
    pulls, away = [], {}
    step = training._Step

    def spy(state: Any, phase: Phase, grids: Any, pull: float) -> Any:
        pulls.append(pull)
        return step(state, phase, grids, pull)

    monkeypatch.setattr(training, "_Step", spy)
    for pull in (0.0, training.PULL):
        model = training.build_model(config, quantized=True)
        load_weights(model, MODELS / "salt_p4_n16.float.weights.h5")
        grids = training.weight_grids(model)
        folder = tmp_path / str(pull)
        _fit(model, jets, folder, targets=targets, grids=grids, pull=pull)
        steps = [
            np.abs(v.numpy() / g.step - np.round(v.numpy() / g.step)).ravel()
            for v, g in zip(model.trainable_variables, grids, strict=True)
            if g.step
        ]
        away[pull] = float(np.mean(np.concatenate(steps)))
    assert 0 < away[training.PULL] < 0.85 * away[0.0], away
    # It grows with the square of the phase's number; the last phase has two epochs.
    np.testing.assert_allclose(pulls, training.PULL * np.array([0, 0, 0, 0, 0, 1 / 4, 1, 1]))


@pytest.mark.usefixtures("eager")
def test_short_trainings_are_not_held_back_by_their_average(jets: JetSet, tmp_path: Path) -> None:
    """24 steps on 600 jets: the average that is kept has learned nearly what the weights have."""
    config = load_yaml(MODELS / "salt_p4_n16.yaml", ModelConfig)
    model, data = training.build_model(config, quantized=False), Samples.of(jets, config)
    before, _ = measure(model, data)
    grids, targets = training.weight_grids(model), training.probabilities(jets.labels, 5)
    _fit(model, jets, tmp_path, targets=targets, grids=grids)
    assert measure(model, data)[0] < before - 0.05


@pytest.mark.usefixtures("eager")
def test_a_teacher_is_half_of_the_target(
    jets: JetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels say class 0, the teacher says class 1: the model learns both alike."""
    monkeypatch.setattr(training, "AVERAGING", 0.0)
    config = load_yaml(MODELS / "salt_p4_n16.yaml", ModelConfig)
    model, teacher = (training.build_model(config, quantized=False) for _ in range(2))
    kernel, bias = teacher.get_layer("classes").get_weights()
    teacher.get_layer("classes").set_weights([kernel * 0, bias + [0, 50, 0, 0, 0]])
    classes = model.get_layer("classes")
    classes.set_weights([kernel * 0, bias * 0])
    for layer in model.layers:
        layer.trainable = layer is classes
    targets = training.probabilities(jets.labels * 0, 5)
    grids = training.weight_grids(model)
    inputs = Samples.of(jets, config).inputs
    start = scores(training.predict(model, inputs))[:, :2].mean(axis=0)
    _fit(model, jets, tmp_path, targets=targets, grids=grids, teacher=teacher)
    end = scores(training.predict(model, inputs))[:, :2].mean(axis=0)
    assert end[0] > start[0] + 0.02
    assert end[1] == pytest.approx(end[0], abs=1e-3)


@pytest.mark.usefixtures("eager")
def test_train_model_writes_weights_metrics_and_curves(
    small_model: Make, jets: JetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_model(weights=False, training=PHASES)
    for split in ("train", "validation", "test"):
        jets.write(tmp_path / f"data/{split}.h5")
    result = train_model(str(path), tmp_path / "data", tmp_path / "build", silent)
    assert result.quantized.events == 600
    assert result.seconds is not None and 0 < result.seconds < 600 and result.cores == cores()
    written = {p.name for p in path.parent.iterdir()}
    assert {"small.weights.h5", "small.float.weights.h5", "small.metrics.json"} <= written
    (curves,) = (tmp_path / "build" / "train" / "small").glob("*/curves.png")
    assert curves.stat().st_size > 1000
    again = train_model(str(path), tmp_path / "data", tmp_path / "build", silent)
    assert again == result
    assert len(list((tmp_path / "build" / "train" / "small").glob("[!.]*"))) == 1
    jets[slice(0, 300)].write(tmp_path / "data/validation.h5")
    train_model(str(path), tmp_path / "data", tmp_path / "build", silent)
    assert len(list((tmp_path / "build" / "train" / "small").glob("[!.]*"))) == 2, (
        "other jets, other training"
    )
    other = train_model(str(path), tmp_path / "data", tmp_path / "build", silent, seed=7)
    assert other.model == "small.seed7" and other.float_ != result.float_
    written = {p.name for p in path.parent.iterdir()} - written
    assert {
        f"small.seed7{x}" for x in (".weights.h5", ".float.weights.h5", ".metrics.json")
    } == written
    answers = iter([np.eye(5)[jets.labels], np.eye(5)[jets.labels * 0]])
    monkeypatch.setattr(run, "predict", lambda model, inputs: next(answers))
    known = train_model(str(path), tmp_path / "data", tmp_path / "build", silent)
    assert known.won == 0 and known.lost == np.sum(jets.labels != 0) > 400
    share = known.lost / 600
    assert known.loss == pytest.approx((share, (share * (1 - share) / 600) ** 0.5))


@pytest.mark.usefixtures("eager")
def test_training_on_other_classes(small_model: Make, tmp_path: Path) -> None:
    phase = [{"batch": 20, "epochs": 1, "patience": 1, "learning_rate": 0.01}]
    training = {"float_phases": phase, "quantized_phases": phase}
    path = small_model(weights=False, classes=1, training=training)
    write_quark_gluon(tmp_path / "QG_jets.npz", Truth(classes=2))
    notes: list[str] = []
    result = train_model(
        str(path), tmp_path / "QG_jets.npz", tmp_path / "build", silent, notes.append
    )
    assert list(result.quantized.auc) == ["g", "q", "mean"] and result.quantized.events == 10
    assert len(notes) == 2 and not list(path.parent.glob(".*"))


def test_a_shipped_model_keeps_its_weights(
    small_model: Make, jets: JetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained ones go to the build folder, with a YAML to build firmware from, unless shipped."""
    data, build, trained = tmp_path / "data", tmp_path / "build", tmp_path / "build/trained"
    for split in ("train", "validation", "test"):
        jets.write(data / f"{split}.h5")
    path = small_model(training=PHASES)
    shipped = path.with_name("small.weights.h5").read_bytes()
    before = set(path.parent.iterdir())
    monkeypatch.setattr(run, "MODELS", path.parent)
    for name, stand_in in {  # it is about where files go
        "train": lambda config, *_: [build_model(config, quantized=q) for q in (False, True)],
        "plot_curves": lambda *_: None,
        "_seconds": lambda *_: 1.0,
    }.items():
        monkeypatch.setattr(run, name, stand_in)

    result = train_model(str(path), data, build, silent)
    train_model(str(path), data, build, silent, seed=7)
    assert path.with_name("small.weights.h5").read_bytes() == shipped
    assert set(path.parent.iterdir()) - before == {build}
    parts = (".weights.h5", ".float.weights.h5", ".metrics.json", ".yaml")
    assert {p.name for p in trained.iterdir()} == {
        f"small{seed}{part}" for seed in ("", ".seed7") for part in parts
    }
    assert (trained / "small.yaml").read_bytes() == path.read_bytes()
    seeded = load_yaml(trained / "small.seed7.yaml", ModelConfig).training
    assert seeded is not None and seeded.seed == 7
    tagger = load_tagger(str(trained / "small.yaml"))
    assert tagger.name == "small" and tagger.float_model is not None

    again = train_model(str(path), data, build, silent, ship=True)
    assert again.model == result.model == "small"
    assert path.with_name("small.weights.h5").read_bytes() != shipped
    assert {p.name for p in set(path.parent.iterdir()) - before} == {
        "build",
        "small.float.weights.h5",
        "small.metrics.json",
    }
    monkeypatch.setattr(run, "MODELS", MODELS)
    with pytest.raises(UserError, match=r"small.yaml: not a shipped model; leave --ship"):
        train_model(str(path), data, build, silent, ship=True)


def test_training_needs_its_phases_and_jets(small_model: Make, tmp_path: Path) -> None:
    path = small_model(weights=False, training=PHASES)
    with pytest.raises(UserError, match="no such jet file"):
        train_model(str(path), tmp_path / "nowhere", tmp_path, silent)
    path = small_model(weights=False, training=None)
    config = load_yaml(path, ModelConfig)
    data = Samples(np.zeros((2, 6, 3), np.float32), np.zeros(2, np.int8))
    with pytest.raises(UserError, match="training"):
        train(config, data, data, tmp_path, silent)
    for split in ("train", "validation", "test"):
        JetSet.read(MODELS / "sample.h5", slice(0, 99)).write(tmp_path / f"{split}.h5")
    with pytest.raises(UserError, match="small.yaml: the key 'training' is missing"):
        train_model(str(path), tmp_path, tmp_path, silent)
    with pytest.raises(UserError, match="batch 100 is larger than the training set of 99 jets"):
        train_model(str(small_model(training=PHASES)), tmp_path, tmp_path, silent)
    weights = path.with_name("small.weights.h5")
    with pytest.raises(UserError, match="holds weights alone; give .*small.yaml"):
        train_model(str(weights), tmp_path, tmp_path, silent)


@pytest.mark.parametrize("name", sorted(p.stem for p in MODELS.glob("*.yaml")))
def test_shipped_models_keep_their_promise(name: str) -> None:
    """At most 6-bit weights and 8-bit activations, or widths of their own; near the float model.

    The projections of salt_p4_n150 need a finer step (docs/results.md).
    """
    loss = {"salt_p4": 0.004, "salt_p4_n150": 0.0075, "salt_p4_small": 0.007}.get(name, 0.005)
    config = load_yaml(MODELS / f"{name}.yaml", ModelConfig)
    assert config.types is not None
    if not config.widths.learned:
        types = config.types
        assert max(t.width for t in [*types.weights.values(), types.biases]) <= 6
        named = [t for k, t in types if k not in ("weights", "biases", "attention", "output")]
        named += [t for k, t in types.attention if k != "context"]
        assert max(t.width for t in named if t is not None) <= 8
    result = Result.model_validate_json((MODELS / f"{name}.metrics.json").read_text())
    assert result.training_jets >= 300_000 and result.quantized.events >= 50_000
    assert result.float_.accuracy - result.quantized.accuracy <= loss
    assert list(result.quantized.auc)[: len(CLASSES)] == list(CLASSES)


def test_every_seed_of_salt_p4_keeps_its_promise() -> None:
    """At most 0.3 points lost on average; a training, timed in seed 4, under 90 minutes."""
    results = {
        p.name: Result.model_validate_json(p.read_text())
        for p in [MODELS / "salt_p4.metrics.json", *MODELS.glob("salt_p4.seed*.metrics.json")]
    }
    assert len({r.float_.accuracy for r in results.values()}) == len(results) >= 4
    losses = [r.float_.accuracy - r.quantized.accuracy for r in results.values()]
    assert np.mean(losses) <= 0.003, losses
    assert losses == pytest.approx([r.loss[0] for r in results.values()])
    timed = results["salt_p4.seed4.metrics.json"]
    assert timed.seconds is not None and timed.cores is not None
    assert timed.seconds < 90 * 60 and timed.cores <= 2


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.metrics.json")), ids=lambda p: p.name)
def test_committed_weights_are_those_of_the_metrics(path: Path) -> None:
    """On 2000 of the sample jets, a part of the test jets, within four standard errors."""
    result = Result.model_validate_json(path.read_text())
    config = load_yaml(MODELS / f"{result.model.split('.')[0]}.yaml", ModelConfig)
    data = Samples.of(JetSet.read(MODELS / "sample.h5"), config)
    for kind, metrics in ((".float", result.float_), ("", result.quantized)):
        model = training.build_model(config, quantized=not kind)
        load_weights(model, MODELS / f"{result.model}{kind}.weights.h5")
        hits = training.predict(model, data.inputs[:2000]).argmax(axis=1) == data.labels[:2000]
        assert np.mean(hits) == pytest.approx(metrics.accuracy, abs=0.042)
