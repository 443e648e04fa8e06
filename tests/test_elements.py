"""Elements with types of their own: widths, gradients, what is refused; cases of the layer and C++
are in test_conformance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import pytest
import tensorflow as tf
from alkaid.trace import trace
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qkeras import QDense
from rtl.test_tracer import golden, traced

import salt_hls
from salt_hls.check.tally import Tally
from salt_hls.errors import UserError
from salt_hls.fixed import ElementTypes, FixedType
from salt_hls.graph.feeds import Read
from salt_hls.graph.key import graph_digest
from salt_hls.hls.convert import convert, write_project
from salt_hls.hls.reader import read_graph
from salt_hls.layers.dynamic_tanh.operation import DynamicTanh
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.fixed_activation.operation import FixedActivation as Operation
from salt_hls.layers.head_filter.keras import HeadFilter
from salt_hls.layers.keras_ops import quantize, quantize_elements
from salt_hls.layers.standard import Dense
from salt_hls.rtl.design import design_of, execute
from salt_hls.rtl.project import generate
from salt_hls.rtl.tracer import symbols
from salt_hls.rtl.verilator import simulate

INPUT = FixedType.parse("ap_fixed<8,4>")
SIGNED = "ap_fixed<8,4,RND,SAT>"
SHAPE = (4, 3)
BITS = "quantized_bits(4,0,alpha=1)"

QUICK = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)

containers = st.builds(
    lambda width, integer, signed: FixedType(width, integer, signed, "RND", "SAT"),
    st.integers(2, 8),
    st.integers(-1, 5),
    st.booleans(),
)


@st.composite
def element_types(draw: st.DrawFn, shape: tuple[int, ...] = SHAPE) -> ElementTypes:
    """Any map in which some element is kept: pruned ones, ones of one bit, equal columns."""
    container = draw(containers)
    size = int(np.prod(shape))
    most = container.int_bits - container.signed, container.frac_bits

    def bits(limit: int) -> np.ndarray:
        drawn = draw(st.lists(st.floats(-limit - 1, limit + 1), min_size=size, max_size=size))
        return np.float32(drawn).reshape(shape)

    i, f = bits(abs(most[0]) + 1), bits(abs(most[1]) + 1)
    kind = draw(st.sampled_from(("any", "one bit", "columns", "one alone")))
    if kind == "one bit":
        f = 1 - np.rint(i)
    elif kind == "columns":
        i[:], f[:] = i[:1], f[:1]
    elif kind == "one alone":
        i[:] = -99
    i.flat[0], f.flat[0] = most
    return ElementTypes.of(container, i, f, "drawn")


def layer_of(types: ElementTypes, function: str = "linear", name: str = "y") -> FixedActivation:
    layer = FixedActivation(function, str(types.container), elements=True, name=name)
    layer.build((None, *types.integer_bits.shape))
    layer.set_weights([types.integer_bits, types.fraction_bits])
    return layer


def values(count: int = 60, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(-128, 128, (count, *shape))
    codes[:4] = np.array([0, -128, 127, 1]).reshape(4, *[1] * len(shape))
    return codes * INPUT.lsb


# ---- arithmetic


@QUICK
@given(element_types())
def test_an_element_is_rounded_as_its_type_rounds(types: ElementTypes) -> None:
    x = values() / 4
    found, container = types.quantize(x), types.container
    assert container.contains(found)
    assert np.array_equal(types.widths > 0, ~types.pruned)
    for index in np.ndindex(SHAPE):
        width, y = int(types.widths[index]), found[(..., *index)]
        if types.pruned[index]:
            assert width == 0 and not y.any()
            continue
        own = FixedType(
            width,
            int(types.integer_bits[index]) + container.signed,
            container.signed,
            "RND",
            "SAT",
        )
        assert np.array_equal(y, own.quantize(x[(..., *index)]))
        wide = FixedType(40, 40 - own.frac_bits, True, "RND")
        assert np.array_equal(
            types.overflowed(x)[(..., *index)], wide.quantize(x[(..., *index)]) != y
        )


def test_bits_are_rounded_half_to_even_and_kept_inside_the_container() -> None:
    types = ElementTypes.of(
        FixedType.parse(SIGNED),
        np.float32([0.5, 1.5, 2.51, 99, -1, -99, 3]),
        np.float32([2.5, 99, -1.49, -3, 1, 4, -99]),
        "y",
    )
    assert types.integer_bits.tolist() == [0, 2, 3, 0, 0, 0, 0]
    assert types.fraction_bits.tolist() == [2, 4, -1, 0, 0, 0, 0]
    assert types.widths.tolist() == [3, 7, 3, 0, 0, 0, 0]


@QUICK
@given(element_types(), st.sampled_from(["linear", "relu"]))
def test_keras_equals_golden(types: ElementTypes, function: str) -> None:
    layer, x = layer_of(types, function), values() / 4
    found = layer(x.astype(np.float32)).numpy()
    assert np.array_equal(found, layer.operation()(x))
    assert np.array_equal(found, types.quantize(np.maximum(x, 0) if function == "relu" else x))


def test_24_bits_are_rounded_exactly() -> None:
    """One unit below one half is rounded down, though float32 rounds its sum with one half up."""
    x = np.array([[0.5 - 2.0**-25, 2.0**22 - 0.75, 0.5]], np.float32)
    whole = FixedType.parse("ap_ufixed<24,24,RND,SAT>")
    expected = [[0, 2**22 - 1, 1]]
    assert whole.quantize(x).tolist() == expected
    assert quantize(tf.constant(x), whole).numpy().tolist() == expected
    bits = np.full(3, 24, np.float32), np.zeros(3, np.float32)
    assert quantize_elements(tf.constant(x), *bits, whole).numpy().tolist() == expected


def gradients(x: Any, i: Any, f: Any, container: FixedType, upstream: Any) -> list[np.ndarray]:
    tensors = [tf.constant(np.float32(v)) for v in (x, i, f)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = quantize_elements(*tensors, container)
    return [g.numpy() for g in tape.gradient(y, tensors, tf.constant(np.float32(upstream)))]


def relaxed(x: float, i: float, f: float, signed: bool, code: float) -> float:
    """The quantizer of real bits, whose rounding has the slope 1 around `code`."""
    low, high = (-(2.0**i) if signed else 0.0), 2.0**i - 2.0**-f
    if not low <= x <= high:
        return low if x < low else high
    return (code + x * 2.0**f - x * 2.0 ** round(f)) * 2.0**-f


@pytest.mark.parametrize("signed", [True, False])
def test_gradients_are_those_of_the_formulas(signed: bool) -> None:
    container = FixedType(9 + signed, 4 + signed, signed, "RND", "SAT")
    rng = np.random.default_rng(0)
    shape = (50, 6)
    i, f = np.array([3.0, 2, 1, 0, 4, -1]), np.array([2.0, 5, 0, 3, -2, 3])
    x = rng.integers(-300, 300, shape) / 32 + 1 / 128  # on no limit of a range
    up = rng.normal(size=shape)
    found = gradients(x, i, f, container, up)
    q = ElementTypes.of(container, i, f, "y").quantize(x)
    low, high = (-(2.0**i) if signed else 0 * i), 2.0**i - 2.0**-f
    inside, above, below = (low <= x) & (x <= high), x > high, x < low
    assert inside.any() and above.any() and below.any()
    ln2 = np.log(2)
    expected = [
        up * inside,
        (up * ln2 * (above * 2.0**i + below * low)).sum(0),
        (up * ln2 * (inside * (x - q) + above * 2.0**-f)).sum(0),
    ]
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    # The same by differences.
    step = 1e-5
    for which, got in ((0, found[1]), (1, found[2])):
        for c in range(6):
            slope = 0.0
            for n in range(50):
                bits = [[i[c], f[c]], [i[c], f[c]]]
                bits[0][which] += step
                bits[1][which] -= step
                code = np.floor(x[n, c] * 2.0 ** f[c] + 0.5)
                ends = [relaxed(x[n, c], *b, signed, code) for b in bits]
                slope += up[n, c] * (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(got[c], slope, rtol=1e-3, atol=1e-3)


def test_gradients_are_summed_over_what_shares_bits() -> None:
    container = FixedType.parse(SIGNED)
    x, up = values(5) / 3, np.ones((5, *SHAPE))
    full = gradients(x, np.ones(SHAPE), np.full(SHAPE, 2), container, up)
    column = gradients(x, np.ones((1, 3)), np.full((1, 3), 2), container, up)
    one = gradients(x, 1.0, 2.0, container, up)
    assert np.array_equal(full[0], column[0]) and np.array_equal(full[0], one[0])
    for k in (1, 2):
        np.testing.assert_allclose(full[k].sum(0, keepdims=True), column[k], rtol=1e-5)
        np.testing.assert_allclose(full[k].sum(), one[k], rtol=1e-5)


def test_a_pruned_element_gives_nothing_and_may_come_back() -> None:
    container = FixedType.parse(SIGNED)
    x = np.array([[0.25], [-0.25], [7.0]])
    by_x, by_i, by_f = gradients(x, [0.0], [-1.0], container, np.ones_like(x))
    assert not by_x.any() and not by_i.any()
    np.testing.assert_allclose(by_f, np.log(2) * (0.25 - 0.25 + 1), rtol=1e-6)
    assert np.isnan(quantize_elements(tf.constant([[1.0]]), [np.nan], [1.0], container)).all()


def test_bits_are_trained() -> None:
    x = tf.keras.Input(SHAPE)
    model = tf.keras.Model(x, FixedActivation("linear", SIGNED, elements=True, name="y")(x))
    layer = model.get_layer("y")
    assert [w.name.split(":")[0] for w in layer.trainable_weights] == [
        "y/integer_bits",
        "y/fraction_bits",
    ]
    assert {float(v) for v in layer.integer_bits.numpy().ravel()} == {3.0}
    assert {float(v) for v in layer.fraction_bits.numpy().ravel()} == {4.0}
    layer.integer_bits.assign(np.ones(SHAPE))
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    data = values().astype(np.float32)
    model.fit(data, data, epochs=1, verbose=0)
    assert (layer.integer_bits.numpy() > 1.05).all()


# ---- RTL


@settings(QUICK, max_examples=15)
@given(element_types(), st.sampled_from(["linear", "relu"]))
def test_traced_equals_golden_and_nothing_is_wider(types: ElementTypes, function: str) -> None:
    """Alone, and before and after what layers do."""
    wide = FixedType(30, 15)
    rng = np.random.default_rng(1)
    dense = Dense(rng.integers(-8, 8, (3, 2)) / 8, np.array([0.5, -1]), wide, wide)
    tanh = DynamicTanh(
        0.7, 0.1, FixedType(6, 3, True, "RND", "SAT"), FixedType(8, 1, True, "RND", "SAT")
    )
    act = Operation(function, types.container, types)  # type: ignore[arg-type]
    x, given = symbols(SHAPE, [INPUT] * 3), values()
    widths = np.array([sum(v.kif) for v in np.asarray(act(x)).ravel()])
    assert (widths <= types.widths.ravel()).all()
    for made in (
        act,
        lambda v: dense(act(v)),
        lambda v: act(tanh(v)),
        lambda v: np.max(act(v), axis=-2),
        lambda v: act(v) + act(v[..., ::-1]),
        lambda v: np.einsum("...nc,...mc->...nm", act(v), act(v[..., ::-1])),
    ):
        logic = trace(x, made(x), optimize=False)
        expected = made(given).reshape(len(given), -1)
        assert np.array_equal(logic.predict(given.reshape(len(given), -1)), expected)


def test_a_rounded_table_is_one_table() -> None:
    """No adder, and no comparison with limits: the entries are rounded."""
    types = ElementTypes.of(
        FixedType.parse("ap_fixed<6,0,RND,SAT>"), np.zeros(SHAPE) - 1, np.full(SHAPE, 4), "y"
    )
    tanh = DynamicTanh(
        0.7, 0.1, FixedType(6, 3, True, "RND", "SAT"), FixedType(8, 1, True, "RND", "SAT")
    )
    x = symbols(SHAPE, [FixedType(6, 3)] * 3)
    for sign in (1, -1):
        y = Operation("linear", types.container, types)(sign * 0.5 * tanh(x))
        assert {v.opr for v in np.asarray(y).ravel()} == {"lookup"}
        assert {v._from[0].opr for v in np.asarray(y).ravel()} == {"new"}


@pytest.mark.parametrize("width", [1, 2])
def test_products_of_lanes_with_a_sign_and_no_more(width: int) -> None:
    """alkaid alone takes values -1 and 0 as addresses of a table that begins at 0."""
    kind = FixedType(width, 1)
    x, kernel = symbols((8,), [kind] * 8), np.arange(1.0, 17).reshape(8, 2) - 9
    given = np.random.default_rng(0).integers(-(2 ** (width - 1)), 2 ** (width - 1), (50, 8))
    given = given * kind.lsb
    logic = trace(x, np.einsum("...i,io->...o", x, kernel), optimize=False)
    assert np.array_equal(logic.predict(given), given @ kernel)


# ---- models


def model_of(types: ElementTypes, pool: bool = True) -> tf.keras.Model:
    """A dense layer, elements, and a dense layer; with a maximum over the particles, or without."""
    tf.keras.utils.set_random_seed(0)
    shape = types.integer_bits.shape
    x = tf.keras.Input(shape, name="particles")

    def dense(units: int, name: str) -> QDense:
        return QDense(units, kernel_quantizer=BITS, bias_quantizer=BITS, name=name)

    layer = layer_of(types, "relu", "hidden")
    y = layer(dense(shape[-1], "embed")(x))
    y = FixedActivation("linear", "ap_fixed<9,5,RND,SAT>", name="out")(dense(3, "second")(y))
    if pool:
        y = tf.keras.layers.GlobalMaxPooling1D(name="pool")(y)
    return tf.keras.Model(x, y)


def mapped(integer: Any, fraction: Any, container: str = SIGNED) -> ElementTypes:
    """Types for (particles, channels), of numbers of bits that are repeated over them."""
    i, f = np.broadcast_arrays(np.float64(integer), np.float64(fraction))
    return ElementTypes.of(FixedType.parse(container), i, f, "hidden")


BY_CHANNEL = mapped(np.tile([2, 0, 1], (5, 1)), [3, 0, 2])
BY_LANE = mapped(np.array([[2, 0, 1], [3, 1, -2]])[[0, 1, 0, 1, 0]], 2)
BY_PARTICLE = mapped(np.arange(5)[:, None] - 1, [2, 1, 0])


def test_the_graph_has_the_map(tmp_path: Path) -> None:
    """In the emitted C++, in keys, in weights, in what hls4ml saves; a tally counts by element."""
    model = model_of(BY_PARTICLE)
    graph = convert(model, INPUT, "m", tmp_path / "a").graph
    types = graph.node("hidden").operation.elements
    assert np.array_equal(types.integer_bits, BY_PARTICLE.integer_bits)
    assert np.array_equal(types.fraction_bits, BY_PARTICLE.fraction_bits)
    assert graph.node("hidden").output.type == FixedType.parse(SIGNED)

    x = values(shape=(5, 3))
    tally = Tally()
    run = graph.run([x], tally.observer)
    assert np.array_equal(run["pool"], model(x.astype(np.float32)))
    assert len(np.unique(run["pool"])) > 20
    (use,) = [t for t in tally.tensors() if t.name == "hidden.output"]
    relu = np.maximum(run["embed"], 0)
    assert use.overflowed == BY_PARTICLE.overflowed(relu).mean() > 0

    written = convert(model, INPUT, "m", tmp_path / "b")
    text = "".join(p.read_text() for p in write_project(written).glob("firmware/parameters.h"))
    widths = ", ".join(map(str, BY_PARTICLE.widths.ravel()))
    assert f"static constexpr int width[15] = {{{widths}}};" in text

    salt_hls.save_weights(model, tmp_path / "m.weights.h5")
    other = model_of(BY_CHANNEL)
    key = graph_digest(convert(other, INPUT, "m", tmp_path / "c").graph)
    assert key != graph_digest(graph)
    salt_hls.load_weights(other, tmp_path / "m.weights.h5")
    assert graph_digest(convert(other, INPUT, "m", tmp_path / "d").graph) == graph_digest(graph)

    written.hls4ml.save(str(tmp_path / "m.fml"))
    loaded = hls4ml.converters.load_saved_model(str(tmp_path / "m.fml"))
    assert graph_digest(read_graph(loaded)) == graph_digest(graph)


@pytest.mark.parametrize(
    ("types", "lanes"), [(BY_CHANNEL, 1), (BY_CHANNEL, 2), (BY_LANE, 2), (BY_PARTICLE, 5)]
)
def test_streams(types: ElementTypes, lanes: int, tmp_path: Path) -> None:
    """The units of the streaming RTL; for one of them the C++ of the other flavour as well."""
    model, x = model_of(types), values(shape=(5, 3))
    made = convert(
        model, INPUT, "m", tmp_path / "m", "Vivado", io_type="io_stream", particles_per_clock=lanes
    )
    expected = model(x.astype(np.float32)).numpy()
    assert len(np.unique(expected)) > 20
    design = design_of(made.graph)
    padded = np.full((len(x), design.units[0].steps * lanes, 3), INPUT.max)
    padded[:, :5] = x
    tokens = padded.reshape(len(x), design.units[0].steps, -1)
    assert np.array_equal(execute(design, tokens), expected)
    if types is BY_LANE:
        made.hls4ml.write()
        script = tmp_path / "m/build_lib.sh"
        script.write_text(script.read_text().replace("-O3", "-O0"))
        made.hls4ml._compile()
        assert np.array_equal(made.hls4ml.predict(x.astype(np.float32)), expected)


def test_what_waits_in_a_fifo_is_as_narrow_as_its_elements(tmp_path: Path) -> None:
    """Elements that a later unit reads, beside those that pass through a window."""
    x = tf.keras.Input((5, 4), name="particles")
    types = mapped(np.array([[2, 0, 1, 3], [3, 1, -2, -1]])[[0, 1, 0, 1, 0]], 2)
    hidden = layer_of(types, "relu", "hidden")(x)
    kind = "ap_fixed<8,4,RND,SAT>"
    filtered = HeadFilter(2, (3,), BITS, kind, name="filter")(hidden)
    tf.keras.utils.set_random_seed(0)
    y = tf.keras.layers.Add(name="sum")([hidden, filtered])
    y = tf.keras.layers.GlobalMaxPooling1D(name="pool")(y)
    model, x = tf.keras.Model(x, y), values(shape=(5, 4))
    graph = convert(model, INPUT, "m", tmp_path, io_type="io_stream", particles_per_clock=2).graph
    design = design_of(graph)
    assert len(design.units) > 1
    expected = model(x.astype(np.float32)).numpy()
    padded = np.pad(x, ((0, 0), (0, 1), (0, 0))).reshape(len(x), 3, -1)
    assert np.array_equal(execute(design, padded), expected)
    feeds = [feed for unit in design.units[1:] for feed in unit.feeds.values()]
    narrow = [feed for feed in feeds if type(feed) is Read and feed.type == INPUT]
    assert narrow
    for feed in narrow:
        given = symbols(feed.shape, [feed.type] * feed.shape[-1])
        found = np.array([sum(v.kif) for v in np.asarray(feed.narrow(given)).ravel()])
        assert found.tolist() == types.widths[:2].ravel().tolist()


@pytest.mark.parametrize(("types", "lanes"), [(BY_LANE, 1), (BY_PARTICLE, 2), (BY_LANE, 3)])
def test_particles_of_a_lane_have_one_map(types: ElementTypes, lanes: int, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        convert(
            model_of(types), INPUT, "m", tmp_path, io_type="io_stream", particles_per_clock=lanes
        )
    assert str(error.value) == (
        "layer hidden: widths differ among the particles of a lane; train it with widths per "
        "channel (io_stream), or use io_parallel"
    )


def test_rtl_of_a_model(tmp_path: Path) -> None:
    model, x = model_of(BY_PARTICLE, pool=False), values(shape=(5, 3))
    graph = convert(model, INPUT, "m", tmp_path).graph
    assert np.array_equal(traced(graph, x), golden(graph, x))
    assert np.array_equal(golden(graph, x).reshape(-1, 5, 3), model(x.astype(np.float32)))


@pytest.mark.slow
def test_verilog_of_elements(tmp_path: Path) -> None:
    """Pruned ones leave the model, too."""
    x = tf.keras.Input((5, 3), name="particles")
    model = tf.keras.Model(x, layer_of(BY_PARTICLE)(x))
    graph, inputs = convert(model, INPUT, "m", tmp_path / "m").graph, values(shape=(5, 3))
    project = generate(graph, tmp_path / "rtl", clock_ns=5)
    found = simulate(project, inputs, tmp_path / "cache").outputs.reshape(-1, 5, 3)
    assert np.array_equal(found, model(inputs.astype(np.float32)))


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"output_type": None}, ("elements need an output_type",)),
        ({"output_type": "ap_fixed<8,4>"}, ("ap_fixed<8,4>", "give ap_fixed<8,4,AP_RND,AP_SAT>")),
        ({"output_type": "ap_fixed<8,4,RND_CONV,SAT>"}, ("RND_CONV", "SAT")),
        ({"output_type": "ap_fixed<8,4,RND,SAT_SYM>"}, ("SAT_SYM",)),
        ({"output_type": SIGNED, "elements": "yes"}, ("elements must be true or false",)),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        FixedActivation(**{"elements": True, "name": "y", **arguments})
    assert all(word in str(error.value) for word in ("layer y:", *words))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("weight", "value", "words"),
    [
        ("integer_bits", np.nan, "weight integer_bits holds NaN or infinity"),
        ("fraction_bits", -np.inf, "weight fraction_bits holds NaN or infinity"),
        ("integer_bits", -99, "every element is pruned"),
    ],
)
def test_refused_bits(weight: str, value: float, words: str, tmp_path: Path) -> None:
    model = model_of(BY_CHANNEL)
    bits = getattr(model.get_layer("hidden"), weight)
    bits.assign(np.full(bits.shape, value))
    with pytest.raises(UserError, match=f"^layer hidden: {words}[^\n]*$"):
        convert(model, INPUT, "m", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_input_of_unknown_shape_is_refused() -> None:
    with pytest.raises(UserError, match="layer y: elements need an input of known shape"):
        FixedActivation("linear", SIGNED, elements=True, name="y")(tf.keras.Input((None, 3)))


def test_a_configuration_from_before_has_no_elements() -> None:
    config = FixedActivation("linear", SIGNED, name="y").get_config()
    del config["elements"]
    assert FixedActivation.from_config(config).elements is False
    assert Operation.from_keras(config, [SHAPE], lambda *_: np.zeros(0)).elements is None
