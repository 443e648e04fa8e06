"""The wheel, installed as anybody does, in an empty environment and away from the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from salt_hls.system.paths import CHECKOUT as ROOT

pytestmark = pytest.mark.slow

BASE_MB = 1835 - 250
"""Most that the base takes with TensorFlow 2.14: 250 MB less than one list of all packages did."""

PLAIN_HLS4ML = """
import hls4ml, numpy as np, salt_hls
import tensorflow as tf
from qkeras import QDense
from salt_hls.layers.dynamic_tanh.keras import DynamicTanh

assert "site-packages" in salt_hls.__file__, salt_hls.__file__
salt_hls.register()
bits = "quantized_bits(6,1,alpha=1)"
x = tf.keras.Input((5,), name="x")
y = QDense(4, kernel_quantizer=bits, bias_quantizer=bits, name="dense")(x)
y = DynamicTanh("ap_fixed<8,4,RND,SAT>", "ap_fixed<8,1,RND,SAT>", name="tanh")(y)
model = tf.keras.Model(x, y)
config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
config["LayerName"]["x"]["Precision"]["result"] = "ap_fixed<8,4>"
config["LayerName"]["dense"]["Precision"]["result"] = "ap_fixed<24,10>"
graph = hls4ml.converters.convert_from_keras_model(
    model, hls_config=config, backend="Vitis", output_dir="plain"
)
graph.compile()
jets = (np.random.default_rng(0).integers(-128, 128, (200, 5)) / 16).astype(np.float32)
expected = model.predict(jets, verbose=0)
assert np.unique(expected).size > 50
assert np.array_equal(graph.predict(jets).reshape(expected.shape), expected)
"""


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")
    user = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [str(part) for part in command], cwd=folder, env=user, capture_output=True, text=True
    )


def done(*command: object, folder: Path) -> str:
    result = run(*command, folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    done(*pip, "--wheel-dir", folder, ROOT, folder=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with nothing but the wheel and what it asks for."""
    place = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", place / "venv", folder=place)
    path = place / "venv" / "bin" / "python"
    done(path, "-m", "pip", "install", "--quiet", wheel, folder=place)
    return path


def test_it_carries_what_ships_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {Path(name) for name in archive.namelist()}
    for folder in ("hls_templates", "keras_models", "synth"):
        here = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file()}
        files = {Path("salt_hls", p) for p in here if not p.name.startswith(".")}
        assert files and files <= inside, folder
    assert {path.parts[0] for path in inside if "dist-info" not in path.parts[0]} == {"salt_hls"}


def test_plain_hls4ml_builds_and_computes_our_layers(python: Path, tmp_path: Path) -> None:
    done(python, "-c", PLAIN_HLS4ML, folder=tmp_path)


def test_firmware_and_a_budget(python: Path, tmp_path: Path) -> None:
    command = python.with_name("salt-hls")
    done(command, "firmware", "salt_p4", folder=tmp_path)
    report = json.loads((tmp_path / "build" / "salt_p4" / "report.json").read_text())
    assert sum(record["values"] for record in report["bit_accuracy"]) == 2 * 45_278_578
    assert all(record["mismatches"] == 0 for record in report["bit_accuracy"])
    figures = ROOT / "tests/report/samples/01-vivadohls2019.2-u250-gru-ftag"
    judge = (command, "report", "salt_p4", "--from", figures, "--budget", "cms_l1t_jet")
    assert "budget cms_l1t_jet" in done(*judge, folder=tmp_path)
    strict = run(*judge, "--strict", folder=tmp_path)
    assert strict.returncode == 1 and "fail" in strict.stdout and not strict.stderr


@pytest.mark.parametrize(
    ("verb", "extra"),
    [("rtl", "rtl"), ("synth", "rtl,jobs"), ("scaling", "rtl,plots,jobs"),
     ("data", "data,plots,jobs"), ("results", "plots,jobs"),
     *((verb, "plots") for verb in ("train", "quickstart", "diagnose"))],
)  # fmt: skip
def test_a_verb_of_an_extra_says_so(python: Path, verb: str, extra: str, tmp_path: Path) -> None:
    result = run(python.with_name("salt-hls"), verb, folder=tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and line.startswith(f"salt-hls: {verb}: needs ")
    assert line.endswith(f"; install with: pip install 'salt-hls[{extra}]'")
    assert not list(tmp_path.iterdir())


def test_the_base_is_small(python: Path) -> None:
    installed = (path.lstat() for path in python.parents[1].rglob("*"))
    size = sum(file.st_blocks * 512 for file in installed) / 2**20
    if sys.version_info < (3, 12):
        assert size < BASE_MB
    else:
        assert done(python, "-c", "import tf_keras", folder=python.parent) == ""
