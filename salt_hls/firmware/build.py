"""`make firmware`: from a model's YAML and weights to checked firmware and its report."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import yaml
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

import salt_hls
from salt_hls.config import (
    MODELS,
    Inputs,
    ModelConfig,
    SavedModel,
    find_model,
    load_saved_model,
    load_yaml,
)
from salt_hls.digest import FIRMWARE_CODE, digest, graph_digest
from salt_hls.errors import UserError
from salt_hls.files import (
    fresh_folder,
    locked,
    put_folder,
    replacing,
    require_replaceable,
    restore,
)
from salt_hls.firmware.compare import (
    adversarial_inputs,
    compare_all,
    first_difference,
    split_outputs,
)
from salt_hls.firmware.convert import (
    KNOWN,
    Backend,
    convert,
    output_nodes,
    tensors,
    write_project,
)
from salt_hls.firmware.csim import Csim, compile_csim
from salt_hls.firmware.names import top_name
from salt_hls.firmware.supported import check_model
from salt_hls.fixed import FixedType
from salt_hls.jets.dataset import CLASSES, FEATURES, JetSet
from salt_hls.jets.ordering import prepare
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
from salt_hls.models import build_model, load_keras_model, snap_weights
from salt_hls.reports.budget import Budget
from salt_hls.reports.folder import (
    CSIM,
    DIAGNOSIS,
    EARLIER,
    INTERFACE,
    JSON,
    MANIFEST,
    PAGE,
    PROJECT,
    RTL,
    SIMULATED,
    archive,
    build_folder,
    changing,
    publish,
)
from salt_hls.reports.model import Physics, Report, RocCurve, Scores
from salt_hls.training.metrics import Metrics, evaluate, scores
from salt_hls.vendor.testbench import write_testbench
from salt_hls.weights import load_weights
from salt_hls.wording import command

logger = logging.getLogger(__name__)

SAMPLE = MODELS / "sample.h5"
DRAWN = 3000
"""Inputs of a model that takes no jets, drawn over its whole grid."""

DEFAULT_GRID = FixedType(16, 6)
PACKAGES = ("hls4ml", "qkeras", "numpy")
ROC_POINTS = 60
TESTBENCH_JETS = 200
"""Sample jets in the vendor's testbench, in front of the adversarial inputs."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of it is done of how much."""


