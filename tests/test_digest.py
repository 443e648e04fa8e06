"""Content keys: whatever a result depends on changes them, nothing else does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hls4ml.model.quantizers import BinaryQuantizer, TernaryQuantizer
from hls4ml.model.types import FixedPrecisionType, NamedType, PackedType, Source, TensorVariable

from salt_hls import digest as module
from salt_hls.digest import CODE, FIRMWARE_CODE, digest, graph_digest
from salt_hls.fixed import FixedType
from salt_hls.paths import CHECKOUT as ROOT


@dataclass
class Pair:
    left: Any
    right: Any


@dataclass
class Other:
    left: Any
    right: Any


@dataclass
class Renamed:
    left: Any
    middle: Any


class Colour(Enum):
    red = 1
    blue = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.int64(3), np.int64(4)),
        (np.float32(0.5), np.float32(0.25)),
        (np.bool_(True), np.bool_(False)),
        (np.int64(3), np.int32(3)),
        (3, 3.0),
        (1, True),
        (None, "None"),
        ("ab", b"ab"),
        (np.zeros(3), np.array([0, 0, 1.0])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(3), np.zeros(3, np.float32)),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(3, 2)),
        ([1, 2], (1, 2)),
        ([[1], 2], [[1, 2]]),
        (["a", "b"], ["ab"]),
        ([b"a", b"b"], [b"a;<bytes>1 b"]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({1, 2}, {1, 3}),
        (Pair(1, 2), Pair(2, 1)),
        (Pair(np.zeros(2), None), Pair(np.ones(2), None)),
        (Colour.red, Colour.blue),
        (FixedType.parse("ap_fixed<8,3>"), FixedType.parse("ap_fixed<8,3,RND>")),
    ],
)
def test_what_differs_has_another_key(one: Any, other: Any) -> None:
    assert digest(one) != digest(other) and digest(one) == digest(one)
    assert digest({"deep": [one]}) != digest({"deep": [other]})


DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 2, 1.0, 0.0, -0.0, 2.5, "", "1", "a", "b", b"", b"a", b"b",
    np.array([1, 2]), np.array([1, 3]), np.array([[1, 2]]), np.array([[1], [2]]),
    np.array([1, 2], np.int32), np.array([1.0, 2.0]), np.array([]), np.zeros((0, 2)),
    [], [1], [2], [1, 2], [2, 1], [[1], 2], [[1, 2]], (1, 2), ["ab"], ["a", "b"], [None],
    {}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 2}, {"a": {"b": 2}},
    Pair(1, 2), Pair(2, 1), Pair(1, [2]), Other(1, 2), Renamed(1, 2), Colour.red, Colour.blue,
    {1}, {2}, {1, 2}, set(), np.int64(1), np.int64(2), np.int32(1), np.float64(1),
    FixedType(8, 3), FixedType(8, 4), FixedType(8, 3, False), FixedType(8, 3, rounding="RND"),
]  # fmt: skip


def test_different_parts_have_different_keys() -> None:
    keys = [digest(part) for part in DIFFERENT]
    for (i, a), (j, b) in combinations(enumerate(keys), 2):
        assert a != b, f"{DIFFERENT[i]!r} and {DIFFERENT[j]!r}"
    assert digest(1, 2) != digest(12) and digest("a", "b") != digest("ab") != digest("b", "a")
    assert len(keys[0]) == hashlib.sha256().digest_size * 2


def test_every_value_of_an_array_counts() -> None:
    array = np.zeros((3, 4), np.float32)
    keys = {digest(array)}
    for place in np.ndindex(array.shape):
        changed = array.copy()
        changed[place] = 1e-30
        keys.add(digest(changed))
    assert len(keys) == 13


def test_views_count_by_their_values() -> None:
    values = np.arange(12).reshape(3, 4)
    assert digest(values[:, ::2]) == digest(values[:, ::2].copy())


def test_order_counts_only_where_there_is_one() -> None:
    assert digest({"a": 1, 2: "b"}) == digest({2: "b", "a": 1})
    code = "from salt_hls.digest import digest; print(digest({'a', 'b', 'c', 'd', 'e', None, 7}))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        SimpleNamespace(precision="ap_fixed<8,3>"),
        len,
        int,
        Pair,
        (i for i in range(3)),
        np.array([object()]),
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_content_is_refused(value: Any) -> None:
    for part in (value, [value], {"a": value}, Pair(value, 1)):
        with pytest.raises(TypeError, match="digest"):
            digest(part)


def test_files_count_by_name_and_content(tmp_path: Path) -> None:
    keys = set()
    for name, content in (("a", b"x"), ("a", b"y"), ("b", b"x"), ("a", b"x")):
        (tmp_path / name).write_bytes(content)
        keys.add(digest(tmp_path / name))
    assert len(keys) == 3


def test_all_that_a_build_imports_is_in_its_key() -> None:
    code = (
        "import sys, salt_hls.firmware.build\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'salt_hls'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {Path(name) for name in done.stdout.split()}
    assert len(imported) > 30
    assert {p for p in imported - {*FIRMWARE_CODE} if p.name != "cases.py"} == set()


def test_code_is_found_by_patterns() -> None:
    assert module._code("fixed.py", "firmware/c*.py", without=("firmware/convert.py",)) == sorted(
        [
            *(module.PACKAGE / name for name in ("fixed.py", "firmware/compare.py")),
            module.PACKAGE / "firmware" / "csim.py",
            *module.HLS_TEMPLATES.glob("*.h"),
        ]
    )


def test_the_code_in_the_keys() -> None:
    def named(code: list[Path]) -> set[str]:
        assert all(path.is_file() for path in code)
        return {str(path.relative_to(ROOT)) for path in code}

    rtl, firmware = named(CODE), named(FIRMWARE_CODE)
    assert rtl < firmware
    assert {"salt_hls/rtl/testbench.cpp", "salt_hls/rtl/stream_fifo.v"} <= rtl
    assert {"salt_hls/layers/conv_attention/arithmetic.py", "salt_hls/fixed.py"} <= rtl
    assert {
        "salt_hls/jets/ordering.py",
        "salt_hls/jets/kinematics.py",
        "salt_hls/training/metrics.py",
        "salt_hls/vendor/testbench.py",
        "hls_templates/nnet_tokens.h",
    } <= firmware
    assert not any(name.endswith("cases.py") for name in firmware)
    assert not firmware & {"salt_hls/cli.py", "salt_hls/training/train.py"}


def graph(**attributes: Any) -> Any:
    """A graph of one layer as hls4ml has it, of what `graph_digest` looks at."""
    weights = SimpleNamespace(
        data=attributes.pop("data", np.zeros(3)), type=NamedType("w_t", FixedPrecisionType(6, 2))
    )
    variable = TensorVariable([4, 3], precision=FixedPrecisionType(8, 3), index=1)
    node = SimpleNamespace(
        name="dense",
        class_name="Dense",
        inputs=["x"],
        outputs=["dense"],
        get_output_variable=lambda: variable,
        weights={"weight": weights},
        attributes=attributes,
    )
    return SimpleNamespace(get_layers=lambda: [node], inputs=["x"], outputs=["dense"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data": np.zeros(3)}, {"data": np.array([0, 0, 0.5])}),
        ({"n": 3}, {"n": 4}),
        ({"n": np.int64(3)}, {"n": np.int64(4)}),
        ({"pad": {"a": [1]}}, {"pad": {"a": [2]}}),
        ({"t": FixedPrecisionType(8, 3)}, {"t": FixedPrecisionType(8, 3, rounding_mode="RND")}),
        (
            {"t": NamedType("t", FixedPrecisionType(8, 3))},
            {"t": NamedType("t", FixedPrecisionType(8, 4))},
        ),
        (
            {"t": PackedType("t", FixedPrecisionType(8, 3), 3, 1)},
            {"t": PackedType("t", FixedPrecisionType(8, 3), 3, 2)},
        ),
        (
            {"v": TensorVariable([3], precision=FixedPrecisionType(8, 3), index=1)},
            {"v": TensorVariable([4], precision=FixedPrecisionType(8, 3), index=1)},
        ),
        ({"code": Source("a")}, {"code": Source("b")}),
        ({"quantizer": BinaryQuantizer(1)}, {"quantizer": TernaryQuantizer()}),
        ({"arithmetic": Pair(np.zeros(2), 1)}, {"arithmetic": Pair(np.ones(2), 1)}),
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_attributes_of_layers_count(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert graph_digest(graph(**one)) != graph_digest(graph(**other))
    assert graph_digest(graph(**one)) == graph_digest(graph(**one))


def test_unknown_attributes_are_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be in a key"):
        graph_digest(graph(secret=object()))


def node(**changes: Any) -> Any:
    """A layer as hls4ml has it, of what `graph_digest` looks at."""
    given = {
        "name": "dense", "class_name": "Dense", "inputs": ["x"], "outputs": ["y"],
        "shape": [4, 3], "precision": FixedPrecisionType(8, 3), "weight": np.zeros(3),
        "weight_name": "w", "weight_type": FixedPrecisionType(6, 2), "attributes": {"n": 3},
    } | changes  # fmt: skip
    weights = SimpleNamespace(data=given["weight"], type=NamedType("w_t", given["weight_type"]))
    variable = TensorVariable(given["shape"], precision=given["precision"], index=1)
    return SimpleNamespace(
        **{key: given[key] for key in ("name", "class_name", "inputs", "outputs", "attributes")},
        get_output_variable=lambda: variable,
        weights={given["weight_name"]: weights} if given["weight_name"] else {},
    )


def of(*nodes: Any, inputs: Any = ("x",), outputs: Any = ("y",)) -> str:
    return graph_digest(
        SimpleNamespace(get_layers=lambda: nodes or (node(),), inputs=inputs, outputs=outputs)
    )


def test_everything_in_a_graph_counts() -> None:
    changes: list[dict[str, Any]] = [
        {"name": "other"}, {"class_name": "Activation"}, {"inputs": ["z"]}, {"outputs": ["z"]},
        {"shape": [3, 4]}, {"precision": FixedPrecisionType(8, 4)}, {"weight": np.ones(3)},
        {"weight_name": "v"}, {"weight_name": ""}, {"weight_type": FixedPrecisionType(6, 3)},
        {"attributes": {}}, {"attributes": {"n": 3, "m": None}}, {"attributes": {"n": "3"}},
    ]  # fmt: skip
    keys = [of(), *(of(node(**change)) for change in changes), of(node(), node())]
    keys += [of(inputs=("z",)), of(outputs=("z",))]
    assert len(set(keys)) == len(keys) and of() == keys[0]
    # Weights stand beside the attributes, and text in C++ follows from the rest.
    written = {"n": 3, "weight_data": object(), "function_cpp": object()}
    assert of(node(attributes=written)) == keys[0]


def test_the_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    (tmp_path / "fixed.py").write_text("other")
    monkeypatch.setattr(module, "CODE", [tmp_path / "fixed.py"])
    assert of() != before
