"""Search for the models of a YAML's ranges that are accurate and cheap, with Optuna.

A point is trained shortly: the YAML's own training on its first jets. It is given up after the
float half when it is hopeless, else its accuracy on the validation jets and the estimate of its
cost are told to Optuna, which chooses the next. In the end three points are trained on all jets:
does the short training rank them as the long one?
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tensorflow as tf
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from salt_hls.config import Explore, ModelConfig, find_model, first_fault, load_yaml, read_yaml
from salt_hls.errors import UserError
from salt_hls.firmware.build import converted
from salt_hls.jets.readers import DataSet, load_data
from salt_hls.models.build import snap_weights
from salt_hls.models.tagger import Tagger
from salt_hls.rtl.build import Options, project_of
from salt_hls.studies.run import one_core, telling
from salt_hls.studies.study import resized
from salt_hls.system.digest import digest
from salt_hls.system.jobs import Job, Runner
from salt_hls.system.progress import Progress
from salt_hls.system.store import locked, replacing
from salt_hls.system.wording import option
from salt_hls.training.train import Samples, measure, train, train_float

WIDTHS = ("weights", "activations")
"""Keys that are no keys of the YAML: the bits of all of these."""

DULL = 5
"""So many proposals of known points, and one is taken at random."""

CHECKED = 3
"""Points that are trained on all jets."""

_FLOAT, _RESULT = "float {}", "result {}"
"""Notes in a study, by the number of a trial."""

Values = dict[str, Any]
"""A point: value by key."""


@dataclass(frozen=True)
class Space:
    """The models of a YAML's ranges. content: the YAML, without them."""

    path: Path
    content: dict[str, Any]
    explore: Explore

    @staticmethod
    def load(reference: str) -> Space:
        """Of a model's YAML. Raises `UserError` where it has no ranges, or values no model has."""
        path = find_model(reference)
        if path.suffix not in (".yaml", ".yml"):
            raise UserError(f"{path}: explore starts from a model's YAML; this is no YAML")
        config, content = load_yaml(path, ModelConfig), read_yaml(path)
        for key in ("explore", "training", "types"):
            if getattr(config, key) is None:
                raise UserError(f"{path}: the key {key!r} is missing; a model to explore has it")
        assert_explore: Any = config.explore
        space = Space(path, {k: v for k, v in content.items() if k != "explore"}, assert_explore)
        for key, choices in space.choices.items():
            for value in choices:
                space.require_value(key, value)
        return space

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Values by key, each once."""
        found = self.explore.choices
        return {
            k: tuple({json.dumps(v): v for v in values}.values()) for k, values in found.items()
        }

    def require_value(self, key: str, value: Any) -> None:
        """Raises `UserError` when no model can have the value, whatever its other values are."""
        given = f"{self.path}: explore.vary.{key}"
        if key in WIDTHS:
            least = {"weights": 2, "activations": 3}[key]
            if type(value) is not int or not least <= value <= 12:
                raise UserError(f"{given}: must be bits, {least} ... 12, got {value!r}")
            return
        if key.split(".")[0] in ("training", "explore", "inputs", "types", "classes"):
            raise UserError(f"{given}: cannot be varied; accuracies would not be comparable")
        try:
            self.config({key: value})
        except ValidationError as error:
            fault = error.errors()[0]
            # Faults of the whole model depend on its other values.
            if fault["loc"] and ".".join(map(str, fault["loc"])).startswith(key):
                raise UserError(f"{self.path}: explore.vary: {first_fault(error)}") from None

    def config(self, point: Values) -> ModelConfig:
        """The model at a point. Raises `ValidationError` where there is none."""
        return ModelConfig.model_validate(self.yaml(point))

    def yaml(self, point: Values) -> dict[str, Any]:
        """The content of its YAML."""
        content = deepcopy(self.content)
        for key, value in point.items():
            if key not in WIDTHS:
                *parents, last = key.split(".")
                place = content
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[last] = value
        widths = [point.get(key) for key in WIDTHS]
        if widths != [None, None]:
            types = ModelConfig.model_validate(content).types
            if types is not None:
                content["types"] = resized(types, *widths).model_dump(mode="json")
        return content

    def points(self) -> Iterator[Values]:
        """All combinations, models or not."""
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    def has(self, point: Values) -> bool:
        """Whether there is a model at the point."""
        try:
            self.config(point)
        except ValidationError:
            return False
        return True


class Point(BaseModel):
    """A point that was trained: values, accuracy on the validation jets, estimates of its RTL.

    number: of the trial in the study. seconds: of a core, for both halves of the training and the
    estimate.
    """

    number: int
    values: Values
    accuracy: float
    lut: int
    ff: int
    dsp: int
    latency_ns: float
    ii_cycles: int
    seconds: float


class Checked(BaseModel):
    """A point after the long training."""

    number: int
    short: float
    long: float
    lut: int
    latency_ns: float


class Search(BaseModel):
    """What `search` found. given_up: float accuracy by number of what was not trained further."""

    model: str
    cost: str
    vary: dict[str, list[Any]]
    training_jets: int
    all_jets: int
    validation_jets: int
    points: list[Point]
    given_up: dict[int, float]
    checked: list[Checked]

    def cost_of(self, point: Point) -> float:
        """What is minimized."""
        return float(getattr(point, self.cost))

    @property
    def front(self) -> list[Point]:
        """The points that no other beats in both objectives, the cheapest first."""
        ordered = sorted(self.points, key=lambda p: (self.cost_of(p), -p.accuracy, p.number))
        best, front = -1.0, []
        for point in ordered:
            if point.accuracy > best:
                best = point.accuracy
                front.append(point)
        return front


def search(
    space: Space,
    data: Path,
    folder: Path,
    storage: str | None,
    trials: int,
    runner: Runner,
    progress: Progress,
) -> Search:
    """Trains points until the study has so many, and checks three of them; `UserError` of jobs.

    folder: keeps the study, unless `storage` (a path of an SQLite file or the URL of a database)
    does, and in trials/ what was trained. It goes on where it was stopped.
    """
    jets = load_data(data, _particles(space))
    config = space.config({})
    jets.require_fit(config.inputs, config.classes, space.path)
    if len(jets.train) < space.explore.training_jets:
        raise UserError(
            f"{space.path}: explore.training_jets: {space.explore.training_jets} are more than the "
            f"{len(jets.train)} of {data}"
        )
    jets_key = digest(
        *(a for s in (jets.train, jets.validation) for a in (s.constituents, s.labels))
    )
    work = folder.resolve() / "trials"
    training = _Training(space, data.resolve(), jets_key, work, runner)
    with locked(folder):
        study = open_study(storage or str(folder / "study.db"), space, jets_key)
        training.run(study, trials, progress)
        found = _found(space, study, training, jets)
        found.checked = training.check(_chosen(found), progress)
    return found


@dataclass(frozen=True)
class _Training:
    """Trains points as jobs."""

    space: Space
    data: Path
    jets_key: str
    work: Path
    runner: Runner

    def job(self, number: int, point: Values, stage: str) -> Job:
        """stage: "float", "short" or "long"."""
        config = self.space.config(point)
        jets = None if stage == "long" else self.space.explore.training_jets
        key = digest(config.model_dump_json(), self.jets_key, jets)[:24]
        name = f"point {number}{' on all jets' if stage == 'long' else ''}"
        function = _train_float if stage == "float" else _train
        arguments = (name, config, self.data, jets, self.work / key)
        return Job(name, function, arguments, self.work / f"{key}.{stage}.json")

    def run(self, study: optuna.Study, wanted: int, progress: Progress) -> None:
        """Asks the study for points, until it has so many that were trained or given up."""
        numbers: dict[Path, tuple[int, Values]] = {}
        finished = len(_of(study, TrialState.COMPLETE, TrialState.PRUNED))
        progress("points", finished, wanted)

        def jobs() -> Iterator[Job]:
            for number, point in _interrupted(study, self.space):
                yield begin(number, point)
            ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            while len(_of(study, *ended)) < wanted:
                asked = _ask(study, self.space)
                if asked is None:
                    return
                yield begin(*asked)

        def begin(number: int, point: Values) -> Job:
            job = self.job(number, point, "float")
            numbers[job.output] = number, point
            return job

        def done(job: Job) -> list[Job]:
            nonlocal finished
            number, point = numbers[job.output]
            result = json.loads(job.output.read_text())
            if job.function is _train_float:
                if not self._is_hopeless(study, number, result["accuracy"]):
                    following = self.job(number, point, "short")
                    numbers[following.output] = number, point
                    return [following]
                study.tell(number, state=TrialState.PRUNED)
            else:
                before = json.loads(self.job(number, point, "float").output.read_text())
                result["seconds"] = round(result["seconds"] + before["seconds"], 1)
                study.set_user_attr(_RESULT.format(number), result)
                study.tell(number, (result["accuracy"], result[self.space.explore.cost]))
            finished += 1
            progress("points", finished, wanted)
            return []

        self.runner.do(jobs(), done, lambda text: progress(text, finished, wanted))

    def _is_hopeless(self, study: optuna.Study, number: int, accuracy: float) -> bool:
        study.set_user_attr(_FLOAT.format(number), accuracy)
        floats = (v for k, v in study.user_attrs.items() if k.startswith(_FLOAT.format("")))
        return bool(accuracy < max(floats) - self.space.explore.given_up)

    def check(self, points: list[Point], progress: Progress) -> list[Checked]:
        """The points after a training on all jets."""
        jobs = [self.job(point.number, point.values, "long") for point in points]
        finished = 0
        progress("long trainings", 0, len(jobs))

        def done(_: Job) -> None:
            nonlocal finished
            finished += 1
            progress("long trainings", finished, len(jobs))

        self.runner.do(jobs, done, lambda text: progress(text, finished, len(jobs)))
        results = [json.loads(job.output.read_text()) for job in jobs]
        return [
            Checked(
                number=point.number,
                short=point.accuracy,
                long=result["accuracy"],
                lut=result["lut"],
                latency_ns=result["latency_ns"],
            )
            for point, result in zip(points, results, strict=True)
        ]


# ---- the study


def open_study(storage: str, space: Space, jets_key: str) -> optuna.Study:
    """The study of the space in a file or database, which is made.

    Raises `UserError` when the storage is none, or holds a study of something else.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    is_url = "://" in storage
    given = option("storage", _shown(storage) if is_url else storage)
    url = storage if is_url else f"sqlite:///{Path(storage).resolve()}"
    if not is_url:
        Path(storage).resolve().parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=url,
            study_name=space.path.stem,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        known = study.user_attrs
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        reason = (" ".join(str(cause).split()) or type(cause).__name__)[:160]
        raise UserError(f"{given}: no study can be kept there ({reason}); give another") from None
    config = space.config({})
    identity = {
        **{f"vary.{key}": json.dumps(values) for key, values in space.choices.items()},
        "cost": space.explore.cost,
        "training_jets": space.explore.training_jets,
        "given_up": space.explore.given_up,
        "model": digest(config.model_dump_json())[:16],
        "jets": jets_key[:16],
    }
    if not known and not study.get_trials(deepcopy=False):
        study.set_user_attr("space", identity)
        return study
    before = known.get("space", {})
    for key in (*identity, *before):
        if before.get(key) != identity.get(key):
            there, here = (str(found.get(key, "nothing"))[:60] for found in (before, identity))
            raise UserError(
                f"{given}: holds a study of another search space ({key}: {there} there, {here} "
                f"here); move it away, or give {option('storage')} another place"
            )
    return study