@dataclass(frozen=True)
class Tagger:
    """A quantized tagger ready to be built, and the float model it came from, if known."""

    name: str
    config: ModelConfig | SavedModel
    quantized: tf.keras.Model
    float_model: tf.keras.Model | None
    files: tuple[Path, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input, (particles, features) or (features,)."""
        (given,) = self.quantized.inputs
        return tuple(given.shape[1:])

    @property
    def feature_types(self) -> tuple[FixedType, ...]:
        """Types along the last axis of the input."""
        inputs = self.config.inputs
        if isinstance(inputs, Inputs):
            return tuple(feature.type for feature in inputs.features)
        return (inputs.container,) * self.shape[-1]

    @property
    def partitions(self) -> int | None:
        """Partitions of the particles, where there is one number of them."""
        if isinstance(self.config, ModelConfig):
            return self.config.partitions
        kinds = PartitionedProjection
        found = {layer.partitions for layer in self.quantized.layers if isinstance(layer, kinds)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Project:
    """A tagger's HLS project, with its graph and compiled C-simulation."""

    folder: Path
    graph: Any
    csim: Csim


def load_tagger(reference: str) -> Tagger:
    """A shipped model by name, the user's own by path to its YAML, or a saved Keras model.

    Beside `<name>.yaml` stands `<name>.weights.h5`, and `<name>.float.weights.h5` if the float
    model is to be compared. A saved Keras model has its input grid in a YAML of the same stem
    beside it, which is written, with a warning, where it is missing.
    """
    path = find_model(reference)
    if path.suffix not in (".yaml", ".yml"):
        model = load_keras_model(path)
        check_model(model, KNOWN)
        snap_weights(model)
        beside = path.with_suffix(".yaml")
        if not beside.exists():
            _write_saved_model(model, beside)
        tagger = Tagger(path.stem, load_saved_model(beside), model, None, (path, beside))
        features = len(tagger.feature_types)
        if len(tagger.shape) != 2 and isinstance(tagger.config.inputs, Inputs):
            raise UserError(
                f"{beside}: inputs: the model takes {tagger.shape[0]} values, not particles; give "
                "one type: ap_fixed<W,I>"
            )
        if tagger.shape[-1] != features:
            raise UserError(
                f"{beside}: inputs: {features} features, the model has {tagger.shape[-1]} a "
                "particle; give one type: ap_fixed<W,I>"
            )
        return tagger
    config = load_yaml(path, ModelConfig)
    weights = path.with_name(f"{path.stem}.weights.h5")
    if not weights.exists():
        raise UserError(f"{weights}: no trained weights; {command('train', reference)} makes them")
    quantized = build_model(config, quantized=True)
    load_weights(quantized, weights)
    snap_weights(quantized)
    files, float_model = [path, weights], None
    float_weights = path.with_name(f"{path.stem}.float.weights.h5")
    if float_weights.exists():
        float_model = build_model(config, quantized=False)
        load_weights(float_model, float_weights)
        files.append(float_weights)
    return Tagger(path.stem, config, quantized, float_model, tuple(files))


def load_model(model: str | Path) -> tf.keras.Model:
    """The trained, quantized Keras model of a shipped model's name, or of a path to a user's own.

    A path leads to a YAML with `<name>.weights.h5` beside it, or to a saved Keras model. Quantized
    weights are on their grids. Raises `UserError` for files that are missing or no model.
    """
    return load_tagger(str(model)).quantized


def _write_saved_model(model: tf.keras.Model, path: Path) -> None:
    """The YAML of a saved model that has none: salt_p4's grid for particles, else hls4ml's."""
    *_, features = shape = model.input_shape[1:]
    if len(shape) == 2 and features == len(FEATURES):
        like = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).inputs
        inputs, grid = like.model_dump(mode="json"), "salt_p4's input grid"
    else:
        inputs, grid = {"type": str(DEFAULT_GRID)}, f"{DEFAULT_GRID} for every input"
    try:
        with replacing(path) as partial:
            partial.write_text(yaml.safe_dump({"inputs": inputs}, sort_keys=False))
    except UserError as error:
        raise UserError(
            f"{error}; it says what grid the inputs are on: inputs: {{type: {DEFAULT_GRID}}}"
        ) from None
    logger.warning(
        "%s: no input grid was given; written with %s: check that the model was trained on it",
        path,
        grid,
    )


def graph_of(tagger: Tagger, folder: Path, backend: Backend) -> Any:
    """The tagger's hls4ml graph, to be written to `folder`."""
    target = tagger.config.firmware
    container = tagger.config.inputs.container
    return convert(
        tagger.quantized,
        container,
        tagger.name,
        folder,
        backend,
        target.part,
        target.clock_ns,
        target.io_type,
        target.particles_per_clock,
    )


def write_and_compile(tagger: Tagger, folder: Path, backend: Backend, log: Path) -> Project:
    """Writes the HLS project to `folder`/firmware, compiles its C-simulation in `folder`/csim.

    log: where the compiler's messages are left when it fails.
    """
    graph = graph_of(tagger, folder / PROJECT, backend)
    project = write_project(graph)
    outputs = [node.name for node in output_nodes(graph)]
    csim = compile_csim(project, top_name(tagger.name), tensors(graph), outputs, folder / CSIM, log)
    return Project(project, graph, csim)


def sample_inputs(tagger: Tagger) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
    """The shipped test jets as the tagger's input, and their labels.

    For a model whose input is no particles of jets: values drawn over the whole grid, no labels.
    """
    inputs = tagger.config.inputs
    if isinstance(inputs, Inputs):
        jets = JetSet.read(SAMPLE)
        return prepare(jets.constituents, tagger.shape[0], inputs), jets.labels
    grid = inputs.container
    first = round(grid.min / grid.lsb)
    codes = np.random.default_rng(0).integers(first, first + 2**grid.width, (DRAWN, *tagger.shape))
    return np.asarray(codes * grid.lsb, np.float32), None


def single_output(tagger: Tagger) -> tf.keras.Model | None:
    """The model as one from a tensor to a vector, whatever container its output is in.

    `None` when it has other outputs.
    """
    model = tf.keras.Model(tagger.quantized.inputs, tagger.quantized.outputs)
    shape = model.output_shape
    return model if isinstance(shape, tuple) and len(shape) == 2 else None


