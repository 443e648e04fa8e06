"""`salt-hls firmware`: what it writes, that it is bit-exact, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import hls4ml
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import without_progress
from typer.testing import CliRunner

import salt_hls
from salt_hls.check.checked import Checked
from salt_hls.check.compare import compare, first_difference
from salt_hls.cli import commands, console, main
from salt_hls.config import MODELS
from salt_hls.errors import UserError
from salt_hls.firmware import build as build_module
from salt_hls.firmware.build import build_firmware
from salt_hls.fixed import FixedType
from salt_hls.graph.graph import Graph, Node
from salt_hls.hls.convert import Converted, check_exact_in_float32
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.jets.dataset import JetSet
from salt_hls.layers.dynamic_tanh.operation import DynamicTanh
from salt_hls.layers.fixed_activation.operation import FixedActivation
from salt_hls.models.tagger import load_tagger
from salt_hls.report.budget import load_budget
from salt_hls.report.records import Report, SynthesisRecord
from salt_hls.rtl import build as rtl_build

Make = Callable[..., Path]
BUDGET = load_budget("template")

pytestmark = pytest.mark.usefixtures("few_jets")


def quiet(text: str, done: int, total: int) -> None:
    pass


def cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `salt-hls` as a user does."""
    return subprocess.run(
        [Path(sys.executable).with_name("salt-hls"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files but locks, which are empty and stay."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not (p.name.endswith(".lock") and p.stat().st_size == 0)
    }


GOOD = {"manifest.json": b'{"key": "", "firmware": {}}', "report.json": b"good"}


def good_build(folder: Path) -> dict[str, bytes]:
    """What passes for a build; returns its files by their paths in the folder of the builds."""
    folder.mkdir(parents=True)
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    return {f"{folder.name}/{name}": content for name, content in GOOD.items()}


def test_both_backends_are_exact_and_reproducible(small_model: Make, tmp_path: Path) -> None:
    path = small_model()
    written = []
    for backend, folder in (("Vitis", "a"), ("Vitis", "b"), ("Vivado", "c")):
        report = build_firmware(str(path), backend, tmp_path / folder, BUDGET, 1, quiet)  # type: ignore[arg-type]
        assert first_difference(report.bit_accuracy) is None
        assert {r.pair for r in report.bit_accuracy} == {"keras/csim", "golden/csim"}
        assert all(r.events == 300 + 157 for r in report.bit_accuracy)
        layers = {r.layer for r in report.bit_accuracy}
        assert {"embed", "block1_attention", "block1_tanh1", "logits"} <= layers
        assert report.backend == backend and report.physics is not None
        written.append(files(tmp_path / folder / "small" / "firmware"))
    assert written[0] == written[1]
    assert written[0] != written[2]
    for content in written:
        text = b"".join(content.values()).decode(errors="ignore")
        assert str(tmp_path) not in text, "an absolute path makes firmware irreproducible"
        assert "#pragma HLS PIPELINE II=1" in content["firmware/small.cpp"].decode()
    folder = tmp_path / "a" / "small"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["firmware"]) == set(written[0])
    assert json.loads((folder / "report.json").read_text())["schema"] == 3
    assert "<html" in (folder / "report.html").read_text()


@pytest.mark.parametrize(("signed", "most"), [(False, 24), (True, 25)])
def test_what_float32_cannot_hold_is_refused(signed: bool, most: int) -> None:
    """24 bits besides the sign, and not one more."""

    class Summing(FixedActivation):
        def members(self, inputs: Any) -> dict[str, int | bool | FixedType]:
            return {"rows": 3, "sum_t": self.output_type}

    def graph(width: int) -> Graph:
        operation = Summing("linear", FixedType(width, 8, signed))
        node = Node("attention", "Summing", operation, (), (), True, "attention")
        return Graph((node,), (), (), "io_parallel")

    check_exact_in_float32(graph(most))
    bits = most + 1 - signed
    with pytest.raises(UserError, match=f"layer attention: sum_t .* needs {bits} bits, more than"):
        check_exact_in_float32(graph(most + 1))


def test_plain_hls4ml_converts_after_register(small_model: Make, tmp_path: Path) -> None:
    """The extension alone, as any hls4ml user would use it; weights off the grid too."""
    salt_hls.register()
    salt_hls.register()
    tagger = load_tagger(str(small_model()))
    model = tagger.quantized
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.01, weight.shape))
    config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
    container = tagger.config.inputs.container
    config["LayerName"]["particles"]["Precision"]["result"] = str(container)
    graph = hls4ml.converters.convert_from_keras_model(
        model, hls_config=config, backend="Vitis", output_dir=str(tmp_path / "plain")
    )
    graph.compile()
    x = adversarial_inputs(6, tuple(f.type for f in tagger.config.inputs.features))
    assert np.array_equal(graph.predict(x), model(x).numpy())


