"""What happens in plain hls4ml after `salt_hls.register()`."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import pytest
import tensorflow as tf
from hls4ml.converters.keras_v2_to_hls import keras_v2_to_hls
from hls4ml.model.graph import MultiModelGraph
from qkeras import QDense
from qkeras.utils import _add_supported_quantized_objects

import salt_hls
from salt_hls.errors import UserError
from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.models.tagger import load_tagger

# tests/test_public_api.py is about inputs.
pytestmark = pytest.mark.filterwarnings("ignore:input .* no precision is given")

BITS = "quantized_bits(6,1,alpha=1)"
L = tf.keras.layers
JETS = (np.random.default_rng(0).integers(-64, 64, (20, 6, 3)) / 32).astype(np.float32)


@pytest.fixture(autouse=True)
def registered() -> None:
    salt_hls.register()


def jet(name: str = "particles") -> Any:
    return tf.keras.Input((6, 3), name=name)


def dense(name: str, units: int = 4, kernel: str | None = BITS, **more: Any) -> QDense:
    more = {"kernel_quantizer": kernel, "bias_quantizer": BITS, **more}
    return QDense(units, kernel_initializer="zeros", name=name, **more)


def relu(name: str, kind: str = "ap_ufixed<8,4,RND,SAT>") -> FixedActivation:
    return FixedActivation("relu", kind, name=name)


def tanh(name: str) -> DynamicTanh:
    return DynamicTanh("ap_fixed<8,4,RND,SAT>", "ap_fixed<8,1,RND,SAT>", name=name)


def with_weights(model: tf.keras.Model) -> tf.keras.Model:
    """Off the grids and beyond their ranges."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        values = rng.normal(0, 0.8, weight.shape)
        weight.assign(np.abs(values) if "variance" in weight.name else values)
    return model


def small() -> tf.keras.Model:
    x = jet()
    y = L.GlobalMaxPooling1D(name="pool")(tanh("tanh")(dense("embed")(x)))
    return with_weights(tf.keras.Model(x, relu("relu")(dense("head", 3)(y))))


def settings(model: tf.keras.Model, granularity: str = "name") -> dict[str, Any]:
    return hls4ml.utils.config_from_keras_model(model, granularity=granularity, backend="Vitis")


def convert(
    model: tf.keras.Model, folder: Path, config: dict[str, Any] | None = None, **more: Any
) -> Any:
    return hls4ml.converters.convert_from_keras_model(
        model,
        hls_config=config or settings(model),
        output_dir=str(folder),
        **{"backend": "Vitis", **more},
    )


def compiled(graph: Any) -> Any:
    graph.write()
    script = Path(graph.config.get_output_dir()) / "build_lib.sh"
    script.write_text(script.read_text().replace("-O3", "-O0"))  # halves the time it takes
    graph._compile()
    return graph


def types(graph: Any) -> dict[str, str]:
    return {n.name: str(n.get_output_variable().type.precision) for n in graph.get_layers()}


def constants(graph: Any) -> dict[tuple[str, str], list[float]]:
    return {
        (node.name, name): variable.data.ravel().tolist()
        for node in graph.get_layers()
        for name, variable in node.weights.items()
    }


# ---- models without our layers


