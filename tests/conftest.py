"""Shared set-up."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from salt_hls.config import MODELS
from salt_hls.jets.dataset import JetSet
from salt_hls.system.jobs import Runner

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# `make test` sets it for the commands that make calls; messages here are those of the tool itself.
os.environ.pop("SALT_HLS_CALLER", None)


@pytest.fixture(autouse=True)
def compiled_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The C-simulation of the same files is compiled once for all tests of a run."""
    from salt_hls.hls import csim
    from salt_hls.system.digest import digest
    from salt_hls.system.processes import do

    library = tmp_path_factory.getbasetemp().parent / "compiled"

    def compile_or_copy(what: str, command: list[str], cwd: Path, log: Path) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        made, project = Path(command[-1]), Path(command[-3]).parent
        if not (project / "firmware").is_dir():  # a stand-in's
            return do(what, command, cwd, log)
        files = sorted(p for p in (project / "firmware").rglob("*") if p.is_file())
        names = [str(p.relative_to(project)) for p in files]
        key = digest(command[0], csim.COMPILE_FLAGS, names, files, project / Path(command[-3]).name)
        if limit != resource.RLIM_INFINITY or not (library / key).exists():
            do(what, command, cwd, log)
            library.mkdir(exist_ok=True)
            shutil.copy(made, library / f"{key}.{os.getpid()}")
            os.replace(library / f"{key}.{os.getpid()}", library / key)
        else:
            shutil.copy(library / key, made)

    monkeypatch.setattr(csim, "do", compile_or_copy)


@pytest.fixture
def eager() -> Iterator[None]:
    """TensorFlow without tracing: a few steps of a small model are not worth compiling."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def small_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes YAML and random weights of a small model; returns the YAML's path."""

    def make(name: str = "small", weights: bool = True, seed: int = 1, **changes: Any) -> Path:
        content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
        small = {"particles": 6, "partitions": 2, "width": 4, "heads": 2, "feed_forward": 4}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**content, **small, **changes}))
        if weights:
            save_random_weights(path, seed)
        return path

    return make


@pytest.fixture
def few_jets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the machinery, 300 of the sample jets do."""
    from salt_hls.check import diagnose
    from salt_hls.firmware import manifest, physics
    from salt_hls.models import tagger

    path = tmp_path / "sample.h5"
    JetSet.read(MODELS / "sample.h5", slice(0, 300)).write(path)
    for module in (tagger, manifest, physics, diagnose):
        monkeypatch.setattr(module, "SAMPLE", path)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file can grow beyond so many bytes, here and in programs started meanwhile."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture
def runner() -> Iterator[Runner]:
    """Does jobs on this machine, two at a time."""
    with Runner(2) as runner:
        yield runner


def without_progress(stderr: str) -> list[str]:
    """Lines on standard error, but for those of progress, which slow machines show."""
    progress = re.compile(r"salt-hls: .* \(\d+ s\)|")
    return [line for line in stderr.splitlines() if not progress.fullmatch(line)]


def save_random_weights(path: Path, seed: int) -> None:
    import tensorflow as tf

    from salt_hls.config import ModelConfig, load_yaml
    from salt_hls.models.build import build_model
    from salt_hls.models.weights import save_weights

    tf.keras.utils.set_random_seed(seed)
    model = build_model(load_yaml(path, ModelConfig), quantized=True)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    save_weights(model, path.with_name(f"{path.stem}.weights.h5"))
