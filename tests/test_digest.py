"""Content keys: what differs has another key, what is the same has the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from salt_hls import digest as module
from salt_hls.digest import digest, graph_digest
from salt_hls.fixed import FixedType


@dataclass
class Pair:
    a: Any
    b: Any


@dataclass
class Other:
    a: Any
    b: Any


@dataclass
class Renamed:
    a: Any
    c: Any


DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 2, 1.0, 0.0, -0.0, 2.5, "", "1", "a", "b", b"", b"a", b"b",
    np.array([1, 2]), np.array([1, 3]), np.array([[1, 2]]), np.array([[1], [2]]),
    np.array([1, 2], np.int32), np.array([1.0, 2.0]), np.array([]), np.zeros((0, 2)),
    [], [1], [2], [1, 2], [2, 1], [[1], 2], [[1, 2]], (1, 2), ["ab"], ["a", "b"], [None],
    {}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 2}, {"a": {"b": 2}},
    Pair(1, 2), Pair(2, 1), Pair(1, [2]), Other(1, 2), Renamed(1, 2),
    FixedType(8, 3), FixedType(8, 4), FixedType(8, 3, False), FixedType(8, 3, rounding="RND"),
]  # fmt: skip


def test_different_parts_have_different_keys() -> None:
    keys = [digest(part) for part in DIFFERENT]
    for (i, a), (j, b) in combinations(enumerate(keys), 2):
        assert a != b, f"{DIFFERENT[i]!r} and {DIFFERENT[j]!r}"
    assert digest(1, 2) != digest(12) and digest("a", "b") != digest("ab") != digest("b", "a")
    assert len(keys[0]) == hashlib.sha256().digest_size * 2


def test_equal_parts_have_the_same_key() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Pair(1, "x")) == digest(Pair(1, "x"))
    table = np.arange(12).reshape(3, 4)
    assert digest(table.T) == digest(table.T.copy()) != digest(table)
    # The same in every process and on every machine: results are kept by it.
    assert (
        digest(1, "a", [None, 2.5])
        == hashlib.sha256(b"<int>1;<str>'a';<list><NoneType>None;<float>2.5;;").hexdigest()
    )


def test_every_value_of_an_array_counts() -> None:
    array = np.zeros((3, 4), np.float32)
    keys = {digest(array)}
    for place in np.ndindex(array.shape):
        changed = array.copy()
        changed[place] = 1e-30
        keys.add(digest(changed))
    assert len(keys) == 13


def test_a_path_counts_by_its_name_and_content(tmp_path: Path) -> None:
    def written(name: str, content: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return digest(path)

    first = written("a.txt", "one")
    assert first == written("elsewhere/a.txt", "one")
    assert len({first, written("a.txt", "two"), written("b.txt", "one"), digest("a.txt")}) == 4


# ---- graphs


def variable(shape: tuple[int, ...] = (4,), kind: str = "ap_fixed<8,3>") -> Any:
    return SimpleNamespace(shape=shape, type=SimpleNamespace(precision=kind))


def node(**changes: Any) -> Any:
    given = {
        "name": "dense", "class_name": "Dense", "inputs": ["x"], "outputs": ["y"],
        "output": variable(),
        "weights": {"w": SimpleNamespace(data=np.ones(3), type=SimpleNamespace(precision="p"))},
        "attributes": {"units": 3, "strategy": "latency", "none": None, "scale": 0.5},
    }  # fmt: skip
    given |= changes
    return SimpleNamespace(**given, get_output_variable=lambda: given["output"])


def graph(*nodes: Any, inputs: Any = ("x",), outputs: Any = ("y",)) -> Any:
    return SimpleNamespace(get_layers=lambda: nodes or (node(),), inputs=inputs, outputs=outputs)


@dataclass(frozen=True)
class Arithmetic:
    table: int


ATTRIBUTES = node().attributes
WEIGHT = node().weights["w"]

CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "class": {"class_name": "Activation"},
    "inputs": {"inputs": ["z"]},
    "outputs": {"outputs": ["z"]},
    "shape": {"output": variable((2, 2))},
    "type": {"output": variable(kind="ap_fixed<8,4>")},
    "weight": {"weights": {"w": SimpleNamespace(data=np.array([1, 1, 2.0]), type=WEIGHT.type)}},
    "type of weight": {
        "weights": {"w": SimpleNamespace(data=np.ones(3), type=SimpleNamespace(precision="q"))}
    },
    "name of weight": {"weights": {"v": WEIGHT}},
    "no weights": {"weights": {}},
    "number": {"attributes": {**ATTRIBUTES, "units": 4}},
    "text": {"attributes": {**ATTRIBUTES, "strategy": "resource"}},
    "fraction": {"attributes": {**ATTRIBUTES, "scale": 0.25}},
    "none": {"attributes": {**ATTRIBUTES, "none": 0}},
    "truth": {"attributes": {**ATTRIBUTES, "more": True}},
    "list": {"attributes": {**ATTRIBUTES, "more": [1]}},
    "other list": {"attributes": {**ATTRIBUTES, "more": [2]}},
    "tuple": {"attributes": {**ATTRIBUTES, "more": (1,)}},
    "array": {"attributes": {**ATTRIBUTES, "more": np.ones(2)}},
    "arithmetic": {"attributes": {**ATTRIBUTES, "arithmetic": Arithmetic(1)}},
    "other arithmetic": {"attributes": {**ATTRIBUTES, "arithmetic": Arithmetic(2)}},
    "precision": {"attributes": {**ATTRIBUTES, "t": SimpleNamespace(precision="a")}},
    "other precision": {"attributes": {**ATTRIBUTES, "t": SimpleNamespace(precision="b")}},
}


def test_everything_in_a_graph_counts() -> None:
    keys = {"as it is": graph_digest(graph())}
    keys |= {name: graph_digest(graph(node(**changes))) for name, changes in CHANGES.items()}
    keys["two"] = graph_digest(graph(node(), node()))
    keys["inputs of all"] = graph_digest(graph(inputs=("z",)))
    keys["outputs of all"] = graph_digest(graph(outputs=("z",)))
    for (a, first), (b, second) in combinations(keys.items(), 2):
        assert first != second, f"{a} and {b}"
    assert graph_digest(graph()) == keys["as it is"]


@pytest.mark.parametrize("name", ["weight_data", "function_cpp"])
def test_what_is_written_elsewhere_does_not_count(name: str) -> None:
    """hls4ml keeps the data of weights and generated code among the attributes."""
    with_it = graph(node(attributes={**ATTRIBUTES, name: "text", "object": object()}))
    assert graph_digest(with_it) == graph_digest(graph())


def test_the_code_and_alkaid_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_digest(graph())
    with monkeypatch.context() as changed:
        changed.setattr(module, "version", {"alkaid": "0.0"}.__getitem__)
        assert graph_digest(graph()) != before
    names = {path.relative_to(module.ROOT).as_posix() for path in module.CODE}
    assert {"salt_hls/fixed.py", "salt_hls/layers/conv_attention/arithmetic.py"} <= names
    (tmp_path / "fixed.py").write_text("other")
    monkeypatch.setattr(module, "CODE", [tmp_path / "fixed.py"])
    assert graph_digest(graph()) != before