def test_other_models_stay_as_they_were(tmp_path: Path) -> None:
    program = Path(__file__).with_name("ordinary_models.py")
    result = subprocess.run(
        [sys.executable, program, tmp_path / "project"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = [x for x in result.stdout.splitlines() if x.startswith(("DIFFERS", "COMPARED"))]
    assert lines == ["COMPARED 50"]


# ---- weights of QDense in models with our layers


def test_every_grid_of_weights_is_exact(tmp_path: Path) -> None:
    """Over particles and on vectors."""
    x = jet()
    outputs = []
    for i, kernel in enumerate(
        (BITS, "binary(alpha=1)", "ternary(alpha=1)", "quantized_po2(4)",
         "quantized_bits(6,1,alpha=1,keep_negative=0)", "quantized_bits(4,4,alpha=1)")
    ):  # fmt: skip
        y = L.GlobalMaxPooling1D(name=f"pool{i}")(dense(f"wide{i}", kernel=kernel)(x))
        out = FixedActivation("linear", "ap_fixed<18,13,RND,SAT>", name=f"out{i}")
        outputs.append(out(dense(f"head{i}", 4, kernel)(y)))
    outputs.append(relu("out_bias")(dense("b", bias_quantizer="quantized_bits(6,1)")(x)))
    model = with_weights(tf.keras.Model(x, outputs))
    graph = compiled(convert(model, tmp_path))
    for kernel, expected, got in zip(
        model.output_names, model(JETS), graph.predict(JETS), strict=True
    ):
        assert len(np.unique(expected)) > 5
        assert np.array_equal(got.reshape(expected.shape), expected), kernel


def test_weights_inside_a_nested_model(tmp_path: Path) -> None:
    """Which has no layer of ours itself."""
    x, inner = jet(), jet("inner_particles")
    layer = dense("unbiased", use_bias=False)
    nested = tf.keras.Model(inner, layer(inner), name="nested")
    graph = convert(with_weights(tf.keras.Model(x, relu("relu")(nested(x)))), tmp_path)
    kernel = layer.kernel_quantizer_internal(layer.kernel).numpy()
    data = constants(graph)
    assert data["unbiased", "weight"] == kernel.ravel().tolist()
    assert not any(data["unbiased", "bias"])


def test_weights_do_not_depend_on_the_configuration(tmp_path: Path) -> None:
    model = small()
    written = constants(convert(model, tmp_path))
    for granularity in ("type", "model"):
        assert constants(convert(model, tmp_path, settings(model, granularity))) == written
    precisions = {
        node.name: str(node.get_weights("weight").type.precision)
        for node in convert(model, tmp_path, settings(model, "model")).get_layers()
        if "weight" in node.weights
    }
    assert set(precisions.values()) == {"fixed<6,2,TRN,WRAP,0>"}


def test_scaled_weights_over_particles_are_refused(tmp_path: Path) -> None:
    """hls4ml drops the quantizers there; on a vector it can scale."""
    x = jet()
    with pytest.raises(UserError, match="layer embed: .*alpha=1"):
        settings(tf.keras.Model(x, relu("relu")(dense("embed", kernel="quantized_bits(6,1)")(x))))
    vector = tf.keras.Input((6,), name="vector")
    head = dense("head", kernel="quantized_bits(6,1)")
    graph = convert(tf.keras.Model(vector, relu("relu")(head(vector))), tmp_path)
    assert "head_alpha" in types(graph)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = small()
    model.get_layer("head").kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(UserError, match="layer head: weight holds NaN"):
        settings(model)


# ---- weights are found by their names


def confusing() -> tf.keras.Model:
    x = jet()
    y = tanh("beta_tanh")(dense("unbiased")(x))
    y = relu("relu")(dense("bias_of_kernel", use_bias=False)(y))
    y = L.BatchNormalization(name="beta_gamma_mean")(L.GlobalMaxPooling1D(name="pool")(y))
    return with_weights(tf.keras.Model(x, L.Dense(3, name="kernel_and_bias")(y)))


def from_object(model: tf.keras.Model, folder: Path) -> Any:
    return convert(model, folder / "p")


def from_saved_model(model: tf.keras.Model, folder: Path) -> Any:
    """Whose weights are called `kernel:0`, without the layer."""
    model.save(folder / "model.keras")
    objects: dict[str, Any] = {}
    _add_supported_quantized_objects(objects)
    return convert(
        tf.keras.models.load_model(folder / "model.keras", custom_objects=objects), folder / "p"
    )


def file_flow(model: tf.keras.Model, folder: Path, **files: str) -> Any:
    config = hls4ml.converters.create_config(backend="Vitis", output_dir=str(folder / "p"))
    return keras_v2_to_hls({**config, **files, "HLSConfig": settings(model)})


def from_h5(model: tf.keras.Model, folder: Path) -> Any:
    model.save(folder / "model.h5")
    return file_flow(model, folder, KerasH5=str(folder / "model.h5"))


def from_json(model: tf.keras.Model, folder: Path) -> Any:
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / "weights.h5")
    return file_flow(
        model, folder, KerasJson=str(folder / "model.json"), KerasH5=str(folder / "weights.h5")
    )


@pytest.mark.parametrize("way", [from_object, from_saved_model, from_h5, from_json])
def test_names(way: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    model = confusing()
    graph = way(model, tmp_path)
    data, nodes = constants(graph), graph.graph
    for name in ("unbiased", "bias_of_kernel"):
        layer = model.get_layer(name)
        kernel = layer.kernel_quantizer_internal(layer.kernel).numpy()
        assert data[name, "weight"] == kernel.ravel().tolist()
    layer = model.get_layer("unbiased")
    assert data["unbiased", "bias"] == layer.bias_quantizer_internal(layer.bias).numpy().tolist()
    assert not any(data["bias_of_kernel", "bias"])
    exact, layer = nodes["beta_tanh"].operation, model.get_layer("beta_tanh")
    assert (exact.alpha, exact.beta) == (float(layer.alpha[0]), float(layer.beta[0]))
    layer = model.get_layer("kernel_and_bias")
    assert data["kernel_and_bias", "weight"] == layer.kernel.numpy().ravel().tolist()
    assert data["kernel_and_bias", "bias"] == layer.bias.numpy().tolist()
    gamma, beta, mean, variance = (w.numpy() for w in model.get_layer("beta_gamma_mean").weights)
    scale = gamma / np.sqrt(variance + 1e-3)
    assert np.allclose(data["beta_gamma_mean", "scale"], scale)
    assert np.allclose(data["beta_gamma_mean", "bias"], beta - scale * mean)


# ---- layers used twice


def test_layers_used_twice_are_refused(tmp_path: Path) -> None:
    x = jet()
    shared, twice = dense("shared", 3), relu("twice")
    ours = tf.keras.Model(x, twice(dense("between", 3)(twice(x))))
    inner = jet("inner_particles")
    nested = tf.keras.Model(inner, shared(shared(inner)), name="nested")
    for model, name in (
        (tf.keras.Model(x, relu("relu")(shared(shared(x)))), "shared"),
        (ours, "twice"),
        (tf.keras.Model(x, relu("relu")(nested(x))), "shared"),
    ):
        with pytest.raises(UserError, match=f"layer {name}: used 2 times"):
            settings(model)
    with pytest.raises(UserError, match="layer twice: used 2 times"):
        from_h5(ours, tmp_path)
    # Once in this model, once in another: that is no second use.
    settings(tf.keras.Model(x, relu("relu")(shared(x))))


# ---- maxima


def test_a_maximum_has_the_type_of_its_argument(tmp_path: Path) -> None:
    x = jet()
    wide = relu("relu", "ap_ufixed<8,8,RND,SAT>")(dense("embed", 3)(x))
    added = L.Add(name="sum")([wide, dense("more", 3)(wide)])
    sources = {"particles": x, "relu": wide, "sum": added, "later": dense("later")(added)}
    pools = {
        name: L.GlobalMaxPooling1D(name=f"max_{name}")(source) for name, source in sources.items()
    }
    windows = L.MaxPooling1D(2, name="windows")(wide)
    pools["windows"] = L.GlobalMaxPooling1D(name="max_windows")(windows)
    model = with_weights(tf.keras.Model(x, list(pools.values())))
    for granularity in ("name", "type", "model"):
        for io_type in ("io_parallel", "io_stream"):
            found = types(convert(model, tmp_path, settings(model, granularity), io_type=io_type))
            for name in pools:
                assert found[f"max_{name}"] == found[name], (granularity, io_type)
            assert found["max_windows"] == found["relu"] == "ufixed<8,8,RND,SAT,0>"
    config = settings(model)
    config["LayerName"]["max_relu"]["Precision"]["result"] = "ap_ufixed<6,6>"
    assert types(convert(model, tmp_path, config))["max_relu"].startswith("ufixed<6,6")


# ---- backends, settings


OTHERS = sorted({*hls4ml.backends.get_available_backends()} - {"vitis", "vivado"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # hls4ml's
@pytest.mark.parametrize("backend", OTHERS)
def test_other_backends_are_refused(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small()
    name = hls4ml.backends.get_backend(backend).name
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "shls").touch(0o755)  # Libero's compiler, for which hls4ml looks at once
    paths = {"hls_include_path": "", "hls_libs_path": ""} if "symbolic" in backend else {}
    with pytest.raises(UserError, match=f"^layer tanh: DynamicTanh has no {name} form; use Vitis"):
        convert(model, tmp_path, settings(model), backend=backend, **paths)


def test_ignored_settings_are_said(tmp_path: Path) -> None:
    model = small()
    for granularity in ("name", "type", "model"):
        config = hls4ml.utils.config_from_keras_model(
            model, granularity=granularity, backend="Vitis", default_reuse_factor=2
        )
        if granularity == "name":
            config["LayerName"]["relu"]["Precision"]["result"] = "ap_ufixed<8,4,AP_RND,AP_SAT>"
            config["LayerName"]["relu"] |= {"Trace": True, "ReuseFactor": 1, "Strategy": "Latency"}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="layer ")
            convert(model, tmp_path, config)
    for key, value, says in (
        (
            "Precision",
            {"result": "ap_fixed<4,2>"},
            "relu: .* ignores Precision result ap_fixed<4,2>",
        ),
        ("Precision", "ap_fixed<4,2>", "relu: .* ignores Precision result ap_fixed<4,2>"),
        ("ReuseFactor", 4, "relu: .* ignores ReuseFactor 4 "),
        ("Strategy", "Resource", "relu: .* ignores Strategy Resource "),
    ):
        config = settings(model)
        config["LayerName"]["relu"][key] = value
        with pytest.warns(UserWarning, match=says):
            graph = convert(model, tmp_path, config)
        assert types(graph)["relu"] == "ufixed<8,4,RND,SAT,0>"
    config = settings(model, "type")
    config["LayerType"]["DynamicTanh"]["ReuseFactor"] = 4
    with pytest.warns(UserWarning, match="tanh: DynamicTanh ignores ReuseFactor 4"):
        convert(model, tmp_path, config)


# ---- streams


def test_predict_and_trace_with_lanes_that_do_not_divide(tmp_path: Path) -> None:
    model = small()
    config = settings(model)
    for layer in config["LayerName"].values():
        layer["Trace"] = True
    graph = convert(model, tmp_path, config, io_type="io_stream")
    salt_hls.stream(graph, 3)
    salt_hls.stream(graph, 4)
    expected = model(JETS).numpy()
    predicted, traced = graph.trace(JETS)
    assert np.array_equal(predicted, expected)
    for one in (JETS, JETS.reshape(len(JETS), -1), JETS.astype(np.float64)):
        assert np.array_equal(graph.predict(one), expected)
    assert np.array_equal(graph.predict(JETS[:1]), expected[0])
    inner = tf.keras.Model(model.input, model.get_layer("tanh").output)
    assert np.array_equal(traced["tanh"], inner(JETS).numpy())
    with pytest.raises(UserError, match="particles: got 17 values, tensors have 18 each"):
        graph.predict(JETS.ravel()[:17])


def test_stream_says_what_it_wants(tmp_path: Path) -> None:
    model = small()
    graph = convert(model, tmp_path, io_type="io_stream")
    for lanes in (0, -1, 2.5, True, "2", None, 7):
        with pytest.raises(UserError, match=f"a whole number from 1 to 6, got {lanes}$"):
            salt_hls.stream(graph, lanes)  # type: ignore[arg-type]
    salt_hls.stream(graph, np.int64(6))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the graph is io_parallel; .* io_stream"):
        salt_hls.stream(convert(model, tmp_path))


# ---- files and parts of hls4ml


def sources(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("firmware/**/*.*")}


def test_saved_graphs(small_model: Callable[..., Path], tmp_path: Path) -> None:
    """Every layer of ours, and every byte of what is written."""
    model = load_tagger(str(small_model())).quantized
    graph = convert(model, tmp_path / "project")
    graph.write()
    expected = sources(tmp_path / "project")
    graph.save(str(tmp_path / "graph.fml"))
    loaded = hls4ml.converters.load_saved_model(str(tmp_path / "graph.fml"))
    loaded.config.config["OutputDir"] = str(tmp_path / "loaded")
    loaded.write()
    assert sources(tmp_path / "loaded") == expected


def test_saved_graphs_of_streams(tmp_path: Path) -> None:
    """hls4ml saves no sizes of transfers: they are made after loading."""
    graph = convert(small(), tmp_path / "project", io_type="io_stream")
    graph.save(str(tmp_path / "graph.fml"))
    loaded = hls4ml.converters.load_saved_model(str(tmp_path / "graph.fml"))
    loaded.config.config["OutputDir"] = str(tmp_path / "loaded")
    for each in (graph, loaded):
        salt_hls.stream(each, 4)
        each.write()
        with pytest.raises(UserError, match="layer tanh: .* before salt_hls.stream"):
            each.save(str(tmp_path / "again.fml"))
    assert not (tmp_path / "again.fml").exists()
    assert sources(tmp_path / "project") == sources(tmp_path / "loaded")


def test_parts_of_a_graph(tmp_path: Path) -> None:
    """hls4ml's multi-model graphs, split at one of our layers."""
    model = small()
    parts = MultiModelGraph.from_model_graph(convert(model, tmp_path), ["tanh"])
    x = JETS
    for part in parts.graphs:
        x = compiled(part).predict(x)
    assert np.array_equal(x, model(JETS).numpy())
