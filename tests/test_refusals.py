"""What cannot be built exactly is refused before any work, in one line that says what to do."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hls4ml
import numpy as np
import pytest
import tensorflow as tf
import yaml
from qkeras import QActivation, QDense, quantized_bits, quantized_relu
from typer.testing import CliRunner

from salt_hls.cli.commands import app
from salt_hls.config import MODELS, ModelConfig, Strict, find_model, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.hls.convert import KNOWN, convert, write_project
from salt_hls.hls.names import RESERVED, top_name
from salt_hls.hls.supported import check_model
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.head_dense.keras import HeadDense
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
from salt_hls.models.build import load_keras_model, snap_weights

# QKeras calls an initializer again when the first weights are too small for the grid.
pytestmark = pytest.mark.filterwarnings("ignore:The initializer HeNormal is unseeded")

Layers = tf.keras.layers
GRID = "quantized_bits(6,1,alpha=1)"


def dense(units: int = 3, name: str = "d", kernel: Any = GRID, bias: Any = GRID, **kw: Any) -> Any:
    return QDense(units, kernel_quantizer=kernel, bias_quantizer=bias, name=name, **kw)


def chain(*layers: Any, shape: tuple[int | None, ...] = (8, 3)) -> tf.keras.Model:
    x = inputs = tf.keras.Input(shape, name="particles")
    for layer in layers:
        x = layer(x)
    return tf.keras.Model(inputs, x)


def one_line(error: BaseException, *says: str) -> None:
    text = str(error)
    assert "\n" not in text and "Value error," not in text
    for part in says:
        assert part in text, text


def attention(**types: str) -> tf.keras.Model:
    unsigned = "ap_ufixed<8,1,RND,SAT>"
    declared = {
        "logits": "ap_fixed<8,4>", "exp": unsigned, "sum": "ap_ufixed<8,4>",
        "reciprocal": unsigned, "attention": unsigned, "output": "ap_fixed<8,4>", **types,
    }  # fmt: skip
    x = tf.keras.Input((8, 4), name="particles")
    return tf.keras.Model(x, ConvAttention(2, (), types=declared, name="d")([x, x, x]))


def head(quantizer: Any) -> HeadDense:
    return HeadDense(1, 2, quantizer, "ap_fixed<8,4>", name="d")


def project(quantizer: Any) -> PartitionedProjection:
    return PartitionedProjection(
        1, 2, kernel_quantizer=quantizer, output_type="ap_fixed<8,4>", name="d"
    )


def shared() -> tf.keras.Model:
    layer = dense()
    return chain(layer, layer)


def two_inputs() -> tf.keras.Model:
    inputs = [tf.keras.Input((8, 3), name=name) for name in "ab"]
    return tf.keras.Model(inputs, Layers.Add()(inputs))


def half_precision() -> tf.keras.Model:
    return chain(Layers.Activation("relu", name="d", dtype="float16"))


REFUSED: dict[str, tuple[Callable[[], tf.keras.Model], tuple[str, ...]]] = {
    "default alpha": (
        lambda: chain(dense(kernel="quantized_bits(6,1)")),
        ("kernel quantizer quantized_bits(6,1,alpha='auto_po2')", "default", "give alpha=1"),
    ),
    "alpha auto": (
        lambda: chain(dense(kernel="quantized_bits(6,1,alpha='auto')")),
        ("kernel quantizer quantized_bits(6,1,alpha='auto')", "give alpha=1"),
    ),
    "alpha of a bias": (
        lambda: chain(dense(bias="quantized_bits(6,1,alpha='auto')")),
        ("bias quantizer quantized_bits(6,1,alpha='auto')", "give alpha=1"),
    ),
    "alpha of an activation": (
        lambda: chain(dense(activation="quantized_bits(6,1,alpha=2.0)")),
        ("activation quantizer quantized_bits(6,1,alpha=2.0)", "give alpha=1"),
    ),
    "alpha 0.5": (
        lambda: chain(dense(kernel="quantized_bits(6,1,alpha=0.5)")),
        ("quantized_bits(6,1,alpha=0.5)", "give alpha=1"),
    ),
    "alpha by channel": (
        lambda: chain(dense(kernel=quantized_bits(6, 1, alpha=np.array([1.0, 2.0, 1.0])))),
        ("alpha=[...]", "each channel", "give alpha=1"),
    ),
    "ternary by default": (
        lambda: chain(dense(kernel="ternary()")),
        ("kernel quantizer ternary(alpha='auto_po2')", "give alpha=1"),
    ),
    "ternary bias without alpha": (
        lambda: chain(dense(bias="ternary()")),
        ("bias quantizer ternary()", "give alpha=1"),
    ),
    "unsigned": (
        lambda: chain(dense(kernel="quantized_bits(6,1,keep_negative=0,alpha=1)")),
        ("quantized_bits(6,1,alpha=1,keep_negative=0)", "leave keep_negative out"),
    ),
    "stochastic rounding": (
        lambda: chain(dense(kernel="quantized_bits(6,1,alpha=1,use_stochastic_rounding=1)")),
        ("quantized_bits(6,1,alpha=1,use_stochastic_rounding=1)", "use_stochastic_rounding=0"),
    ),
    "partly quantized": (
        lambda: chain(dense(kernel=quantized_bits(6, 1, alpha=1, qnoise_factor=0.5))),
        ("qnoise_factor=0.5", "give qnoise_factor=1"),
    ),
    "more bits than float32": (
        lambda: chain(dense(kernel="quantized_bits(30,1,alpha=1)")),
        ("quantized_bits(30,1,alpha=1)", "float32"),
    ),
    "weights of another kind": (
        lambda: chain(dense(kernel="quantized_tanh(6)")),
        ("kernel quantizer quantized_tanh(6)", "give quantized_bits(bits, integer, alpha=1)"),
    ),
    "stochastic weights": (
        lambda: chain(dense(kernel="stochastic_binary(alpha=1)")),
        ("kernel quantizer stochastic_binary(alpha=1)", "give quantized_bits"),
    ),
    "activation of another kind": (
        lambda: chain(dense(activation="quantized_tanh(6)")),
        ("activation quantizer quantized_tanh(6)", "quantized_relu(bits, integer)"),
    ),
    "one-bit activation": (
        lambda: chain(QActivation("quantized_bits(1,0,alpha=1)", name="d")),
        ("activation quantizer quantized_bits(1,0,alpha=1)", "sign", "give it 2 bits"),
    ),
    "leaky": (
        lambda: chain(QActivation("quantized_relu(6,1,negative_slope=0.25)", name="d")),
        ("quantized_relu(6,1,negative_slope=0.25)", "give negative_slope=0"),
    ),
    "QActivation": (
        lambda: chain(QActivation("quantized_sigmoid(6)", name="d")),
        ("activation quantizer quantized_sigmoid(6)",),
    ),
    "softmax in QDense": (lambda: chain(dense(activation="softmax")), ("softmax", "logits")),
    "sigmoid": (lambda: chain(Layers.Activation("sigmoid", name="d")), ("sigmoid", "logits")),
    "Softmax": (lambda: chain(Layers.Softmax(name="d")), ("Softmax", "logits")),
    "gelu": (lambda: chain(dense(activation=tf.nn.gelu)), ("activation gelu", "use relu")),
    "bounded ReLU": (lambda: chain(Layers.ReLU(6.0, name="d")), ("max_value",)),
    "Dense": (lambda: chain(Layers.Dense(2, name="d")), ("use QDense",)),
    "float kernel": (lambda: chain(dense(kernel=None)), ("no kernel_quantizer", "alpha=1")),
    "float bias": (lambda: chain(dense(bias=None)), ("no bias_quantizer", "use_bias=False")),
    "BatchNormalization": (lambda: chain(Layers.BatchNormalization(name="d")), ("fold it",)),
    "LSTM": (lambda: chain(Layers.LSTM(2, name="d")), ("LSTM", "supported layers are")),
    "nested": (lambda: chain(tf.keras.Sequential([dense()], name="d")), ("Sequential",)),
    "TimeDistributed": (lambda: chain(Layers.TimeDistributed(dense(), name="d")), ("remove",)),
    "shared": (shared, ("used twice", "a layer of its own")),
    "float16": (half_precision, ("float16", "dtype float32")),
    "channels first": (
        lambda: chain(Layers.GlobalMaxPooling1D(name="d", data_format="channels_first")),
        ("data_format must be channels_last",),
    ),
    "HeadDense without quantizer": (lambda: chain(head(None)), ("no kernel quantizer",)),
    "HeadDense scaled": (
        lambda: chain(head("quantized_bits(6,1,alpha='auto')")),
        ("kernel quantizer quantized_bits(6,1,alpha='auto')", "give alpha=1"),
    ),
    "projection scaled": (
        lambda: chain(project("quantized_bits(6,1,alpha=0.5)")),
        ("kernel quantizer quantized_bits(6,1,alpha=0.5)", "give alpha=1"),
    ),
    "float FixedActivation": (lambda: chain(FixedActivation(name="d")), ("no output_type",)),
    "float DynamicTanh": (lambda: chain(DynamicTanh(name="d")), ("no input_type",)),
    "table of tanh": (
        lambda: chain(DynamicTanh("ap_fixed<30,5>", "ap_fixed<8,1>", name="d")),
        ("input_type", "2^30 entries", "at most 16 bits"),
    ),
    "table of exp": (
        lambda: attention(logits="ap_fixed<28,8>"),
        ("conv ap_fixed<28,8>", "2^28 entries"),
    ),
    "table of reciprocals": (
        lambda: attention(sum="ap_ufixed<20,4>"),
        ("sum ap_ufixed<20,4>", "2^20 entries"),
    ),
    "the same C++ name": (
        lambda: chain(dense(name="d_1"), dense(name="d/1")),
        ("d/1", "same name as layer d_1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind: str) -> None:
    make, says = REFUSED[kind]
    with pytest.raises(UserError) as error:
        check_model(make(), KNOWN)
    one_line(error.value, "layer d", *says)


def test_models_of_several_inputs_or_open_shapes() -> None:
    with pytest.raises(UserError, match="inputs a, b; one can be built"):
        check_model(two_inputs(), KNOWN)
    with pytest.raises(UserError, match=r"layer particles: .*\(None, 3\)"):
        check_model(chain(dense(), shape=(None, 3)), KNOWN)


ACCEPTED = {
    "no bias": lambda: chain(dense(bias=None, use_bias=False)),
    "symmetric": lambda: chain(dense(kernel="quantized_bits(6,1,1,alpha=1)")),
    "bias without alpha": lambda: chain(dense(bias="quantized_bits(6,1)")),
    "ternary": lambda: chain(dense(kernel="ternary(alpha=1)")),
    "binary": lambda: chain(dense(kernel="binary(alpha=1)")),
    "powers of two": lambda: chain(dense(kernel="quantized_po2(4)")),
    "relu": lambda: chain(dense(activation="relu")),
    "quantized_relu": lambda: chain(dense(activation=quantized_relu(6, 2))),
    "QActivation": lambda: chain(QActivation("quantized_bits(6,2,alpha=1)", name="q")),
    "regularized": lambda: chain(dense(kernel_regularizer="l1", kernel_constraint="non_neg")),
    "Sequential": lambda: tf.keras.Sequential([tf.keras.Input((8, 3)), dense()]),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_not_refused(kind: str) -> None:
    check_model(ACCEPTED[kind](), KNOWN)


@pytest.mark.parametrize(
    "quantizer",
    [
        "binary(alpha=1)",
        "quantized_bits(1,0,alpha=1)",
        "quantized_bits(3,3,alpha=1)",
        "quantized_bits(6,1)",
        "quantized_bits(6,1,1,alpha=1)",
        "quantized_bits(6,1,keep_negative=0,alpha=1)",
        "ternary(alpha=1,threshold=1.5)",
        "binary(use_01=1,alpha=1)",
        "quantized_po2(3,2)",
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_exact_on_any_grid(ours: bool, quantizer: str, tmp_path: Path) -> None:
    """Weights far out of range too: QKeras' float32 rounds those off the grid."""
    wide = "ap_fixed<14,8,RND,SAT>"
    if ours:
        model = chain(
            PartitionedProjection(1, 2, kernel_quantizer=quantizer, output_type=wide, name="p"),
            HeadDense(1, 4, quantizer, wide, name="h"),
        )
    elif "keep_negative=0" in quantizer or "alpha" not in quantizer:
        return  # refused in QDense
    else:
        model = chain(dense(4, kernel=quantizer), FixedActivation("linear", wide, name="h"))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        far = np.where(rng.random(weight.shape) < 0.2, 50, 1)
        weight.assign(rng.normal(0, 1.5, weight.shape) * far)
    grid = FixedType(8, 4)
    x = grid.quantize(rng.normal(0, 3, (50, 8, 3)))
    before = model(x.astype(np.float32)).numpy()
    assert np.any(before)
    snap_weights(model)
    assert np.array_equal(model(x.astype(np.float32)).numpy(), before)
    graph = convert(model, grid, "tagger", tmp_path).graph
    assert np.array_equal(graph.run([x])["h"], before)


