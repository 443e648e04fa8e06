"""The emitted testbench, compiled with g++: passes on golden outputs, fails on one flipped bit."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salt_hls.errors import UserError
from salt_hls.hls.reader import read_graph
from salt_hls.hls.streaming import stream
from salt_hls.hls.testbench import GOLDEN, INPUTS, VERDICTS, write_testbench

EVENTS = 20


def written(
    folder: Path, io_type: str, particles_per_clock: int = 1
) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """A small written project with its inputs and golden outputs."""
    import hls4ml
    import tensorflow as tf
    from qkeras import QActivation, QDense

    import salt_hls

    salt_hls.register()
    quantizer = "quantized_bits(4,0,alpha=1)"
    x = given = tf.keras.Input((4, 3), name="particles")
    x = QDense(2, kernel_quantizer=quantizer, bias_quantizer=quantizer, name="dense")(x)
    x = QActivation("quantized_bits(6,2,alpha=1)", name="fixed")(x)
    model = tf.keras.Model(given, x)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(np.clip(rng.normal(size=variable.shape) * 0.5, -0.9, 0.9))
    with warnings.catch_warnings():  # QKeras' own
        warnings.simplefilter("ignore")
        config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
        config["LayerName"]["particles"]["Precision"]["result"] = "ap_fixed<8,4>"
        graph = hls4ml.converters.convert_from_keras_model(
            model, hls_config=config, backend="Vitis", io_type=io_type, output_dir=str(folder)
        )
        if io_type == "io_stream":
            stream(graph, particles_per_clock)
        graph.write()
    inputs = rng.integers(-128, 128, (EVENTS, 4, 3)) / 16.0
    *_, golden = read_graph(graph).run([inputs]).values()
    write_testbench(graph, folder, [inputs], [golden])
    return graph, [inputs], [golden]


def run(project: Path, program: Path) -> int:
    done = subprocess.run([program], cwd=project, capture_output=True, text=True, check=False)
    return done.returncode


@pytest.mark.parametrize(
    ("io_type", "particles_per_clock"),
    [
        ("io_parallel", 1),
        pytest.param("io_stream", 1, marks=pytest.mark.slow),
        ("io_stream", 3),
    ],
)
def test_a_flipped_bit_fails(io_type: str, particles_per_clock: int, tmp_path: Path) -> None:
    project = tmp_path / "project"
    written(project, io_type, particles_per_clock)
    include = project / "firmware/ap_types"
    for step, define in (("csim", []), ("cosim", ["-DRTL_SIM"])):
        program = tmp_path / step
        subprocess.run(
            ["g++", "-std=c++0x", "-w", *define, '-DWEIGHTS_DIR="firmware/weights"',
             f"-I{include}", "myproject_test.cpp", "firmware/myproject.cpp", "-o", program],
            cwd=project, check=True,
        )  # fmt: skip
        verdict = project / "tb_data" / VERDICTS[step]
        assert run(project, program) == 0
        assert verdict.read_text() == f"PASS 0 of {EVENTS * 8} values differ\n"

        good = (project / GOLDEN).read_text()
        words = good.split()
        words[37] = str(int(words[37]) ^ 1)
        (project / GOLDEN).write_text(" ".join(words))
        assert run(project, program) == 1
        assert verdict.read_text() == f"FAIL 1 of {EVENTS * 8} values differ\n"

        (project / GOLDEN).write_text(good[: len(good) // 2])
        assert run(project, program) == 1
        (project / GOLDEN).unlink()
        assert run(project, program) == 1
        (project / GOLDEN).write_text(good)
        assert run(project, program) == 0


def test_data_are_codes_and_checked(tmp_path: Path) -> None:
    graph, inputs, golden = written(tmp_path / "project", "io_parallel")
    codes = np.loadtxt(tmp_path / "project" / INPUTS, dtype=np.int64)
    assert np.array_equal(codes, (inputs[0].reshape(EVENTS, -1) * 16).astype(np.int64) & 255)
    with pytest.raises(UserError, match="values that are not"):
        write_testbench(graph, tmp_path / "project", [inputs[0] + 1 / 64], golden)
