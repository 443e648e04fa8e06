"""Search of a YAML's ranges: which points are trained, what is kept, what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from salt_hls.cli.commands import app
from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.report.budget import Budget, Shares, limit_of, load_budget
from salt_hls.studies import explore
from salt_hls.studies.explore import Checked, Search, Space, search
from salt_hls.studies.front import verdict, write
from salt_hls.system.jobs import Job, Runner

Make = Callable[..., Path]
SAMPLE = MODELS / "sample.h5"

VARY: dict[str, Any] = {
    "width": [2, 4],
    "heads": [1, 4],
    "filter_heights": [[], [1, 3]],
    "weights": {"from": 4, "to": 8, "step": 4},
}
MODELS_THERE = 12
"""Of 16 combinations, those whose width is a multiple of the heads."""


@pytest.fixture
def make(small_model: Make) -> Make:
    def model(vary: Any = VARY, **changes: Any) -> Path:
        given = {"training_jets": 400, "given_up": 0.1, "vary": vary, **changes}
        return small_model(weights=False, explore=given)

    return model


class Stopped(BaseException):
    pass


class Here(Runner):
    """Does jobs in this process, `stop_after` at most; keeps what it was given."""

    def __init__(self, stop_after: int = 10**9) -> None:
        super().__init__()
        self.trained: list[Job] = []
        self.left = stop_after

    def do(self, jobs: Iterable[Job], done: Any = None, told: Any = None) -> None:
        for first in jobs:
            following = [first]
            while following:
                job = following.pop()
                if not job.output.exists():
                    if self.left == 0:
                        raise Stopped
                    self.left -= 1
                    self.trained.append(job)
                    job.function(*job.arguments, job.output)
                following.extend(done(job) or ())


def bits(config: ModelConfig) -> int:
    assert config.types is not None
    return config.types.weight("embed").width


@pytest.fixture(autouse=True)
def formulas(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """In place of trainings: accuracies and costs of the values."""
    if request.node.get_closest_marker("slow"):
        return

    def accuracy(config: ModelConfig) -> float:
        return 0.3 + 0.05 * config.width + 0.01 * bits(config) + 0.02 * len(config.filter_heights)

    def train_float(
        name: str, config: ModelConfig, data: Path, jets: int, state: Path, output: Path
    ) -> None:
        explore._write(output, {"accuracy": accuracy(config), "seconds": 1.5})

    def train(
        name: str, config: ModelConfig, data: Path, jets: int | None, state: Path, output: Path
    ) -> None:
        lut = 100 * config.width * bits(config) * (1 + len(config.filter_heights))
        figures = {"lut": lut, "ff": 2 * lut, "dsp": 0, "latency_ns": 50.0 + config.heads}
        value = accuracy(config) - 0.01 + (0.0 if jets else 0.02)
        explore._write(output, {"accuracy": value, **figures, "ii_cycles": 1, "seconds": 2.0})

    monkeypatch.setattr(explore, "_train_float", train_float)
    monkeypatch.setattr(explore, "_train", train)


def found(
    path: Path, folder: Path, trials: int, runner: Runner, storage: str | None = None
) -> Search:
    space = Space.load(str(path))
    return search(space, SAMPLE, folder, storage, trials, runner, lambda *_: None)


def test_points_differ_and_go_on_until_none_is_left(make: Make, tmp_path: Path) -> None:
    path, runner = make(given_up=1.0), Here()
    one = found(path, tmp_path / "a", 5, runner)
    assert len(one.points) == 5 and one.given_up == {}
    assert [job.function for job in runner.trained].count(explore._train_float) == 5
    again = Here()
    assert found(path, tmp_path / "a", 5, again).model_dump() == one.model_dump()
    assert again.trained == []
    more = found(path, tmp_path / "a", 7, again)
    assert [p.number for p in more.points][:5] == [p.number for p in one.points]
    assert len(more.points) == 7
    everything = found(path, tmp_path / "a", 1000, again)
    values = {json.dumps(p.values, sort_keys=True) for p in everything.points}
    assert len(values) == len(everything.points) == MODELS_THERE
    # The same from the start is the same; and all of it is what the front says.
    assert found(path, tmp_path / "b", 5, Here()).points == one.points
    for point in everything.points:
        beaten = any(
            o.accuracy >= point.accuracy and o.lut <= point.lut and o.values != point.values
            and (o.accuracy, o.lut) != (point.accuracy, point.lut)
            for o in everything.points
        )  # fmt: skip
        same = any((o.accuracy, o.lut) == (point.accuracy, point.lut) for o in everything.front)
        assert same != beaten


@pytest.mark.parametrize("jobs", [0, 3, 10])
def test_an_interrupted_search_goes_on_with_its_points(
    jobs: int, make: Make, tmp_path: Path
) -> None:
    path, first, second = make(given_up=1.0), Here(jobs), Here()
    with pytest.raises(Stopped):
        found(path, tmp_path, 5, first)
    result = found(path, tmp_path, 5, second)
    assert len(result.points) == 5
    outputs = [job.output for job in (*first.trained, *second.trained)]
    assert len(set(outputs)) == len(outputs) == 5 + 5 + 3
    assert all(path.exists() for path in outputs)


def test_hopeless_points_are_given_up_after_the_float_half(make: Make, tmp_path: Path) -> None:
    runner = Here()
    result = found(make(), tmp_path, MODELS_THERE, runner)
    assert result.given_up and len(result.points) + len(result.given_up) == MODELS_THERE
    halves = [job.output for job in runner.trained if job.output.name.endswith("float.json")]
    floats = [json.loads(path.read_text())["accuracy"] for path in halves]
    assert all(value < max(floats) - 0.1 for value in result.given_up.values())
    quantized = [job for job in runner.trained if job.output.name.endswith("short.json")]
    assert len(quantized) == len(result.points)


def test_what_is_written_can_be_trained(make: Make, tmp_path: Path) -> None:
    path = make(given_up=1.0)
    result = found(path, tmp_path, 9, Here())
    space = Space.load(str(path))
    budget = load_budget("cms_l1t_jet")
    written = write(result, space, budget, tmp_path / "out")
    assert [p.name for p in written[:3]] == ["explore.json", "explore.md", "front.png"]
    assert Search.model_validate_json(written[0].read_text()) == result
    assert len(written) == 3 + len(result.front) and written[2].stat().st_size > 10_000
    for point, model in zip(result.front, written[3:], strict=True):
        config = load_yaml(model, ModelConfig)
        assert config.width == point.values["width"] and config.explore is None
        assert list(config.filter_heights) == point.values["filter_heights"]
        assert bits(config) == point.values["weights"]
        assert config.training == load_yaml(path, ModelConfig).training
        assert config == space.config(point.values)
    text = written[1].read_text()
    assert f"allows: {limit_of(budget, 'lut'):,.0f}" in text
    assert text.count("| **") == len(result.front)
    assert len({c.number for c in result.checked}) == 3
    assert all(c.long == pytest.approx(c.short + 0.02) for c in result.checked)


def test_the_ranking_is_judged() -> None:
    def three(*longs: float, shorts: tuple[float, ...] = (0.7, 0.6, 0.5)) -> list[Checked]:
        return [
            Checked(number=n, short=short, long=long, lut=1, latency_ns=1)
            for n, (short, long) in enumerate(zip(shorts, longs, strict=True))
        ]

    assert verdict(three(0.8, 0.7, 0.6), 10_000) == "Yes: the long training gives the same order."
    assert verdict(three(0.7, 0.8, 0.6), 10_000).startswith("No: 0 and 1 change places")
    assert verdict(three(0.7, 0.7, 0.6), 10_000) == (
        "Yes: the long training gives the same order. Within two standard errors of each other: "
        "0 and 1."
    )
    assert verdict(three(0.8, 0.7, 0.6, shorts=(0.6, 0.6, 0.6)), 10_000).startswith("It cannot be")


def test_limits_of_a_budget() -> None:
    budget = Budget(part="xcvu13p", share=Shares(lut=0.5), copies=2)
    assert limit_of(budget, "lut") == 1_728_000 / 4 and limit_of(budget, "latency_ns") is None
    assert limit_of(load_budget("cms_l1t_jet"), "latency_ns") == 100


def test_a_study_of_something_else_is_named(make: Make, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    found(make(), tmp_path / "a", 3, Here(), storage)
    same = make()
    found(same, tmp_path / "b", 3, Here(), f"sqlite:///{storage}")
    content = yaml.safe_load(same.read_text())
    for change, says in (
        ({"vary": {**VARY, "width": [2, 8]}}, r"vary.width: \[2, 4\] there, \[2, 8\] here"),
        (
            {"vary": {k: v for k, v in VARY.items() if k != "heads"}},
            "heads: .* there, nothing here",
        ),
        ({"cost": "latency_ns"}, "cost: lut there, latency_ns here"),
        ({"training_jets": 300}, "training_jets: 400 there, 300 here"),
    ):
        same.write_text(yaml.safe_dump({**content, "explore": {**content["explore"], **change}}))
        with pytest.raises(UserError) as caught:
            found(same, tmp_path / "b", 3, Here(), storage)
        text = str(caught.value)
        assert text.startswith(f"--storage {storage}: holds a study of another search space (")
        assert "\n" not in text and re.search(says, text), text
    same.write_text(yaml.safe_dump({**content, "feed_forward": 8}))
    with pytest.raises(UserError, match=r"another search space \(model: "):
        found(same, tmp_path / "b", 3, Here(), storage)


def test_storages_that_are_none(make: Make, tmp_path: Path) -> None:
    path = make()
    (tmp_path / "text.db").write_text("no database at all, but long enough to be one" * 30)
    for storage, says in (
        (str(tmp_path / "text.db"), "file is not a database"),
        (str(tmp_path), "unable to open database file"),
        ("postgresql://me:secret@nowhere/db", "Failed to import DB access module"),
        ("nonsense://", "nonsense"),
    ):
        with pytest.raises(UserError, match="no study can be kept there") as caught:
            found(path, tmp_path / "a", 3, Here(), storage)
        text = str(caught.value)
        assert says in text and "secret" not in text and "\n" not in text


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ({"widht": [1]}, "unknown key 'widht'"),
        ({"width": ["wide"]}, "explore.vary: width: .*got 'wide'"),
        ({"width": [0]}, "explore.vary: width: .*greater than 0, got '0'"),
        ({"weights": [1, 4]}, "explore.vary.weights: must be bits, 2 ... 12, got 1"),
        ({"training.seed": [1, 2]}, "explore.vary.training.seed: cannot be varied"),
        ({"firmware.lanes": [1]}, "unknown key 'firmware.lanes'"),
        ({"width": []}, "explore.vary.width"),
        ({"width": {"from": 8, "to": 4}}, r"to: must be at least from \(8\), got 4"),
        ({}, "explore.vary"),
    ],
)
def test_ranges_that_no_model_has(vary: Any, says: str, make: Make) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Space.load(str(make(vary)))
    assert "\n" not in str(caught.value) and "small.yaml: " in str(caught.value)


def test_other_mistakes(make: Make, small_model: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key 'explore' is missing; a model to explore has it"):
        Space.load(str(small_model("plain", weights=False, explore=None)))
    with pytest.raises(UserError, match="training_jets: 9000 are more than the 4798"):
        found(make(training_jets=9000), tmp_path, 3, Here())
    with pytest.raises(UserError, match="no such jet file or folder"):
        search(Space.load(str(make())), tmp_path / "no", tmp_path, None, 3, Here(), lambda *_: None)


def test_the_shipped_space_is_one() -> None:
    space = Space.load("salt_p4_n16")
    points = [point for point in space.points() if space.has(point)]
    assert len(points) > 1000 and space.has({})
    unchanged = load_yaml(MODELS / "salt_p4_n16.yaml", ModelConfig)
    assert space.config({}) == unchanged.model_copy(update={"explore": None})


@pytest.mark.slow
def test_a_search_from_the_command_line(make: Make, tmp_path: Path) -> None:
    """Real trainings and estimates of tiny models, in worker processes."""
    path = make({"width": [2, 4], "weights": [4, 6]})
    content = yaml.safe_load(path.read_text())
    phase = {"batch": 100, "epochs": 1, "patience": 1, "learning_rate": 0.01}
    content["training"] = {"seed": 1, "float_phases": [phase], "quantized_phases": [phase]}
    path.write_text(yaml.safe_dump(content))
    build = tmp_path / "build"
    arguments = [
        "explore",
        str(path),
        "--trials",
        "3",
        "--data",
        str(SAMPLE),
        "--build",
        str(build),
    ]
    for _ in range(2):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    result = Search.model_validate_json((build / "explore/small/explore.json").read_text())
    assert len(result.points) + len(result.given_up) == 3 and result.all_jets == 4798
    assert all(p.lut > 1000 and p.latency_ns > 10 and p.seconds > 0 for p in result.points)
    assert {p.accuracy for p in result.points} != {c.long for c in result.checked}
    (best,) = (build / "explore/small").glob(f"small_e{result.front[-1].number}.yaml")
    assert "salt-hls train" in done.output and best.name in done.output.replace("\n", "")