def _shown(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url.partition("://")[0] + "://..."


def point_of(trial: FrozenTrial) -> Values:
    """The values of a trial; in the study they are JSON."""
    return {key: json.loads(value) for key, value in trial.params.items()}


def _of(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states)


def _interrupted(study: optuna.Study, space: Space) -> list[tuple[int, Values]]:
    """Points, by the number of their trial, that a run was at when it was stopped."""
    found: list[tuple[int, Values]] = []
    ended = [point_of(t) for t in _of(study, TrialState.COMPLETE, TrialState.PRUNED)]
    for trial in _of(study, TrialState.RUNNING):
        point = point_of(trial)
        known = [*ended, *(other for _, other in found)]
        if set(point) == set(space.choices) and space.has(point) and point not in known:
            found.append((trial.number, point))
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return found


def _ask(study: optuna.Study, space: Space) -> tuple[int, Values] | None:
    """A new point with a model, and the number of its trial; nothing when all are known."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    known = {json.dumps(point_of(trial), sort_keys=True) for trial in _of(study, *ended)}

    def is_new(point: Values) -> bool:
        return json.dumps(point, sort_keys=True) not in known and space.has(point)

    choices = {key: [json.dumps(v) for v in values] for key, values in space.choices.items()}
    # Another seed whenever it goes on, else it would propose what it has proposed.
    seed = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    for attempt in range(DULL + 1):
        if attempt == DULL:
            left = [point for point in space.points() if is_new(point)]
            if not left:
                return None
            chosen = left[np.random.default_rng(seed).integers(len(left))]
            study.enqueue_trial({key: json.dumps(value) for key, value in chosen.items()})
        trial = study.ask()
        point = {
            key: json.loads(trial.suggest_categorical(key, values))
            for key, values in choices.items()
        }
        if is_new(point):
            return trial.number, point
        study.tell(trial, state=TrialState.FAIL)
    return None


def _found(space: Space, study: optuna.Study, training: _Training, jets: DataSet) -> Search:
    notes = study.user_attrs
    points = [
        Point(number=t.number, values=point_of(t), **notes[_RESULT.format(t.number)])
        for t in _of(study, TrialState.COMPLETE)
    ]
    if not points:
        raise UserError(f"{space.path}: explore: no point was trained; every one was given up")
    return Search(
        model=space.path.stem,
        cost=space.explore.cost,
        vary={key: list(values) for key, values in space.choices.items()},
        training_jets=space.explore.training_jets,
        all_jets=len(jets.train),
        validation_jets=len(jets.validation),
        points=points,
        given_up={t.number: notes[_FLOAT.format(t.number)] for t in _of(study, TrialState.PRUNED)},
        checked=[],
    )


def _chosen(found: Search) -> list[Point]:
    """Points for the long training: both ends and the middle of the front, else the next best."""
    front = found.front
    chosen = {p.number: p for p in (front[0], front[len(front) // 2], front[-1])}
    others = sorted(found.points, key=lambda p: -p.accuracy)
    for point in others:
        if len(chosen) < CHECKED:
            chosen.setdefault(point.number, point)
    return sorted(chosen.values(), key=lambda p: -p.accuracy)


def _particles(space: Space) -> int:
    return int(max(space.choices.get("particles", (space.content["particles"],))))


# ---- the jobs


def _begun(config: ModelConfig, data: Path, jets: int | None) -> tuple[Samples, Samples]:
    """Readies TensorFlow for a job; training and validation jets, of the former `jets`, the same
    for every model."""
    one_core()
    found = load_data(data, config.particles)
    order = np.random.default_rng(0).permutation(len(found.train))[:jets]
    samples = Samples.of(found.train[order], config), Samples.of(found.validation, config)
    tf.keras.backend.clear_session()
    return samples


def _train_float(
    name: str, config: ModelConfig, data: Path, jets: int | None, state: Path, output: Path
) -> None:
    """A job: the float half of a training."""
    start = time.process_time()
    training, validation = _begun(config, data, jets)
    model = train_float(config, training, validation, state, telling(name))
    accuracy = measure(model, validation)[1]
    _write(output, {"accuracy": accuracy, "seconds": round(time.process_time() - start, 1)})


def _train(
    name: str, config: ModelConfig, data: Path, jets: int | None, state: Path, output: Path
) -> None:
    """A job: the training, or the rest of it, and what its firmware would cost."""
    start = time.process_time()
    training, validation = _begun(config, data, jets)
    _, quantized = train(config, training, validation, state, telling(name))
    snap_weights(quantized)
    tagger = Tagger("explored", config, quantized, None, ())
    with tempfile.TemporaryDirectory() as temporary:
        graph = converted(tagger, Path(temporary) / "firmware", "Vitis").graph
        record = project_of(tagger, graph, Path(temporary) / "rtl", Options()).estimate()
    figures = {key: getattr(record, key) for key in ("lut", "ff", "dsp", "latency_ns", "ii_cycles")}
    accuracy = measure(quantized, validation)[1]
    seconds = round(time.process_time() - start, 1)
    _write(output, {"accuracy": accuracy, **figures, "seconds": seconds})


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content) + "\n")
