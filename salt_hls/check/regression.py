"""Regression of a model's firmware: its integer logits of the first jets, kept in a CSV file.

That of `mine.yaml` is `mine.golden.csv` beside it; those of the shipped models are in
tests/golden of the repository. What the logits were made from stands above them.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from salt_hls import config
from salt_hls.errors import UserError
from salt_hls.system.digest import digest
from salt_hls.system.paths import CHECKOUT, KERAS_MODELS, PACKAGE
from salt_hls.system.store import replacing
from salt_hls.system.wording import command
from salt_hls.version import __version__

if TYPE_CHECKING:  # TensorFlow takes seconds to load, and a missing file is found before
    from salt_hls.check.checked import Checked

GOLDEN = CHECKOUT / "tests" / "golden"
JETS = 500


@dataclass(frozen=True)
class Golden:
    """Integer logits (up to 500 jets, values) in LSB, and what they were made from.

    version: of salt-hls. digests: of the model's files, by name.
    """

    logits: NDArray[np.int64]
    version: str
    digests: dict[str, str]


def golden_path(model: Path) -> Path:
    """CSV of a model's file: one jet a row, one integer logit (in LSB) a column.

    Raises `UserError` for a shipped model where no repository is.
    """
    if model.resolve().parent != config.MODELS:
        return model.with_name(f"{model.stem}.golden.csv")
    if KERAS_MODELS.is_relative_to(PACKAGE):
        raise UserError(
            f"model {model.stem!r}: a shipped model's golden logits are in salt-hls' repository; "
            "copy its YAML and weights, and give the copy"
        )
    return GOLDEN / f"{model.stem}.csv"


def file_digests(files: tuple[Path, ...]) -> dict[str, str]:
    """By name, of the files that logits depend on: weights, and what the YAML says of them.

    Comments of the YAML do not count, nor how the model is trained.
    """
    found = {}
    for path in files:
        if path.suffix in (".yaml", ".yml"):
            content = {
                k: v for k, v in config.read_yaml(path).items() if k not in ("training", "explore")
            }
            found[path.name] = digest(content)[:16]
        elif not path.name.endswith(".float.weights.h5"):
            found[path.name] = digest(path.read_bytes())[:16]
    return found


def read_golden(path: Path, model: str) -> Golden:
    """What `write_golden` wrote of a model; `UserError` when there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a file without any row
            logits = np.loadtxt(text.splitlines(), dtype=np.int64, delimiter=",", ndmin=2)
    except FileNotFoundError:
        renew = command("golden", model)
        raise UserError(f"{path}: no golden logits yet; {renew} writes them") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, UserWarning):
        renew = command("golden", model)
        raise UserError(
            f"{path}: not a table of integers, or damaged; restore it, or remove it and {renew}"
        ) from None
    version = re.search(r"^# salt-hls (\S+)$", text, re.MULTILINE)
    digests = re.findall(r"^# (.+) sha256 ([0-9a-f]{16})$", text, re.MULTILINE)
    return Golden(logits, version[1] if version else "an unknown version", dict(digests))


def write_golden(path: Path, golden: Golden) -> None:
    """Writes the file whole or not at all; the same logits of the same files, the same bytes."""
    told = [f"{name} sha256 {value}" for name, value in golden.digests.items()]
    header = "\n".join([f"salt-hls {golden.version}", *told])
    with replacing(path) as partial:
        np.savetxt(partial, golden.logits, fmt="%d", delimiter=",", header=header, encoding="utf-8")


def golden_of(firmware: Checked) -> Golden:
    """The logits of the firmware that has just been checked, on the first sample jets."""
    from salt_hls.check.compare import split_outputs
    from salt_hls.models.tagger import sample_inputs

    inputs, _ = sample_inputs(firmware.tagger)  # adversarial inputs follow them
    jets = firmware.outputs[: min(JETS, len(inputs))]
    pairs = zip(firmware.graph.outputs, split_outputs(firmware.graph, jets), strict=True)
    codes = [tensor.type.codes(y).reshape(len(y), -1) for tensor, y in pairs]
    files = file_digests(firmware.tagger.files)
    return Golden(np.concatenate(codes, axis=1), __version__, files)


NO_CHANGE = "no bit changed"


def changes(old: Golden, new: Golden) -> str:
    """One line: how many logits of how many jets differ, by how much, from which jet on; and
    whether the model's files have changed or something else has."""
    text = logit_changes(old.logits, new.logits)
    changed = [name for name, value in new.digests.items() if old.digests.get(name) != value]
    if changed and old.digests:
        return f"{text}; since then {' and '.join(changed)} changed"
    if text == NO_CHANGE or not old.digests:
        return text
    versions = "" if old.version == new.version else f" ({old.version} then, {new.version} now)"
    return (
        f"{text}; {' and '.join(new.digests)} are the same: salt-hls{versions}, hls4ml or the "
        "compiler changed"
    )


def logit_changes(old: NDArray[np.int64], new: NDArray[np.int64]) -> str:
    """Of logits (jets, values) in LSB."""
    if old.shape != new.shape:
        shapes = (f"{jets} jets of {values} logits" for jets, values in (old.shape, new.shape))
        return " became ".join(shapes)
    differs = old != new
    if not differs.any():
        return NO_CHANGE
    jets = np.flatnonzero(differs.any(axis=1))
    return (
        f"{int(differs.sum())} of {old.size} logits changed in {len(jets)} of {len(old)} jets, "
        f"by up to {int(np.abs(old - new).max())} LSB, first in jet {jets[0]}"
    )