@pytest.mark.parametrize("broken", ["keras", "golden", "csim"])
def test_a_changed_bit_is_named(
    broken: str, small_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One table entry, one LSB, in one of the three: the layer is named, the good build stays."""
    path = small_model()
    build_firmware(str(path), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
    before = files(tmp_path / "build" / "small")
    if broken == "keras":
        load = build_module.load_tagger

        def load_changed(reference: str) -> build_module.Tagger:
            tagger = load(reference)
            layer = tagger.quantized.get_layer("block1_tanh2")
            convert = build_module.write_and_compile

            def then_change(*args: object) -> build_module.Project:
                project = convert(*args)  # type: ignore[arg-type]
                layer.beta.assign(layer.beta + 0.02)
                return project

            monkeypatch.setattr(build_module, "write_and_compile", then_change)
            return tagger

        monkeypatch.setattr(build_module, "load_tagger", load_changed)
    elif broken == "golden":
        call = DynamicTanh.__call__
        monkeypatch.setattr(
            DynamicTanh,
            "__call__",
            lambda self, x, *rest: call(self, x, *rest) + self.output_type.lsb * (x > 1),
        )
    else:
        write = build_module.write_project

        def write_changed(made: Converted) -> Path:
            folder = write(made)
            (table,) = sorted((folder / "firmware" / "weights").glob("table*.h"))[-1:]
            text = table.read_text()
            table.write_text(text.replace("0.9921875", "0.9843750"))
            return folder

        monkeypatch.setattr(build_module, "write_project", write_changed)
    report = build_firmware(str(path), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
    difference = first_difference(report.bit_accuracy)
    assert difference is not None and "block1_tanh" in difference and "LSB" in difference
    pairs = {r.pair for r in report.bit_accuracy if r.mismatches}
    assert ("keras/csim" in pairs) == (broken != "golden")
    assert ("golden/csim" in pairs) == (broken != "keras")
    assert files(tmp_path / "build" / "small") == before
    assert (tmp_path / "build" / "small.failed" / "report.html").exists()


def test_compare_counts_and_locates() -> None:
    fixed_type = FixedType.parse("ap_fixed<8,3>")
    expected = np.zeros((4, 2, 3))
    got = expected.copy()
    got[2, 1, 0] = -3 * fixed_type.lsb
    record = compare("golden/csim", "x", expected, got, fixed_type, first_event=100)
    assert (record.mismatches, record.values, record.max_lsb) == (1, 24, 3)
    assert record.examples[0].event == 102 and record.examples[0].index == [1, 0]


def test_adversarial_inputs_are_on_the_grid_and_extreme() -> None:
    types = (FixedType.parse("ap_ufixed<5,2>"), FixedType.parse("ap_fixed<6,3>"))
    x = adversarial_inputs(7, types)
    for i, fixed_type in enumerate(types):
        assert fixed_type.contains(x[..., i])
        assert {x[..., i].min(), x[..., i].max()} == {fixed_type.min, fixed_type.max}
    assert np.all(x[0] == 0) and np.any(np.all(x == x[:, :1], axis=(1, 2)))


# ---- what users get wrong: one line, exit status 1, nothing half-written, the good build stays


def fails_with(result: subprocess.CompletedProcess[str], says: str, status: int = 1) -> None:
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    lines = without_progress(result.stderr)
    assert len(lines) == 1, result.stderr
    assert says in lines[0]


@pytest.mark.parametrize("name", ["nonsense", "../../x", "", "salt_p4;rm", "/nowhere/x.yaml"])
def test_unknown_model(name: str, tmp_path: Path) -> None:
    fails_with(cli("firmware", name, "--build", tmp_path / "build"), f"model {name!r}")
    assert not (tmp_path / "build").exists()


def test_wrong_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 1))
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    assert "needs Python 3.10 to 3.13, found 3.14" in capsys.readouterr().err


def test_usage_is_status_2() -> None:
    for arguments in (("firmwear",), ("firmware", "--backend", "quartus"), ("firmware", "a", "b")):
        result = cli(*arguments)
        fails_with(result, "--help`", status=2)


def set_weight(path: Path, value: float) -> None:
    with h5py.File(path.with_name(f"{path.stem}.weights.h5"), "r+") as file:
        found: list[h5py.Dataset] = []
        file.visititems(lambda _, o: found.append(o) if isinstance(o, h5py.Dataset) else None)
        data = found[0][...]
        data.flat[0] = value
        found[0][...] = data


def broken_inputs(kind: str, make: Make, tmp_path: Path) -> tuple[Path, str]:
    if kind == "unknown key":
        return make(weights=False, colour="blue"), "unknown key 'colour'"
    if kind == "missing key":
        path = make()
        content = yaml.safe_load(path.read_text())
        del content["inputs"]
        path.write_text(yaml.safe_dump(content))
        return path, "the key 'inputs' is missing"
    if kind == "p > N":
        path = make()
        path.write_text(path.read_text().replace("partitions: 2", "partitions: 9"))
        return path, "partitions: must be at most particles (6)"
    if kind == "weights of another shape":
        path = make()
        path.write_text(path.read_text().replace("particles: 6", "particles: 9"))
        return path, "weights do not fit"
    if kind == "weights file damaged":
        path = make()
        path.with_name("small.weights.h5").write_bytes(b"no")
        return path, "not an HDF5 file"
    if kind == "no weights":
        return make(weights=False), "no trained weights"
    if kind == "NaN weight":
        path = make()
        set_weight(path, float("nan"))
        return path, "NaN"
    if kind == "sums beyond float32":
        types = yaml.safe_load(make().read_text())["types"]
        types.update(feed_forward="ap_ufixed<20,4>")
        return make(types=types), "24"
    if kind == "softmax without room":
        types = yaml.safe_load(make().read_text())["types"]
        types["attention"]["sum"] = "ap_ufixed<8,1>"
        path = make(weights=False, types=types)
        shutil.copy(make("other").with_name("other.weights.h5"), path.with_name("small.weights.h5"))
        return path, "type sum"
    if kind == "Keras layer we cannot build":
        x = tf.keras.Input((6, 3))
        y = tf.keras.layers.Conv1D(4, 3)(x)
        tf.keras.Model(x, y).save(tmp_path / "conv.keras")
        return tmp_path / "conv.keras", "Conv1D cannot be built"
    path = tmp_path / "broken.keras"
    path.write_bytes(b"no model")
    return path, "not a Keras model"


@pytest.mark.parametrize(
    "kind",
    [
        "unknown key",
        "missing key",
        "p > N",
        "weights of another shape",
        "weights file damaged",
        "no weights",
        "NaN weight",
        "sums beyond float32",
        "softmax without room",
        "Keras layer we cannot build",
        "no Keras model",
    ],
)
def test_bad_models(kind: str, small_model: Make, tmp_path: Path) -> None:
    path, says = broken_inputs(kind, small_model, tmp_path)
    good = good_build(tmp_path / "build" / path.stem)
    with pytest.raises(UserError) as error:
        build_firmware(str(path), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert files(tmp_path / "build") == good


@pytest.mark.slow
def test_saved_keras_model(small_model: Make, tmp_path: Path) -> None:
    tagger = load_tagger(str(small_model()))
    for suffix in ("keras", "h5"):
        path = tmp_path / f"mine_{suffix}.{suffix}"
        tagger.quantized.save(path)
        report = build_firmware(str(path), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
        assert first_difference(report.bit_accuracy) is None
        assert report.n_particles == 6


@pytest.mark.parametrize(
    "arguments, fails, says",
    [
        ((), None, "alkaid"),
        (("--no-estimate",), None, "no figures to judge"),
        ((), UserError("layer x: too wide"), "no estimate: layer x: too wide"),
        ((), TimeoutError, "no estimate: the estimate of the hardware: not done within 0.2 s"),
    ],
)
def test_the_estimate_at_the_end(
    arguments: tuple[str, ...],
    fails: Any,
    says: str,
    small_model: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The firmware is there whatever becomes of it."""
    report = Report(model="small")

    def build(*_: Any) -> Report:
        report.write(tmp_path / "small/report.json")
        return report

    def project_of(*_: Any) -> Any:
        if fails is TimeoutError:
            time.sleep(5)
        if fails is not None:
            raise fails
        record = SynthesisRecord(source="alkaid", stage="estimate", tool="alkaid", lut=5)
        return SimpleNamespace(key="", estimate=lambda: record)

    made = Checked(tmp_path / "small", None, None, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(build_module, "build_firmware", build)
    monkeypatch.setattr(build_module, "checked_firmware", lambda *_: made)
    monkeypatch.setattr(rtl_build, "write_rtl", project_of)
    if fails is TimeoutError:
        monkeypatch.setattr(commands, "ESTIMATE_S", 0.2)
    call = ["firmware", str(small_model()), *arguments, "--build", str(tmp_path)]
    done = CliRunner().invoke(commands.app, call, catch_exceptions=False)
    assert done.exit_code == 0 and says in " ".join(done.output.split())
    assert ("alkaid" in done.output) == (says == "alkaid")


@pytest.mark.slow
def test_no_compiler(small_model: Make, tmp_path: Path) -> None:
    result = cli("firmware", small_model(), "--build", tmp_path / "b", PATH="/nonexistent")
    fails_with(result, "g++")
    assert not files(tmp_path / "b")


@pytest.mark.slow
def test_a_full_disk_is_one_line(small_model: Make, tmp_path: Path, full_disk: Any) -> None:
    """Whatever writes first: a training's state, or hls4ml, which knows nothing of our errors."""
    phase = {"batch": 100, "epochs": 1, "patience": 1, "learning_rate": 0.01}
    phases = {"float_phases": [phase], "quantized_phases": [phase]}
    path, build = small_model(training=phases), tmp_path / "build"
    for split in ("train", "validation", "test"):
        JetSet.read(MODELS / "sample.h5", slice(0, 100)).write(tmp_path / f"data/{split}.h5")
    with full_disk(30_000):
        trained = cli("train", path, "--data", tmp_path / "data", "--build", build)
        built = cli("firmware", path, "--build", build)
    fails_with(trained, "float/state-1-0.npz: cannot be written (File too large)")
    fails_with(built, f"{build / 'small'}: cannot be written (File too large); free space")
    assert not files(build)


@pytest.mark.slow
def test_unwritable_build_folder(small_model: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("firmware", small_model(), "--build", tmp_path / "file" / "build")
    fails_with(result, f"{tmp_path / 'file' / 'build'}: cannot be written (Not a directory)")
    result = cli("diagnose", small_model(), "--build", tmp_path / "file")
    fails_with(result, "file")


def test_leftovers_of_a_killed_run_are_removed(small_model: Make, tmp_path: Path) -> None:
    stale = tmp_path / "build" / ".small.99999999.tmp"
    stale.mkdir(parents=True)
    (stale / "half").write_text("")
    other = tmp_path / "build" / ".small.seed2.0000abcd.tmp"  # of a model called small.seed2
    other.mkdir()
    build_firmware(str(small_model()), "Vitis", tmp_path / "build", BUDGET, 1, quiet)
    left = {p.name for p in (tmp_path / "build").iterdir() if not p.name.endswith(".lock")}
    assert left == {"small", other.name}


def test_a_killed_compiler_leaves_its_log_and_the_good_build(
    small_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, build = tmp_path / "bin/g++", tmp_path / "build"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho compiling; kill -9 $$\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
    log = build / "small.compile.log"
    with pytest.raises(UserError, match=f"g\\+\\+ was killed .signal 9.*; see {log}"):
        build_firmware(str(small_model()), "Vitis", build, BUDGET, 1, quiet)
    assert files(build) == {"small.compile.log": b"compiling\n"}


@pytest.mark.parametrize(
    "kill", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupted(kill: signal.Signals, small_model: Make, tmp_path: Path) -> None:
    good = good_build(tmp_path / "build" / "small")
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("salt-hls"),
            "firmware",
            small_model(),
            "--build",
            tmp_path / "build",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "build").glob(".small.*.tmp/firmware")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(kill)
    _, stderr = process.communicate(timeout=60)
    fails_with(subprocess.CompletedProcess([], process.returncode, "", stderr), "interrupted")
    assert files(tmp_path / "build") == good


def test_an_interrupt_dropped_by_other_code_stops_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console.Interrupted, "received", False)
    with pytest.raises(console.Interrupted), console.progress_bar() as update:
        update("convert", 0, 1)
        with suppress(BaseException):  # as C code does that clears errors
            console.interrupted(signal.SIGTERM, None)
        update("compile", 0, 1)


@pytest.mark.parametrize("header", sorted((MODELS.parent / "hls_templates").glob("*.h")))
def test_headers_are_cpp11(header: Path, tmp_path: Path) -> None:
    source = tmp_path / "main.cpp"
    source.write_text(f'#include "ap_fixed.h"\n#include "{header}"\nint main() {{}}\n')
    theirs = Path(hls4ml.__file__).parent / "templates" / "vivado"
    subprocess.run(
        ["g++", "-std=c++0x", "-pedantic-errors", "-Wall", "-Wno-unknown-pragmas", "-Werror",
         "-fsyntax-only", f"-isystem{theirs / 'ap_types'}", f"-isystem{theirs / 'nnet_utils'}",
         source],
        check=True,
    )  # fmt: skip
    text = header.read_text()
    assert (
        text.startswith("//") and "static_assert" in text and "#pragma HLS PIPELINE II = 1" in text
    )
