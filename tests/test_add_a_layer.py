"""docs/add-a-layer.md: its blocks are layers that pass the conformance tests, and are built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from salt_hls.system.paths import CHECKOUT

DOCUMENT = CHECKOUT / "docs" / "add-a-layer.md"
BLOCK = re.compile(r"(?ms)^```(?:python|cpp)\n(.*?)^```")
LAYERS = ("scale_shift", "mean_context")
FILES = ("operation.py", "keras.py", "nnet_{}.h", "cases.py")

MODEL = """\
import salt_hls, tensorflow as tf
from qkeras import QDense

def dense(units, name):
    weights = "quantized_bits(6,0,alpha=1)"
    return QDense(units, kernel_quantizer=weights, bias_quantizer=weights, name=name)

def context(name):
    types = "ap_fixed<7,3,RND,SAT>", "ap_fixed<8,4,RND,SAT>"
    return salt_hls.MeanContext("quantized_bits(6,0,alpha=1)", *types, name=name)

tf.keras.utils.set_random_seed(0)
x = given = tf.keras.Input((5, 3))
x = salt_hls.FixedActivation("relu", "ap_ufixed<6,2,RND,SAT>")(dense(4, "embed")(x))
x = salt_hls.ScaleShift(1, "ap_fixed<8,4,RND,SAT>")(context("first")(x))
x = tf.keras.layers.GlobalMaxPooling1D()(context("second")(x))
tf.keras.Model(given, dense(2, "classes")(x)).save("mine.keras")
"""


def run(*command: str, cwd: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the document's two layers; no other file is touched."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("salt_hls", "hls_templates", "keras_models", "synth", "tests"):
        shutil.copytree(CHECKOUT / name, folder / name)
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    blocks = iter(BLOCK.findall(DOCUMENT.read_text()))
    for stem in LAYERS:
        layer = folder / "salt_hls" / "layers" / stem
        layer.mkdir()
        (layer / "__init__.py").write_text('"""A layer of the document."""\n')
        for name in (file.format(stem) for file in FILES):
            place = folder / "hls_templates" if name.endswith(".h") else layer
            (place / name).write_text(next(blocks))
    assert not list(blocks)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stem", LAYERS)
def test_a_layer_of_the_document_passes(stem: str, checkout: Path) -> None:
    tests = ("-m", "pytest", "-p", "no:cacheprovider")
    files = ("tests/test_conformance.py", "tests/test_firmware.py")
    said = run(*tests, *files, "-k", f"{stem} or cpp11", cwd=checkout, folder=checkout)
    assert "passed" in said and "skipped" not in said
    run("-m", "ruff", "check", f"salt_hls/layers/{stem}", cwd=checkout, folder=checkout)
    run("-m", "mypy", cwd=checkout, folder=checkout)


@pytest.mark.slow
@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream, particles_per_clock: 2"])
def test_a_model_of_them_is_built(io_type: str, checkout: Path, tmp_path: Path) -> None:
    run("-c", MODEL, cwd=tmp_path, folder=checkout)
    (tmp_path / "mine.yaml").write_text(
        f"inputs: {{type: 'ap_fixed<8,3>'}}\nfirmware: {{io_type: {io_type}, clock_ns: 5}}\n"
    )
    for arguments in (["rtl", "mine.keras"], ["report", "mine", "--json"]):
        command = f"import sys, salt_hls.cli.main as c; sys.argv[1:] = {arguments}; c.main()"
        said = run("-c", command, cwd=tmp_path, folder=checkout)
    compared = {(row["pair"], row["mismatches"]) for row in json.loads(said)["bit_accuracy"]}
    assert compared == {("golden/csim", 0), ("keras/csim", 0), ("csim/rtl", 0)}