def hard_inputs(tagger: Tagger) -> NDArray[np.float32]:
    """`adversarial_inputs` of the tagger; a vector's values are as particles of one feature."""
    *rows, _ = tagger.shape
    if rows:
        return adversarial_inputs(rows[0], tagger.feature_types)
    return adversarial_inputs(tagger.shape[0], tagger.feature_types[:1]).reshape(-1, *tagger.shape)


def build_firmware(
    reference: str,
    backend: Backend,
    build: Path,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> Report:
    """Builds and checks the firmware of a model; returns the report written with it.

    On success `build`/<name> holds firmware/, csim/, manifest.json, report.json, report.html and
    history/. Firmware that is the same as before keeps its RTL and its hardware figures. A failed
    run leaves what was there; when bits differ, the new folder is `build`/<name>.failed. Only
    builds are replaced: anything else of these names is a `UserError`.
    """
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    inputs, labels = sample_inputs(tagger)
    hard = hard_inputs(tagger)
    everything = np.concatenate([inputs, hard])
    target = build_folder(build, tagger.name)
    failed = target.with_name(f"{tagger.name}.failed")
    for place in (target, failed):
        require_replaceable(place, _is_build)
    with fresh_folder(target) as folder:
        progress("write and compile", 0, 1)
        log = target.with_name(f"{tagger.name}.compile.log")
        project = write_and_compile(tagger, folder, backend, log)
        done = 0

        def compared(events: int) -> None:
            nonlocal done
            done += events
            progress("compare every layer", done, len(everything))

        records, outputs = compare_all(
            tagger.quantized, project.graph, project.csim, everything, workers, compared
        )
        progress("report", 0, 1)
        np.savez(folder / SIMULATED, inputs=everything, outputs=outputs)
        project.csim.write(folder / INTERFACE, tagger.config.inputs.model_dump(mode="json"))
        chosen = [*range(min(TESTBENCH_JETS, len(inputs))), *range(len(inputs), len(everything))]
        write_testbench(
            project.graph,
            project.folder,
            [everything[chosen].astype(float)],
            split_outputs(project.graph, outputs[chosen]),
        )
        _write_manifest(folder, tagger, backend, project.graph)
        report = Report(
            model=tagger.name,
            backend=backend,
            io_type=tagger.config.firmware.io_type,
            part=tagger.config.firmware.part,
            clock_ns=tagger.config.firmware.clock_ns,
            n_particles=tagger.shape[0] if len(tagger.shape) == 2 else None,
            n_partitions=tagger.partitions,
            versions=versions(),
            inputs_sha256=hashlib.sha256(everything.tobytes()).hexdigest(),
            bit_accuracy=records,
            physics=_physics(tagger, inputs, labels, outputs[: len(inputs)]),
        )
        passed = first_difference(records) is None
        with changing(target):
            known = _known(folder, target, report)
            if known is None:
                archive(target, folder)
            else:
                pairs = {record.pair for record in records}
                report.bit_accuracy += [r for r in known.bit_accuracy if r.pair not in pairs]
                report.synthesis = known.synthesis
            publish(report, folder, budget)
            place = target if passed else failed
            same = passed and known is not None
            put_folder(folder, place, _is_build, keep=_kept(place, same))
    return report


@dataclass(frozen=True)
class Checked:
    """Firmware that has passed its checks, in its build folder.

    inputs (events, ...) and outputs (events, values): what C-simulation was given and gave, as
    grid floats; several outputs one after the other.
    """

    folder: Path
    tagger: Tagger
    graph: Any
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float64]


def checked_firmware(
    reference: str,
    backend: Backend | None,
    build: Path,
    budget: Budget,
    workers: int,
    progress: Progress,
) -> Checked:
    """The firmware of a model as it was built and checked; built now where anything has changed.

    backend: of the HLS project; `None` takes whichever was built. Raises `UserError` when bits
    differ.
    """
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    folder = build_folder(build, tagger.name)
    with locked(folder):
        restore(folder)
        manifest = _manifest(folder)
        backend = backend or manifest.get("backend", "Vitis")
        graph = graph_of(tagger, folder / PROJECT, backend)
        whole = all((folder / name).is_file() for name in (SIMULATED, INTERFACE, JSON))
        if not whole or manifest.get("key") != _key(tagger, graph, backend):
            report = build_firmware(reference, backend, build, budget, workers, progress)
            require_exact(report, build)
        with np.load(folder / SIMULATED) as simulated:
            return Checked(folder, tagger, graph, simulated["inputs"], simulated["outputs"])


