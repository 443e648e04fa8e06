"""What `salt_hls` exports: inputs, emulator, firmware on one's own arrays; the documents' code."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import save_random_weights
from numpy.typing import NDArray

import salt_hls
from salt_hls import Firmware, Inputs
from salt_hls.config import MODELS
from salt_hls.errors import UserError
from salt_hls.hls import csim as csim_module
from salt_hls.jets.adversarial import adversarial_inputs
from salt_hls.jets.dataset import JetSet
from salt_hls.jets.ordering import prepare
from salt_hls.layers import KERAS_CLASSES
from salt_hls.models import tagger as tagger_module
from salt_hls.system.paths import CHECKOUT

SMALL = {"particles": 4, "partitions": 2, "width": 4, "heads": 2, "feed_forward": 4}
GRID = yaml.safe_load((MODELS / "salt_p4.yaml").read_text())["inputs"]


@pytest.fixture(scope="module")
def sample() -> JetSet:
    return JetSet.read(MODELS / "sample.h5", slice(0, 300))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, sample: JetSet) -> Iterator[Path]:
    """The YAML of a small model of random weights; 300 jets do as the sample."""
    folder = tmp_path_factory.mktemp("small")
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**content, **SMALL}))
    save_random_weights(path, 1)
    sample.write(folder / "sample.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tagger_module, "SAMPLE", folder / "sample.h5")
        patch.setattr(csim_module, "COMPILE_FLAGS", ("-std=c++11", "-fPIC", "-shared", "-w"))
        yield path


@pytest.fixture(scope="module")
def firmware(small: Path) -> Firmware:
    return Firmware.build(small, small.parent / "build", rtl=True)


def some_jets(count: int = 50, particles: int = 9) -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    pt = 1 + rng.exponential(20, (count, particles))
    return np.stack([pt, *rng.normal(0, 0.1, (2, count, particles))], axis=-1)


# ---- names


def test_every_name_is_there_and_typed() -> None:
    tree = ast.parse((CHECKOUT / "salt_hls/__init__.py").read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n))
    typed = {name.name for n in block.body if isinstance(n, ast.ImportFrom) for name in n.names}
    assert typed == {*salt_hls.__all__} - {"register", "stream"}
    for name in {*salt_hls.__all__, *KERAS_CLASSES}:  # a new layer's class need not be listed
        assert getattr(salt_hls, name).__doc__, name
        assert name in dir(salt_hls)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = salt_hls.Nothing
    assert salt_hls.DynamicTanh.__name__ == "DynamicTanh"


def test_what_needs_no_tensorflow_does_not_load_it(firmware: Firmware) -> None:
    program = (
        "import sys, numpy as np, salt_hls; salt_hls.UserError, dir(salt_hls)\n"
        "print([m for m in ('numpy', 'tensorflow', 'hls4ml', 'pydantic') if m in sys.modules])\n"
        f"firmware = salt_hls.Firmware.load({str(firmware.folder)!r})\n"
        "print(firmware.csim(firmware.inputs(np.ones((2, 3, 3)))).shape)\n"
        "print([m for m in ('tensorflow', 'hls4ml') if m in sys.modules])\n"
    )
    result = run_program(program, firmware.folder)
    assert result.stdout.splitlines() == ["['numpy']", "(2, 5)", "[]"]


def run_program(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(program)
    result = subprocess.run(
        [sys.executable, path.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


# ---- inputs


def test_inputs_are_those_of_the_data_path(sample: JetSet) -> None:
    for model in ("salt_p4", "salt_p4_n16", "salt_p4_n150"):
        config = salt_hls.ModelConfig.load(model)
        expected = prepare(sample.constituents, config.particles, config.inputs)
        inputs = Inputs(model)
        assert inputs.particles == config.particles
        for given in (sample.constituents, sample.constituents.astype(np.float64)):
            got = inputs(given)
            assert got.dtype == np.float32 and np.array_equal(got, expected)
        assert np.array_equal(Inputs(MODELS / f"{model}.yaml")(sample.constituents), expected)
    tagger = tagger_module.load_tagger("salt_p4")
    whole, _ = tagger_module.sample_inputs(tagger)
    assert np.array_equal(Inputs("salt_p4")(sample.constituents), whole[: len(sample)])


def test_features_by_hand() -> None:
    """log2(1 + pT) / 2 in steps of 1/32, ties half up, saturated; 8 times the angles likewise."""
    inputs = Inputs({**GRID, "order": "given"}, particles=3)
    jets = [[[3.0, 1 / 512, -1 / 512], [1e30, 2.0, -2.0]]]
    x = inputs(np.array(jets))
    assert x[0].tolist() == [
        [1.0, 0.03125, 0.0], [255 / 32, 255 / 32, -8.0], [0.0, 0.0, 0.0]
    ]  # fmt: skip
    assert inputs.precision == "ap_fixed<9,4>"
    assert [str(t) for t in inputs.types] == [
        "ap_ufixed<8,3,AP_RND,AP_SAT>", *["ap_fixed<9,4,AP_RND,AP_SAT>"] * 2
    ]  # fmt: skip


def test_any_number_of_particles_in_any_arrangement() -> None:
    inputs = Inputs("salt_p4", particles=4)
    jets = some_jets(particles=9)
    hardest = np.take_along_axis(jets, np.argsort(-jets[..., :1], axis=1)[:, :4], axis=1)
    expected = inputs(jets)
    assert expected.shape == (50, 4, 3) and np.array_equal(inputs(hardest), expected)
    padded = np.concatenate([np.zeros((50, 2, 3)), jets, np.zeros((50, 2, 3))], axis=1)
    assert np.array_equal(inputs(padded), expected)
    fewer = inputs(jets[:, :2])
    assert not fewer[:, 2:].any() and fewer[:, :2, 0].all()
    # Descending kT, of those that are there.
    kt = hardest[..., 0] * np.hypot(hardest[..., 1], hardest[..., 2])
    order = np.take_along_axis(hardest, np.argsort(-kt, axis=1)[..., None], axis=1)
    given = Inputs({**GRID, "order": "given"}, particles=4)
    assert np.array_equal(given(order), expected)
    # None at all.
    for shape in ((3, 9, 3), (3, 0, 3)):
        assert inputs(np.zeros(shape)).tolist() == np.zeros((3, 4, 3)).tolist()
    assert inputs(np.zeros((0, 9, 3))).shape == (0, 4, 3)


def test_missing_particles() -> None:
    inputs = Inputs("salt_p4", particles=4)
    jets = some_jets()
    there = np.random.default_rng(0).random(jets.shape[:2]) < 0.5
    there[0] = False
    zeros = np.where(there[..., None], jets, 0)
    expected = inputs(zeros)
    assert not expected[0].any()
    anything = np.where(there[..., None], jets, [np.nan, np.inf, -1e30])
    assert np.array_equal(inputs(anything, there), expected)
    assert np.array_equal(inputs(anything, mask=there), expected)
    masked = np.ma.masked_array(anything, np.repeat(~there[..., None], 3, axis=2))
    assert np.array_equal(inputs(masked), expected)
    only_pt = zeros.copy()
    only_pt[..., 1:] = jets[..., 1:]  # angles of particles without pT do not count
    assert np.array_equal(inputs(only_pt), expected)
    assert not np.array_equal(inputs(jets), expected)


def test_ties_and_a_wrapped_angle() -> None:
    inputs = Inputs("salt_p4", particles=3)
    jet = np.array([[[10, 0.1, 0.0], [10, 0.0, 0.1], [10, -0.1, 0.0], [5, 0.2, 0]]])
    assert inputs(jet)[0, :, 1:].tolist() == [[0.8125, 0.0], [0.0, 0.8125], [-0.8125, 0.0]]
    jet = np.array([[[30, 0.1, 0.0], [20, 0.0, 0.1], [10, -0.1, 0.0]]])
    expected = inputs(jet)
    jet[..., 2] += [0, 2 * np.pi, -2 * np.pi]
    assert np.array_equal(inputs(jet), expected)
    # The hardest are taken before the order, and of equal kT the harder is first.
    jet = np.array([[[1, 0.4, 0], [4, 0.1, 0], [100, 0, 0], [50, 0, 0.0]]])
    assert inputs(jet)[0, :, 1].tolist() == [0.8125, 0.0, 0.0]
    assert inputs(jet)[0, 1, 0] > inputs(jet)[0, 2, 0]


def test_values_of_one_type(tmp_path: Path) -> None:
    inputs = Inputs({"type": "ap_fixed<6,2,RND,SAT>"})
    assert inputs.particles is None and inputs.precision == "ap_fixed<6,2>"
    assert inputs([[0.03125, -9.0, 9.0]]).tolist() == [[0.0625, -2.0, 1.9375]]
    with pytest.raises(UserError, match="^Inputs: the values hold NaN"):
        inputs([[np.nan]])
    with pytest.raises(UserError, match="^Inputs: mask: "):
        inputs([[0.0]], mask=[[True]])
    (tmp_path / "mine.h5").touch()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"inputs": GRID}))
    assert Inputs(tmp_path / "mine.h5", particles=2)(some_jets()).shape == (50, 2, 3)


MISTAKES: dict[str, tuple[Any, str]] = {
    "one jet": (np.ones((9, 3)), r"must be \(jets, particles, 3\) .*got \(9, 3\); one jet is x"),
    "two columns": (np.ones((5, 9, 2)), r"with pt, deta, dphi, got \(5, 9, 2\)"),
    "one particle": (np.ones(3), r"got \(3,\)$"),
    "ragged": ([[[1.0, 0, 0]], [[1.0, 0, 0], [1.0, 0, 0]]], "padded with zeros"),
    "text": ([[["a", "b", "c"]]], "one array of numbers, got <U1"),
    "complex": (np.ones((1, 1, 3), complex), "one array of numbers, got complex128"),
    "NaN": ([[[5, np.nan, 0]]], "jet 0, particle 0: NaN or infinity in deta, got nan"),
    "infinity": ([[[5, 0, 0], [np.inf, 0, 0]]], "jet 0, particle 1: NaN or infinity in pt"),
    "beyond float32": ([[[1e39, 0, 0]]], "NaN or infinity in pt"),
    "negative": ([[[5, 0, 0]], [[-5, 0, 0]]], "jet 1, particle 0: negative pT in pt, got -5"),
    "MeV": ([[[50000, 0, 0]] * 9], "pT must be in GeV, but a typical jet has 4.5e.05; divide MeV"),
    "degrees": ([[[50, 0, 170]]], "dphi reaches 170; it must be in radians"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_particles(mistake: str) -> None:
    given, says = MISTAKES[mistake]
    with pytest.raises(UserError, match=says) as caught:
        Inputs("salt_p4", particles=4)(given)
    assert str(caught.value).startswith("Inputs: ") and "\n" not in str(caught.value)


def test_mistakes_in_masks_and_grids() -> None:
    inputs, jets = Inputs("salt_p4", particles=4), some_jets(2)
    for mask in (np.ones((2, 8), bool), np.ones((2, 9)), np.ones((2, 9, 3), bool)):
        with pytest.raises(UserError, match=r"mask must be bool \(jets, particles\) = \(2, 9\)"):
            inputs(jets, mask)
    with pytest.warns(UserWarning, match="pT must be in GeV, but a typical jet has .*relative"):
        inputs(jets / [100, 1, 1])
    with pytest.warns(UserWarning, match="the middle of a typical jet is 2.* away"):
        inputs(jets + [0, 2.1, 0])
    logs = {**GRID, "order": "given"}
    with pytest.raises(UserError, match=r"jet 0, particle 0: log2\(1 \+ x\) of a negative x in pt"):
        Inputs(logs, particles=1)([[[-0.5, 0, 0]]])
    for grid, says in (
        ({k: v for k, v in GRID.items() if k != "pt"}, "'pt' is missing"),
        ({**GRID, "eta": 1}, "unknown key 'eta'"),
        ({**GRID, "order": "kT"}, "order: .*got 'kT'"),
        ({"type": "fixed8"}, "type: .*expected ap_fixed"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            Inputs(grid, particles=4)
        assert "\n" not in str(caught.value)
    for wrong in (0, -1, 4097, True, 2.5, "4"):
        with pytest.raises(UserError, match="whole number from 1 to 4096, got"):
            Inputs(GRID, particles=wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Give particles=N"):
        Inputs(GRID)
    with pytest.raises(UserError, match="not one of the shipped models"):
        Inputs("salt_p5")


# ---- models


def test_models_from_names_and_yamls(small: Path) -> None:
    config = salt_hls.ModelConfig.load("salt_p4", particles=8, partitions=2)
    assert (config.particles, config.chunk, config.width) == (8, 4, 16)
    for changes, says in (({"particle": 8}, "unknown key 'particle'"), ({"heads": 3}, "width")):
        with pytest.raises(UserError, match=f"salt_p4.yaml: .*{says}"):
            salt_hls.ModelConfig.load("salt_p4", **changes)
    with pytest.raises(UserError, match="a saved Keras model has no configuration"):
        salt_hls.ModelConfig.load(str(shutil.copy(small, small.with_suffix(".keras"))))
    with pytest.raises(UserError, match=r"ModelConfig.load\(...\), got str"):
        salt_hls.build_model("salt_p4", quantized=True)  # type: ignore[arg-type]
    model = salt_hls.build_model(salt_hls.ModelConfig.load(small), quantized=True)
    salt_hls.load_weights(model, str(small.with_name("small.weights.h5")))
    x = adversarial_inputs(4, Inputs(small).types)
    assert np.array_equal(model(x), salt_hls.load_model(small)(x))


def test_what_a_published_model_lacks() -> None:
    with pytest.raises(UserError, match="^import_sal_t4hep: arch is missing; given are N$"):
        salt_hls.import_sal_t4hep({}, {"N": 4})


# ---- firmware and emulator


def test_every_execution_gives_the_bits_of_keras(small: Path, firmware: Firmware) -> None:
    x = np.concatenate([firmware.inputs(some_jets()), adversarial_inputs(4, firmware.inputs.types)])
    expected = salt_hls.load_model(small)(x).numpy()
    assert len(np.unique(expected, axis=0)) > 100
    emulate = salt_hls.emulator(small)
    loaded = Firmware.load(str(firmware.folder))
    for run in (emulate, firmware.csim, loaded.csim, firmware.rtl, loaded.rtl):
        assert np.array_equal(run(x), expected)
        assert np.array_equal(run(x.astype(np.float64)[7:8]), expected[7:8])
        assert np.array_equal(
            run(np.repeat(x[:1], 40, axis=0)), np.repeat(expected[:1], 40, axis=0)
        )
        assert run(x[:0]).shape == (0, 5)
    layers, traced = emulate.layers(x), loaded.layers(x)
    assert {*traced} < {*layers} and len(traced) > 20
    for name, values in traced.items():
        assert np.array_equal(values, layers[name]), name
    assert np.array_equal(traced["logits"], expected)
    assert loaded.layers(x[:0])["pool"].shape == (0, 4)
    done: list[int] = []
    firmware.csim(x, progress=done.append)
    assert sum(done) == len(x)


def test_what_is_not_on_the_grid_is_refused(small: Path, firmware: Firmware) -> None:
    x = firmware.inputs(some_jets(5))
    off = x.astype(np.float64)
    off[3, 2, 1] += 1e-9
    beyond, negative = x.copy(), x.copy()
    beyond[1, 0, 2] = 8.0
    negative[0, 1, 0] = -0.03125  # on the grid of hls4ml's one type, but pT has no sign
    for run in (firmware.csim, firmware.layers, firmware.rtl, salt_hls.emulator(small)):
        for wrong, says in (
            (off, r"1 of 60 values are not on the input grid, the first .* at \[3, 2, 1\], which "
                  r"must be ap_fixed<9,4,AP_RND,AP_SAT>; salt_hls.Inputs"),
            (beyond, r"the first 8 at \[1, 0, 2\]"),
            (negative, r"the first -0.03125 at \[0, 1, 0\], which must be ap_ufixed<8,3"),
            (np.where(off == 0, off, np.nan), "the first nan"),
            (some_jets(5, 4), "60 of 60 values"),
            (x[0], r"needs an array \(events, 4, 3\), got \(4, 3\); one event is x\[None\]"),
            (x[:, :3], r"got \(5, 3, 3\)$"),
            ([["a"]], "needs an array of numbers, got <U1"),
        ):  # fmt: skip
            with pytest.raises(UserError, match=says) as caught:
                run(wrong)  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)


def test_firmware_of_a_keras_model_object(small: Path, tmp_path: Path) -> None:
    """With two outputs, of which one is over particles."""
    trained = salt_hls.load_model(small)
    outputs = [trained.get_layer(name).output for name in ("embed_relu", "logits")]
    model = tf.keras.Model(trained.inputs, outputs, name="mine")
    inputs = Inputs(small)
    firmware = Firmware.build(model, tmp_path / "build", inputs=inputs)
    assert firmware.folder == tmp_path / "build" / "mine"
    assert [p.name for p in (tmp_path / "build").iterdir() if p.name[0] != "."] == ["mine"]
    x = inputs(some_jets())
    embedded, logits = (y.numpy() for y in model(x))
    expected = np.concatenate([embedded.reshape(len(x), -1), logits], axis=1)
    assert np.array_equal(firmware.csim(x), expected)
    assert np.array_equal(firmware.inputs(some_jets()), x)
    assert np.array_equal(salt_hls.emulator(model, inputs)(x), expected)
    for given, says in (
        ({}, "inputs: a Keras model does not say what grid"),
        ({"inputs": Inputs("salt_p4")}, r"inputs: are \(32, 3\), the model's \(4, 3\)"),
    ):
        for make in (partial(Firmware.build, folder=tmp_path / "build"), salt_hls.emulator):
            with pytest.raises(UserError, match=says):
                make(model, **given)
            with pytest.raises(UserError, match="inputs: only for a Keras model"):
                make(small, inputs=inputs)
            with pytest.raises(UserError, match="model: must be a name, .* got int"):
                make(5, inputs=inputs)
    with pytest.raises(UserError, match=r"rtl: no RTL; .*rtl=True"):
        firmware.rtl(x)


@pytest.mark.slow
def test_streaming_rtl(small: Path, tmp_path: Path) -> None:
    """With lanes that do not divide the particles."""
    streaming = {"io_type": "io_stream", "particles_per_clock": 3}
    path = tmp_path / "streaming.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(small.read_text()), "firmware": streaming}))
    shutil.copy(small.with_name("small.weights.h5"), tmp_path / "streaming.weights.h5")
    firmware = Firmware.build(path, tmp_path / "build", rtl=True)
    x = firmware.inputs(some_jets())
    expected = salt_hls.emulator(path)(x)
    assert len(np.unique(expected, axis=0)) > 20
    for run in (firmware.csim, firmware.rtl):
        assert np.array_equal(run(x), expected) and np.array_equal(run(x[7:8]), expected[7:8])
        assert run(x[:0]).shape == (0, 5)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "csim").mkdir()
    for content in (None, "", "{}", "[]", '{"tensors": {}}'):
        if content is not None:
            (tmp_path / "csim/interface.json").write_text(content)
        with pytest.raises(UserError, match=f"^{tmp_path}: no firmware .*Firmware.build"):
            Firmware.load(tmp_path)


# ---- plain hls4ml


def test_hls4ml_is_told_of_the_input(small: Path, tmp_path: Path) -> None:
    """No precision, and values off the grid: warnings; of models without our layers none."""
    salt_hls.register()
    model = salt_hls.load_model(small)
    particles = tf.keras.Input((4, 3), name="others")
    ordinary = tf.keras.Model(particles, tf.keras.layers.Dense(2, name="dense")(particles))

    def converted(model: tf.keras.Model, precision: str | None, granularity: str = "name") -> Any:
        config = hls4ml.utils.config_from_keras_model(
            model, granularity=granularity, backend="Vitis"
        )
        if precision is not None:
            config["LayerName"]["particles"]["Precision"]["result"] = precision
        folder = str(tmp_path / "project")
        return hls4ml.converters.convert_from_keras_model(
            model, hls_config=config, backend="Vitis", output_dir=folder
        )

    says = r'^input particles: no precision is given.*LayerName"\]\["particles"\]'
    for granularity in ("name", "type", "model"):
        with pytest.warns(UserWarning, match=says) as caught:
            converted(model, None, granularity)
        assert sum("input particles" in str(warning.message) for warning in caught) == 1
        converted(ordinary, None, granularity)
    inputs = Inputs(small)
    graph = converted(model, inputs.precision)
    graph.write()
    script = tmp_path / "project/build_lib.sh"
    script.write_text(script.read_text().replace("-O3", "-O0"))
    graph._compile()
    x = inputs(some_jets())
    assert np.array_equal(graph.predict(x), model(x).numpy())
    assert np.array_equal(salt_hls.emulator(graph)(x), model(x).numpy())
    for wrong, count in ((some_jets(50, 4).astype(np.float32), 600), (x + [[[0, 0, 1 / 64]]], 200)):
        says = f"^input particles: {count} of 600 values are not of its type, ap_fixed<9,4>:"
        with pytest.warns(UserWarning, match=says):
            graph.predict(np.ascontiguousarray(wrong, np.float32))
    with pytest.raises(UserError, match="600 of 600 values are not on the input grid"):
        salt_hls.emulator(graph)(some_jets(50, 4))


# ---- the documents


def blocks(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


CHECKS = {
    "README.md": """
expected = model.predict(x)
assert len(np.unique(expected, axis=0)) > 150 and np.array_equal(graph.predict(x), expected)
""",
    "docs/python.md": """
expected = mine.predict(x)
assert len(np.unique(expected)) > 50
for run in (graph.predict, firmware.csim, again.csim, salt_hls.emulator(graph)):
    assert np.array_equal(run(x), expected)
print("done")
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_code_of_the_documents(page: str, tmp_path: Path) -> None:
    """As a script without `if __name__ == "__main__"`, in an empty folder."""
    program = blocks(CHECKOUT / page)
    assert program.count("\n") > 10
    result = run_program(program + CHECKS[page], tmp_path)
    assert "precision is given" not in result.stderr and "values are not" not in result.stderr
    if page != "README.md":
        assert "Firmware.csim: needs an array" in result.stdout
        assert result.stdout.count("ap_fixed<9,4>") == 1  # the script ran once