# ---- model files that hold code


def save_lambda(folder: Path, suffix: str, wrapped: bool) -> tuple[Path, Path]:
    """A model file with a Lambda layer, and the file that its code writes."""
    written, path = folder / "ran", folder / f"model{suffix}"
    text = f"lambda x: (__import__('pathlib').Path({str(written)!r}).touch(), x)[1]"
    layer = Layers.Lambda(eval(text), name="lam")
    inner = chain(Layers.TimeDistributed(layer) if wrapped else layer)
    chain(tf.keras.Model(inner.input, inner.output, name="inner")).save(path)
    written.unlink()
    return path, written


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_lambda_is_not_run(suffix: str, wrapped: bool, tmp_path: Path) -> None:
    path, written = save_lambda(tmp_path, suffix, wrapped)
    with pytest.raises(UserError) as error:
        load_keras_model(path)
    one_line(error.value, f"{path}: layer lam: a Lambda holds Python code")
    assert not written.exists()
    tf.keras.models.load_model(path, compile=False, safe_mode=False)
    assert written.exists(), "this code would have run"


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the configuration in a model file; in a `.keras` file the weights are lost."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    change(config)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))


CODE = {
    "lambda": ({"class_name": "__lambda__", "config": {"value": ["4wA="]}}, "Lambda"),
    "other module": (
        {"module": "subprocess", "class_name": "Popen", "config": {"args": "ls"}},
        "Popen is Python code of the module subprocess",
    ),
    "function": (
        {"module": "builtins", "class_name": "function", "config": "exec"},
        "it calls the function builtins.exec",
    ),
    "operation": (
        {"class_name": "TFOpLambda", "config": {"name": "t", "function": "io.write_file"}},
        "layer t: it calls the TensorFlow function io.write_file",
    ),
    "wrapper": (
        {"class_name": "ResidualWrapper", "config": {"residual_fn_type": "lambda"}},
        "Lambda",
    ),
    "hidden": ({"module": "keras", "class_name": "layers.Lambda", "config": {}}, "Lambda"),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    ("kind", "where"),
    [*((kind, "activation") for kind in CODE), ("lambda", "kernel_initializer")],
)
def test_code_anywhere_is_refused(kind: str, where: str, suffix: str, tmp_path: Path) -> None:
    node, says = CODE[kind]
    path = tmp_path / f"model{suffix}"
    chain(dense()).save(path)
    rewrite(path, lambda config: config["config"]["layers"][1]["config"].update({where: node}))
    with pytest.raises(UserError) as error:
        load_keras_model(path)
    one_line(error.value, str(path), "layer d" if kind != "operation" else "layer t", says)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_python_loss_does_not_matter(suffix: str, tmp_path: Path) -> None:
    """The loss is not loaded."""
    path = tmp_path / f"model{suffix}"
    model = chain(dense(), QActivation(quantized_relu(6, 2), name="q"))
    model.compile("adam", lambda truth, guess: guess)
    model.save(path)
    loaded = load_keras_model(path)
    x = np.ones((2, 8, 3), np.float32)
    assert np.array_equal(loaded(x), model(x))