def require_exact(report: Report, build: Path) -> None:
    """Raises `UserError` naming the first layer whose bits differ."""
    if difference := first_difference(report.bit_accuracy):
        raise UserError(f"{difference}; see {build / report.model}.failed/report.html")


def versions() -> dict[str, str]:
    """Versions of what the firmware depends on."""
    found = {p: version(p) for p in PACKAGES}
    return {"salt-hls": salt_hls.__version__, "tensorflow": tf.__version__, **found}


def _physics(
    tagger: Tagger,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int8] | None,
    csim_logits: NDArray[np.float64],
) -> Physics | None:
    classes = CLASSES
    model = single_output(tagger)
    if labels is None or model is None or model.output_shape[-1] != len(classes):
        return None
    logits: dict[str, NDArray[np.floating[Any]]] = {
        "quantized": model(inputs).numpy(),
        "csim": csim_logits,
    }
    if tagger.float_model is not None:
        logits["float"] = tagger.float_model(inputs).numpy()
    metrics = {name: evaluate(z, labels, classes) for name, z in logits.items()}

    def compared(value: Callable[[Metrics], float | None]) -> Scores:
        return Scores.model_validate({name: value(m) for name, m in metrics.items()})

    return Physics(
        dataset=SAMPLE.name,
        events=len(labels),
        accuracy=compared(lambda m: m.accuracy),
        auc=compared(lambda m: m.auc["mean"]),
        background_rejection={
            f"{name} at 80 %": compared(partial(_rejection, name)) for name in classes
        },
        roc=[
            _roc(name, model, scores(logits[model])[:, i], labels == i)
            for i, name in enumerate(classes)
            for model in ("csim", "float")
            if model in logits
        ],
    )


def _rejection(name: str, metrics: Metrics) -> float | None:
    return metrics.rejection[name]


def _roc(label: str, model: Any, score: NDArray[np.float64], truth: NDArray[np.bool_]) -> RocCurve:
    background, signal, _ = roc_curve(truth, score)
    points = np.linspace(0, 1, ROC_POINTS)
    return RocCurve(
        label=label,
        model=model,
        signal=[round(float(p), 4) for p in points],
        background=[round(float(b), 6) for b in np.interp(points, signal, background)],
    )


def _write_manifest(folder: Path, tagger: Tagger, backend: Backend, graph: Any) -> None:
    """Hashes of what went in and of every firmware file that came out."""
    manifest = {
        "model": tagger.name,
        "backend": backend,
        "key": _key(tagger, graph, backend),
        "versions": versions(),
        "compiler": compiler(),
        "inputs": {p.name: sha256(p) for p in (*tagger.files, SAMPLE)},
        "firmware": sums(folder / PROJECT),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a build; empty when there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _is_build(folder: Path) -> bool:
    """Whether `build_firmware` wrote the folder, or nothing but `diagnose` has."""
    return {"key", "firmware"} <= set(_manifest(folder)) or {p.name for p in folder.iterdir()} == {
        DIAGNOSIS
    }


def _known(new: Path, old: Path, report: Report) -> Report | None:
    """The report of the folder `old` if its firmware is that of `new`, checked on the same jets."""
    if _manifest(new)["firmware"] != _manifest(old).get("firmware"):
        return None
    try:
        known = Report.read(old / JSON)
    except UserError:  # of another version of salt-hls, or damaged
        return None
    return known if known.inputs_sha256 == report.inputs_sha256 else None


def _kept(folder: Path, same: bool) -> list[str]:
    """What stays of a folder that is replaced: what no build writes; all of the same firmware."""
    written = {PROJECT, CSIM, MANIFEST, JSON, PAGE, *(() if same else (RTL, EARLIER))}
    there = folder.iterdir() if folder.is_dir() else ()
    return [p.name for p in there if p.name not in written and not p.name.startswith(".")]


def _key(tagger: Tagger, graph: Any, backend: Backend) -> str:
    """Digest of all that firmware and its report depend on."""
    config = tagger.config.model_dump_json()
    files = [*tagger.files, SAMPLE, *FIRMWARE_CODE]
    return digest(graph_digest(graph), backend, config, files, versions(), compiler())


def compiler() -> str | None:
    """What g++ says it is; `None` where there is none."""
    program = shutil.which("g++")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.partition("\n")[0]


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path there."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): sha256(p) for p in files}


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
