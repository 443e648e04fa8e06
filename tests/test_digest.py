"""Content keys: whatever a result depends on changes them, nothing else does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from salt_hls.fixed import FixedType
from salt_hls.graph import key as module
from salt_hls.graph.graph import Graph, Node
from salt_hls.graph.key import CODE, FIRMWARE_CODE, graph_digest
from salt_hls.graph.tensor import Tensor
from salt_hls.layers.standard import Activation, Clone, Dense, Reshape
from salt_hls.system.digest import digest
from salt_hls.system.paths import CHECKOUT as ROOT


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
    code = "from salt_hls.system.digest import digest; print(digest({*'abcde', None, 7}))"
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
    assert module._code("fixed.py", "hls/c*.py", without=("hls/convert.py",)) == sorted(
        [
            module.PACKAGE / "fixed.py",
            module.PACKAGE / "hls" / "csim.py",
            *module.HLS_TEMPLATES.glob("*.h"),
        ]
    )


def test_the_code_in_the_keys() -> None:
    def named(code: list[Path]) -> set[str]:
        assert all(path.is_file() for path in code)
        return {str(path.relative_to(ROOT)) for path in code}

    rtl, firmware = named(CODE), named(FIRMWARE_CODE)
    assert rtl < firmware
    assert {f"salt_hls/rtl/{n}" for n in ("testbench.cpp", "stream_fifo.v", "products.json")} <= rtl
    assert {"salt_hls/layers/conv_attention/operation.py", "salt_hls/fixed.py"} <= rtl
    assert {
        "salt_hls/jets/ordering.py",
        "salt_hls/jets/kinematics.py",
        "salt_hls/training/metrics.py",
        "salt_hls/hls/testbench.py",
        "hls_templates/nnet_tokens.h",
    } <= firmware
    assert not any(name.endswith("cases.py") for name in firmware)
    assert not firmware & {"salt_hls/cli/main.py", "salt_hls/training/train.py"}


X, Y = Tensor("x", (4, 3), FixedType(8, 3)), Tensor("y", (4, 2), FixedType(8, 4))
KERNEL = Dense(np.zeros((3, 2)), np.zeros(2), FixedType(16, 8), FixedType(8, 4))
NODE = Node("dense", "Dense", KERNEL, (X,), (Y,), True, "dense")
GRAPH = Graph((NODE,), (X,), (Y,), "io_parallel")


def of(**changes: Any) -> str:
    """The digest of a graph whose one node is changed."""
    return graph_digest(replace(GRAPH, nodes=(replace(NODE, **changes),)))


def test_everything_in_a_graph_counts() -> None:
    kernel, other = np.zeros((3, 2)), Tensor("x", (4, 3), FixedType(8, 2))
    kernel[2, 1] = 0.5
    keys = [
        graph_digest(GRAPH),
        of(name="other"),
        of(kind="Conv1D"),
        of(operation=None),
        of(operation=replace(KERNEL, kernel=kernel)),
        of(operation=replace(KERNEL, accum_type=FixedType(16, 9))),
        of(operation=replace(KERNEL, output_type=FixedType(8, 4, rounding="RND"))),
        of(inputs=(other,)),
        of(outputs=(replace(Y, lanes=2),)),
        of(traced=False),
        of(keras_layer="embed"),
        graph_digest(replace(GRAPH, nodes=(NODE, NODE))),
        graph_digest(replace(GRAPH, inputs=(other,))),
        graph_digest(replace(GRAPH, outputs=(X,))),
        graph_digest(replace(GRAPH, io_type="io_stream")),
    ]
    assert len(set(keys)) == len(keys)
    assert of() == of(operation=replace(KERNEL, kernel=np.zeros((3, 2)))) == keys[0]


def test_operations_of_other_kinds_differ() -> None:
    relu = FixedType(8, 4)
    assert of(operation=Clone(relu)) != of(operation=Reshape(2, (4, 2), relu))
    assert of(operation=Activation("relu", relu)) != of(operation=Activation("linear", relu))


def test_unknown_values_are_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be in a key"):
        of(operation=replace(KERNEL, bias=object()))


def test_the_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    (tmp_path / "fixed.py").write_text("other")
    monkeypatch.setattr(module, "CODE", [tmp_path / "fixed.py"])
    assert of() != before
