"""Data sets a model can be trained on, as training, validation and test sets.

Each format is a module with `FORMAT`; its generator yields a file slice by slice, and
`checks.Collector` checks the slices and keeps the particles that a model looks at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from salt_hls.config import Inputs
from salt_hls.errors import UserError
from salt_hls.jets.dataset import POINTS, JetSet
from salt_hls.jets.readers import generated, lhc, modelnet, quark_gluon, top_tagging
from salt_hls.jets.readers.base import Format, array_names, reading
from salt_hls.jets.readers.checks import Collector
from salt_hls.system.wording import command

FORMATS: tuple[Format, ...] = (
    generated.FORMAT,
    lhc.FORMAT,
    top_tagging.FORMAT,
    quark_gluon.FORMAT,
    modelnet.FORMAT,
)
HDF5 = (".h5", ".hdf5")
SUFFIXES = (*HDF5, ".npz", ".off")

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a file or one of its folders is called, and the split it belongs to."""

SHARES = {"validation": 0.1, "test": 0.1}
"""Cut out of the training set where the files bring no such split."""


@dataclass(frozen=True)
class DataSet:
    """The jets of a data set, its format's name, and what was mended (one line each)."""

    format: str
    train: JetSet
    validation: JetSet
    test: JetSet
    notes: tuple[str, ...]

    def require_fit(self, inputs: Inputs, logits: int, model: Path) -> None:
        """Raises `UserError` when a model is not made for these classes or features.

        One logit serves two classes.
        """
        classes = self.train.classes
        if logits != len(classes) and (logits, len(classes)) != (1, 2):
            raise UserError(
                f"{model}: classes is {logits}, but the {self.format} have "
                f"{len(classes)} ({', '.join(classes)}); set classes: {len(classes)}"
            )
        linear = all(feature.curve == "linear" for feature in inputs.features)
        if self.train.features == POINTS and not (inputs.order == "given" and linear):
            raise UserError(
                f"{model}: inputs: point clouds need order: given and curve: linear, got order: "
                f"{inputs.order} and {', '.join(f.curve for f in inputs.features)}"
            )


def load_data(path: Path, particles: int) -> DataSet:
    """Recognizes and reads the files of `path`, keeping the `particles` hardest of every jet.

    path: a file, or a folder with files of one format; files or folders named train, val
    (validation) and test are those splits, and nothing else is read then. A missing split is cut
    out of another at random, always alike. Raises `UserError` that names what was found when the
    format is unknown, and for content that breaks its rules.
    """
    files = _files(path)
    first = next(iter(files.values()))[0]
    kind = _recognize(first)
    notes: list[str] = []
    read: dict[str, JetSet] = {}
    for split, paths in files.items():
        collector = Collector(paths[0] if len(paths) == 1 else path, particles, kind.ordered)
        for file in paths:
            collector.begin(file)
            with reading(file):
                for part in kind.slices(file, particles):
                    collector.add(part)
        read[split] = collector.finish()
        notes += collector.notes
    notes += _complete(read)
    _check_classes(path, read)
    return DataSet(kind.name, read["train"], read["validation"], read["test"], tuple(notes))


def _files(path: Path) -> dict[str, list[Path]]:
    """Files by split; all are "train" where names say nothing."""
    if not path.exists():
        make = command("data")
        raise UserError(f"{path}: no such jet file or folder; {make} generates jets in data/")
    if path.is_file():
        return {"train": [path]}
    found = [
        p
        for p in sorted(path.rglob("*"))
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    ]
    if not found:
        inside = _listed(sorted(p.name for p in path.iterdir()))
        raise UserError(
            f"{path}: no data in this folder; expected files ending in {', '.join(SUFFIXES)}, "
            f"found {inside}"
        )
    named: dict[str, list[Path]] = {}
    for file in found:
        split = _split_of(file.relative_to(path))
        if split:
            named.setdefault(split, []).append(file)
    if named and "train" not in named:
        raise UserError(
            f"{path}: no training set, only {' and '.join(named)}; call its file or folder train"
        )
    return named or {"train": found}


def _split_of(file: Path) -> str | None:
    """By a word in the name of the file, or of a folder, the innermost first."""
    for part in (file.stem, *reversed(file.parent.parts)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None


def _recognize(file: Path) -> Format:
    suffix = file.suffix.lower()
    with reading(file):
        if suffix == ".off":
            return modelnet.FORMAT
        if suffix == ".npz":
            names = array_names(file)
        elif suffix in HDF5:
            with h5py.File(file, "r") as content:
                names = sorted(content)
        else:
            raise UserError(
                f"{file}: a data set is a file ending in {', '.join(SUFFIXES)} or a folder of them"
            )
    for kind in FORMATS:
        if kind.key in names:
            return kind
    known = ", ".join(f"{k.name} ({k.key!r})" for k in FORMATS if k.key)
    raise UserError(f"{file}: unknown format, found {_listed(names)}; known: {known}, OFF meshes")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:8]) or "nothing"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _complete(read: dict[str, JetSet]) -> list[str]:
    """Gives every set its three splits; what had to be cut, one line each."""
    notes = []
    if "test" not in read and "validation" in read:
        read["test"] = read.pop("validation")
        notes.append("no test set among the files: the validation set is the test set")
    missing = [name for name in SHARES if name not in read]
    jets = read["train"]
    order = np.random.default_rng(0).permutation(len(jets))
    left = [order[jets.labels[order] == label] for label in range(len(jets.classes))]
    sizes = [len(rows) for rows in left]
    for name in missing:
        counts = [max(1, round(SHARES[name] * size)) for size in sizes]  # every class is in it
        rows = np.concatenate([rows[:count] for rows, count in zip(left, counts, strict=True)])
        left = [rows[count:] for rows, count in zip(left, counts, strict=True)]
        read[name] = jets[np.sort(rows)]
        notes.append(f"no {name} set among the files: {len(rows)} jets of the training set are it")
    if missing:
        read["train"] = jets[np.sort(np.concatenate(left))]
    return notes


def _check_classes(path: Path, read: dict[str, JetSet]) -> None:
    train = read["train"]
    for name, jets in read.items():
        if (jets.classes, jets.features) != (train.classes, train.features):
            raise UserError(
                f"{path}: the splits differ in their classes: train has "
                f"{', '.join(train.classes)}, {name} has {', '.join(jets.classes)}"
            )
        counts = np.bincount(jets.labels, minlength=len(jets.classes))
        if np.min(counts) == 0:
            missing = jets.classes[int(np.argmin(counts))]
            raise UserError(
                f"{path}: no jet of class {missing!r} in the {name} set of "
                f"{len(jets)} jets; every set needs every class ({', '.join(jets.classes)})"
            )
