"""A study: rows that change one base model, trained by one protocol. Its runs and their results.

The rows are declared in a YAML (`docs/results/ablations.yaml`); beside it stand the results of
every run, `ablations.json`, and which test jets each run classified correctly, `ablations/`. These
two are the whole record: what is missing there is still to be trained, and runs made at different
times can be compared jet by jet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from salt_hls.config import ModelConfig, Strict, Training, Types, first_fault, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.system.store import locked, replacing

BASE = "base"
"""The row that the others are compared with, unless they name another."""

Expectation = Literal["worse", "better", "same"]


class Widths(Strict):
    """Bits of all weights (and biases), and of all activations between input and logits."""

    weights: int = Field(ge=2, le=12)
    activations: int = Field(ge=3, le=12)

    def types(self, types: Types) -> Types:
        """`types` at these widths; integer bits, rounding and overflow stay."""
        return resized(types, self.weights, self.activations)


def resized(types: Types, weights: int | None, activations: int | None) -> Types:
    """`types` at other widths, where given; integer bits, rounding and overflow stay.

    attention.context, a sum, keeps its width: that of activations is what it is rounded to.
    """

    def resize(value: Any, width: int | None) -> Any:
        if isinstance(value, dict):
            return {key: resize(v, width) for key, v in value.items()}
        if width is None:
            return value
        modes = (value.rounding, value.overflow)
        return FixedType(max(width, value.int_bits + 1), value.int_bits, value.signed, *modes)

    values = {key: value for key, value in types if key != "attention" and value is not None}
    values["attention"] = {key: value for key, value in types.attention if value is not None}
    changed = {
        key: resize(v, weights if key in ("weights", "biases") else activations)
        for key, v in values.items()
    }
    changed["attention"]["context"] = types.attention.context
    return Types.model_validate({**changed, "output": types.output})


class Settings(Strict):
    """All that fixes the result of a run, but the jets themselves.

    noise: sigma [rad] of the Gaussian noise on deta and dphi. bounded: the float training keeps
    weights in the ranges of their declared types, as one that is quantized later must. widths:
    quantized training follows (a bounded one), with types of these widths.
    """

    model: ModelConfig
    training_jets: int = Field(gt=0)
    validation_jets: int = Field(gt=0)
    noise: float = Field(default=0.0, ge=0)
    pairwise_bias: bool = False
    bounded: bool = False
    widths: Widths | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.model.training is None:
            raise ValueError("training: the key is missing; the base declares the protocol")
        if self.model.widths.learned:
            raise ValueError("widths: a study's tensors have one width each; leave the key out")
        if self.bounded and self.model.types is None:
            raise ValueError("types: the key is missing; bounds and widths come from it")
        if self.pairwise_bias and (self.bounded or self.model.attention == "full"):
            raise ValueError("pairwise_bias: float only, unbounded, and not with full attention")
        return self

    @property
    def training(self) -> Training:
        """The protocol, with the seed."""
        if self.model.training is None:
            raise UserError("training: the key is missing; the base declares the protocol")
        return self.model.training

    @property
    def key(self) -> str:
        """Hash of the settings. New options at their defaults leave it as it is."""
        return hashlib.sha256(json.dumps(self.dump(), sort_keys=True).encode()).hexdigest()[:16]

    def dump(self) -> dict[str, Any]:
        """As JSON, without defaults and without the phases that are not used."""
        settings = self.model_dump(mode="json", exclude_defaults=True)
        if self.widths is None:
            del settings["model"]["training"]["quantized_phases"]
        return settings

    @property
    def float_stage(self) -> Settings:
        """Those of the float training alone, which runs of several widths share."""
        return self.model_copy(update={"widths": None})


class Row(Strict):
    """One line of the tables: what is changed, and the claim that it tests.

    changes: keys of the base model, nested ones merged. against: the row it is compared with.
    expect: what the claim says of this row's accuracy against the other's. The remaining keys are
    those of `Settings`.
    """

    group: str
    what: str
    changes: dict[str, Any] = {}
    against: str | None = BASE
    expect: Expectation | None = None
    seeds: int = Field(default=3, gt=0)
    noise: float = 0.0
    pairwise_bias: bool = False
    bounded: bool = False
    widths: Widths | None = None


class Study(Strict):
    """The base, the protocol and the rows, most informative first.

    margin: differences of accuracy below this do not matter. groups: titles of the tables.
    """

    training_jets: int = Field(gt=0)
    validation_jets: int = Field(gt=0)
    margin: float = Field(gt=0)
    base: dict[str, Any]
    groups: dict[str, str]
    rows: dict[str, Row]

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for name, row in self.rows.items():
            if row.group not in self.groups:
                raise ValueError(f"row {name}: unknown group {row.group!r}")
            if row.against not in (None, *self.rows):
                raise ValueError(f"row {name}: against unknown row {row.against!r}")
            try:
                self.settings(name, 1)
            except ValidationError as error:
                raise ValueError(f"row {name}: {first_fault(error)}") from None
        return self

    def settings(self, name: str, seed: int) -> Settings:
        """Those of one run."""
        row = self.rows[name]
        model = _merged(self.base, row.changes)
        model["training"] = {**model.get("training", {}), "seed": seed}
        bounded = row.bounded or row.widths is not None
        if not bounded:
            model.pop("types", None)  # a float training does not see them
        own = {**row.model_dump(include={"noise", "pairwise_bias", "widths"}), "bounded": bounded}
        jets = {"training_jets": self.training_jets, "validation_jets": self.validation_jets}
        return Settings.model_validate({"model": model, **jets, **own})

    def runs(self, names: Sequence[str] = ()) -> list[Run]:
        """One seed of every named row (all if none), then the second seeds, and so on.

        Raises `UserError` naming the rows when one is unknown.
        """
        for name in names:
            if name not in self.rows:
                raise UserError(f"row {name!r}: unknown; known: {', '.join(self.rows)}")
        rows = {n: r for n, r in self.rows.items() if n in names or not names}
        most = max((r.seeds for r in rows.values()), default=0)
        return [
            Run(name, seed, self.settings(name, seed))
            for seed in range(1, most + 1)
            for name, row in rows.items()
            if seed <= row.seeds
        ]


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if nested else value
    return merged


@dataclass(frozen=True)
class Run:
    """One training of one row."""

    row: str
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"


class Record(BaseModel):
    """The result of a run. jets: hash of the jets it was trained, validated and tested on.

    auc: each class against all others, and their "mean". cpu_seconds: of the process that finished
    it.
    """

    row: str
    seed: int
    settings: dict[str, Any]
    key: str
    jets: str
    test_jets: int
    accuracy: float
    auc: dict[str, float]
    parameters: int
    cpu_seconds: int

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"


@dataclass(frozen=True)
class Results:
    """The committed results of the study of a YAML, on disk."""

    study: Path

    @property
    def path(self) -> Path:
        """One line for each run."""
        return self.study.with_suffix(".json")

    def records(self) -> dict[str, Record]:
        """All of them, by the name of the run. Raises `UserError` when the file is damaged."""
        if not self.path.exists():
            return {}
        try:
            rows = [Record.model_validate(r) for r in json.loads(self.path.read_text())["runs"]]
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{self.path}: not the results of a study ({reason}); restore it"
            ) from None
        return {r.name: r for r in rows}

    def correct(self, record: Record) -> NDArray[np.bool_]:
        """Which test jets a run classified correctly (test jets,)."""
        path = self._bits(record.name)
        try:
            bits = np.load(path)
        except (OSError, ValueError):
            raise UserError(
                f"{path}: missing or damaged; restore it, or remove {record.name} from {self.path} "
                "to train it again"
            ) from None
        return np.unpackbits(bits, count=record.test_jets).astype(bool)

    def add(self, record: Record, correct: NDArray[np.bool_]) -> None:
        """Adds or replaces a run; other processes may do so at the same time."""
        with replacing(self._bits(record.name)) as partial:
            np.save(partial, np.packbits(correct))
        with locked(self.study):
            records = {**self.records(), record.name: record}
            lines = ",\n".join(json.dumps(r.model_dump()) for _, r in sorted(records.items()))
            with replacing(self.path) as partial:
                partial.write_text(f'{{"runs": [\n{lines}\n]}}\n')

    def missing(self, runs: Sequence[Run], jets: str | None = None) -> list[Run]:
        """The runs without a result of their present settings and these jets (any if `None`)."""
        found = {(r.name, r.key) for r in self.records().values() if jets is None or r.jets == jets}
        return [run for run in runs if (run.name, run.settings.key) not in found]

    def _bits(self, name: str) -> Path:
        return self.study.with_suffix("") / f"{name}.npy"


def load_study(path: Path) -> Study:
    """Reads a study; every fault is a `UserError` with file, key and rule."""
    return load_yaml(path, Study)
