"""Signs of failure that `diagnose` must see, and must not see where there are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from salt_hls.check.diagnose import Diagnosis, OrderAccuracy, diagnose, warnings_of
from salt_hls.check.tally import HeadUse, Tally, TensorUse
from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType, Table
from salt_hls.models.build import build_model
from salt_hls.models.weights import load_weights, save_weights

Make = Callable[..., Path]


def used(name: str, to: str, exact: Any) -> TensorUse:
    tally = Tally()
    for part in np.array_split(np.asarray(exact, float), 2):  # counts add up over batches
        tally.observer("layer").rounded(name, FixedType.parse(to), part)
    (use,) = tally.tensors()
    return use


@pytest.mark.parametrize(
    ("to", "exact", "expected"),
    [
        ("ap_fixed<4,4,RND,SAT>", [-8, 7, 9, 1.4], {"at_min": 0.25, "overflowed": 0.25}),
        ("ap_fixed<4,4,RND,SAT>", [-8, 7, 9, 1.4], {"at_max": 0.5}),
        ("ap_fixed<4,4,RND,SAT>", [-8, 7.4, 7, 1], {"at_max": 0.5, "overflowed": 0}),
        ("ap_fixed<4,4>", [9, 1, 2, -8], {"overflowed": 0.25}),
        ("ap_fixed<4,4>", [3, 1, -4, 2], {"unused_high_bits": 1, "unused_low_bits": 0}),
        ("ap_fixed<4,4>", [3, 1, -5, 2], {"unused_high_bits": 0}),
        ("ap_fixed<4,4>", [4, 4, -8, 0], {"unused_low_bits": 2, "constant": False}),
        ("ap_ufixed<8,4,RND,SAT>", [1, 2, 3, 0.5], {"unused_high_bits": 2, "unused_low_bits": 3}),
        ("ap_fixed<4,4>", [0, 0, 0, 0], {"constant": True, "unused_low_bits": 4}),
    ],
)  # fmt: skip
def test_use_of_a_type(to: str, exact: list[float], expected: dict[str, float]) -> None:
    use = used("sum", to, exact)
    assert use.name == "layer.sum" and use.values == 4
    assert {key: getattr(use, key) for key in expected} == expected


def test_entries_never_looked_up() -> None:
    grid = FixedType(3, 3, signed=False)
    table = Table(grid, FixedType(8, 4), 0.0, np.arange(8.0))
    tally = Tally()
    for argument in ([0.0, 1.0], [1.0, 6.0]):
        got = tally.observer("tanh").looked_up("output", table, np.array(argument))
        assert got.tolist() == argument
    (use,) = tally.tables()
    assert (use.name, use.entries, use.dead, use.dead_share) == ("tanh.output", 8, 5, 0.625)
    assert tally.tensors()[0].overflowed is None


def test_attention_of_heads() -> None:
    tally = Tally()
    weights = np.zeros((2, 2, 3, 4))  # jets, heads, particles, partitions
    weights[:, 0, :, 1] = 1
    weights[:, 1] = 0.25
    for part in weights[:, None]:
        tally.observer("att").rounded("attention", FixedType(8, 1, signed=False), part)
    first, second = tally.heads()
    assert first.weights == [0, 1, 0, 0] and first.spread == 1
    assert second.weights == [0.25] * 4 and second.spread == 0


def finding(**changes: Any) -> Diagnosis:
    sound = {
        "orders": [("kt", 0.7, 0.0), ("pt", 0.6, -0.1), ("shuffled", 0.5, -0.2)],
        "heads": [([0.4, 0.6], 0.3)],
        "tensors": [{}],
    }
    values = {**sound, **changes}
    tensor = {
        "name": "t", "type": "ap_fixed<8,4,AP_RND,AP_SAT>", "values": 100, "at_min": 0,
        "at_max": 0, "overflowed": 0.005, "unused_high_bits": 0, "unused_low_bits": 0,
        "constant": False,
    }  # fmt: skip
    return Diagnosis(
        model="m",
        jets=100,
        configured_order="kt",
        orders=[
            OrderAccuracy(order=o, accuracy=a, difference=d, error=0.01)
            for o, a, d in values["orders"]
        ],
        heads=[HeadUse(layer="a", head=0, weights=w, spread=s) for w, s in values["heads"]],
        tensors=[TensorUse.model_validate({**tensor, **t}) for t in values["tensors"]],
        tables=[],
        warnings=[],
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"orders": [("kt", 0.7, 0), ("pt", 0.74, 0.04)]}, "order pt is better"),
        ({"orders": [("kt", 0.7, 0), ("pt", 0.72, 0.02)]}, None),
        ({"orders": [("kt", 0.7, 0), ("shuffled", 0.69, -0.01)]}, "partitions mean nothing"),
        ({"heads": [([0.03, 0.97], 0.9)]}, "ignores all partitions but 1 .97%"),
        ({"heads": [([0.5, 0.5], 0.01)]}, "uniform"),
        ({"heads": [([1.0], 0.0)]}, None),
        ({"tensors": [{"overflowed": 0.02}]}, "saturates in 2.0%"),
        ({"tensors": [{"type": "ap_fixed<8,4>"}]}, "wraps around in 0.500%"),
        ({"tensors": [{"constant": True, "unused_high_bits": 7}]}, "always the same value"),
        ({"tensors": [{"unused_high_bits": 2}]}, "never uses its 2 highest"),
    ],
)  # fmt: skip
def test_warnings(changes: dict[str, Any], expected: str | None) -> None:
    lines = warnings_of(finding(**changes))
    assert len(lines) == (expected is not None)
    if expected:
        with pytest.raises(UserError, match=expected):
            raise UserError(lines[0])


@pytest.mark.usefixtures("few_jets")
def test_diagnosis_of_a_model(small_model: Make, tmp_path: Path) -> None:
    """A bad model: a sum that wraps and a head whose keys are zero."""
    types = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())["types"]
    types["query"] = "ap_fixed<4,1>"
    path = small_model(types=types)
    model = build_model(load_yaml(path, ModelConfig), quantized=True)
    weights = path.with_name("small.weights.h5")
    load_weights(model, weights)
    kernel = model.get_layer("block1_key").kernel
    kernel.assign(kernel * np.array([0, 1])[:, None, None])  # head 0
    save_weights(model, weights)

    result = diagnose(str(path), tmp_path / "build", None, lambda *state: None)
    folder = tmp_path / "build" / "small" / "diagnose"
    assert Diagnosis.model_validate_json((folder / "diagnose.json").read_text()) == result
    assert (folder / "diagnose.png").stat().st_size > 10_000
    assert sorted(p.name for p in folder.iterdir()) == ["diagnose.json", "diagnose.png"]
    assert result.jets == 300 and [o.order for o in result.orders][0] == "kt"
    assert {o.order for o in result.orders} == {"kt", "pt", "delta_r", "shuffled"}
    assert all(o.error > 0 for o in result.orders[1:]), "every order is decided as the first"
    names = {t.name for t in result.tensors}
    inner = ("logits", "conv", "exp", "sum", "reciprocal", "attention", "output")
    assert {f"block1_attention.{t}" for t in inner} | {"input.pt", "logits.output"} <= names
    tables = ["block1_attention.exp", "block1_attention.reciprocal"]
    assert [t.name for t in result.tables] == [
        *tables,
        "block1_tanh1.output",
        "block1_tanh2.output",
    ]
    assert result.heads[0].spread < 0.01 < result.heads[1].spread
    assert result.heads[0].weights == pytest.approx([0.5, 0.5], abs=0.01)
    said = "\n".join(result.warnings)
    assert "block1_attention, head 0 is uniform" in said and "head 1 is uniform" not in said
    assert "block1_query_fixed.output (ap_fixed<4,1>) wraps around" in said
    jets = MODELS / "sample.h5"  # a tenth of every class is tested
    cut = diagnose(str(path), tmp_path / "build", jets, lambda *state: None)
    assert cut.jets == 601 and "no test set among the files" in "".join(cut.warnings)


def test_jets_of_other_classes_are_refused(small_model: Make, tmp_path: Path) -> None:
    path = small_model(classes=3)
    with pytest.raises(UserError, match="classes is 3, but the shipped jets .* have 5"):
        diagnose(str(path), tmp_path, None, lambda *state: None)