class Mine(Layers.Layer):  # type: ignore[misc]
    """Not registered anywhere."""


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_that_cannot_be_loaded(suffix: str, tmp_path: Path) -> None:
    def refused(model: tf.keras.Model | None, *says: str) -> None:
        path = tmp_path / f"model{suffix}"
        if model is not None:
            model.save(path)
        with pytest.raises(UserError) as error:
            load_keras_model(path)
        one_line(error.value, str(path), *says)

    refused(chain(Mine(name="my")), "layer my: Mine" if suffix == ".h5" else "Mine")
    scaled = dense(kernel=quantized_bits(6, 1, alpha=np.array([1.0, 2.0, 1.0])))
    refused(chain(scaled), "layer d", "quantized_bits scales each channel", "give alpha=1")
    broken = chain(dense())
    broken.layers[1].bias.assign([np.nan, 0, 0])
    refused(broken, "layer d", "NaN")
    refused(two_inputs(), "one input (particles, features)", "(8, 3), (8, 3)")
    refused(chain(dense(), shape=(None, 3)), "one input", "(None, 3)")
    path = tmp_path / f"model{suffix}"
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[: len(whole) // 2], b"PK\3\4" + bytes(90)):
        path.write_bytes(damage)
        refused(None, "not a Keras model")
    chain(dense()).save(path)
    for content in ({}, {"class_name": 3}, [], {"config": {"layers": [{}]}}, "x", None):
        if suffix == ".h5":
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = json.dumps(content)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", json.dumps(content))
        refused(None, "not a Keras model")
    nested = "[" * 100_000 + "]" * 100_000
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", nested)
    if suffix == ".keras":
        refused(None, "not a Keras model")


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    chain(dense()).save_weights(path)
    with pytest.raises(UserError, match="holds no model"):
        load_keras_model(path)


# ---- names


TOPS = [
    "main", "std", "nnet", "ap_fixed", "ap_int", "hls", "input_t", "result_t", "size_t", "NULL",
    "EOF", "INFINITY", "particles", "1x", "a b", "a/b", "a-b", "a.b", "_x", ".x", "é", "naïve jet",
    "a--b_", 'q"uote', "a\\b", "$[exit]", "defines", "w2", "b12", "layer2_out", "config4", "-x",
    "FILE", "time_t", "int8_t", "stdin", "errno", "", "x" * 300, "salt_p4", "jet_tagger",
]  # fmt: skip


def test_every_top_function_compiles(tmp_path: Path) -> None:
    names = sorted({top_name(name) for name in (*TOPS, *RESERVED.split())})
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", n) for n in names)
    assert all(len(name) <= 64 for name in names)
    assert {"salt_p4", "jet_tagger"} <= set(names), "names that are good stay as they are"
    names_of_layers = ("input", "int", "a/b", "c.d-e", "w2")
    inputs = x = tf.keras.Input((8, 3), name="class")
    for name in names_of_layers:
        x = FixedActivation("relu", "ap_ufixed<6,3>", name=f"{name}_relu")(dense(name=name)(x))
    model = tf.keras.Model(inputs, x)
    write_project(convert(model, FixedType(8, 4), "zzz", tmp_path))
    lines = [f"void {n}(input_t x_[24], result_t y_[24]);" for n in names]
    calls = [f"void call_{i}(input_t x_[24], result_t y_[24]) {{ {n}(x_, y_); }}"
             for i, n in enumerate(names)]  # fmt: skip
    source = tmp_path / "names.cpp"
    includes = ['#include "firmware/zzz.h"', '#include "firmware/parameters.h"', "#include <cmath>"]
    source.write_text("\n".join([*includes, *lines, *calls]))
    types = Path(hls4ml.__file__).parent / "templates" / "vivado" / "ap_types"
    done = subprocess.run(
        ["g++", "-std=c++11", "-fsyntax-only", "-w", f"-I{types}", f"-I{tmp_path}", source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stem", ["..", ".", ".hidden", "-x", "a\nb", "x" * 101])
def test_names_of_model_files(stem: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{stem}.keras"
    Path(path).touch()
    with pytest.raises(UserError) as error:
        find_model(path)
    one_line(error.value, "the file's name must begin")
    good = tmp_path / "my jet-tagger é.keras"
    good.touch()
    assert find_model(str(good)) == good


# ---- YAML


def weights(text: Any) -> dict[str, Any]:
    return {"types": {"weights": {"default": text}}}


BAD_YAML: list[tuple[dict[str, Any], str]] = [
    (weights("ap_fixed<1,1>"), "types.weights.default: a weight of QKeras"),
    (weights("ap_ufixed<6,2>"), "types.weights.default: a weight of QKeras"),
    (weights("ap_fixed<6,0>"), "types.weights.default: a weight of QKeras"),
    (weights("ap_fixed<6,-1>"), "types.weights.default: a weight of QKeras"),
    (weights("ap_fixed<6,7>"), "types.weights.default: a weight of QKeras"),
    (weights("ap_fixed<30,2>"), "types.weights.default: more than 24 bits"),
    (weights("ap_fixed<6,2,RND,SAT>"), "types.weights.default: QKeras rounds weights"),
    (weights("ap_fixed<6,2,TRN,WRAP>"), "TRN and WRAP cannot be had"),
    (weights("ap_fixed<6,2,RND_CONV>"), "give RND_CONV,SAT or no modes"),
    (weights("ap_fixed<6,2,RND_CONV,SAT_SYM>"), "RND_CONV and SAT_SYM cannot be had"),
    (weights(None), "types.weights.default"),
    ({"types": {"biases": "ap_fixed<6,1,TRN>"}}, "types.biases: QKeras rounds weights"),
    ({"types": {"biases": "ap_fixed<1,1>"}}, "types.biases: a weight of QKeras"),
    ({"types": {"embed": "ap_ufixed<30,3>"}}, "types.embed: more than 24 bits"),
    ({"types": {"embed": "ap_ufixed<8,99999>"}}, "types.embed: type"),
    ({"types": {"tanh1_input": "ap_fixed<24,5>"}}, "types.tanh1_input: its table would have 2^24"),
    ({"types": {"attention": {"conv": "ap_fixed<20,5>"}}}, "types.attention.conv: its table"),
    ({"types": {"attention": {"sum": "ap_ufixed<20,5>"}}}, "types.attention.sum: its table"),
    (
        {"filter_heights": [], "types": {"attention": {"logits": "ap_fixed<20,5>"}}},
        "types.attention.logits: ap_fixed<20,5>: its table",
    ),
    *(
        ({"firmware": {"clock_ns": value}}, "firmware.clock_ns")
        for value in (float("inf"), float("nan"), 0, -1, 1e9, "fast", None)
    ),
    *(
        ({"firmware": {"part": value}}, "firmware.part")
        for value in ("", " ", "a b", "a\nb", 'a"b', "a]b", "$x", "x;exit", "-x", 7)
    ),
    *(
        ({"inputs": {"pt": {"scale": value}}}, "inputs.pt.scale")
        for value in (float("inf"), float("nan"), 0, -1, 1e300, 1e-300)
    ),
    *(
        ({"training": {"float_phases": [{**phase}]}}, f"training.float_phases.0.{key}")
        for key, value in (
            ("learning_rate", float("inf")), ("learning_rate", float("nan")),
            ("learning_rate", 0), ("batch", 0), ("batch", 10**12), ("epochs", 10**12),
        )
        for phase in [
            {"batch": 9, "epochs": 1, "patience": 1, "learning_rate": 0.1, key: value}
        ]
    ),
    ({"training": {"seed": -1}}, "training.seed"),
    ({"training": {"seed": 2**32}}, "training.seed"),
    ({"particles": 10**9}, "particles"),
    ({"particles": float("inf")}, "particles"),
    ({"width": 10**9}, "width"),
    ({"filter_heights": [0]}, "filter_heights.0"),
]  # fmt: skip


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        nested = isinstance(value, dict) and isinstance(inner, dict)
        result[key] = merged(inner, value) if nested else value  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize(("changes", "says"), BAD_YAML)
def test_bad_values_are_errors_when_read(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(merged(content, changes)))
    with pytest.raises(UserError) as error:
        load_yaml(path, ModelConfig)
    one_line(error.value, f"{path}: ", says)


class Unbounded(Strict):
    number: float


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_no_configuration_takes_infinity(number: float, tmp_path: Path) -> None:
    path = tmp_path / "free.yaml"
    path.write_text(yaml.safe_dump({"number": number}))
    with pytest.raises(UserError) as error:
        load_yaml(path, Unbounded)
    one_line(error.value, "number: Input should be a finite number")


@pytest.mark.parametrize(
    "text", ["ap_fixed<6,2>", "ap_fixed<6,2,RND_CONV,SAT>", "fixed<6,2,AP_SAT,AP_RND_CONV>"]
)
def test_weight_types_that_qkeras_has(text: str, tmp_path: Path) -> None:
    content = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    config = ModelConfig.model_validate(merged(content, weights(text)))
    again = ModelConfig.model_validate(config.model_dump(mode="json", by_alias=False))
    assert again.types is not None and again.types.weight("embed").width == 6


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1", "1e9", "fast"])
def test_clock_of_the_command_line(value: str) -> None:
    result = CliRunner().invoke(app, ["rtl", "salt_p4", f"--clock-ns={value}"])
    assert result.exit_code == 2 and "--clock-ns" in result.output
