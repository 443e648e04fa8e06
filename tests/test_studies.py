"""Rivals and ablations: what is trained, what is compared, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.jets.dataset import JetSet
from salt_hls.models.build import build_model
from salt_hls.studies import compare, run
from salt_hls.studies.compare import Estimate, judge, row_results
from salt_hls.studies.pairwise import PairwiseBias, build_biased_model
from salt_hls.studies.render import BEGIN, END, render
from salt_hls.studies.run import read_samples, run_missing, smear_angles, train_run
from salt_hls.studies.study import Record, Results, Run, Study, Widths, load_study
from salt_hls.system.jobs import Runner
from salt_hls.system.paths import CHECKOUT as ROOT
from salt_hls.system.progress import Progress

SMALL = {"particles": 6, "partitions": 2, "width": 4, "heads": 2, "feed_forward": 4}
PHASE = {"batch": 50, "epochs": 1, "patience": 1, "learning_rate": 0.01}
ROWS: dict[str, Any] = {
    "base": {"group": "all", "what": "the base", "against": None, "seeds": 2},
    "dense": {
        "group": "all",
        "what": "dense projections",
        "expect": "worse",
        "seeds": 1,
        "changes": {"keys": "dense", "values": "dense"},
    },
    "bounded": {"group": "all", "what": "in range", "bounded": True, "seeds": 1},
    "narrow": {
        "group": "all",
        "what": "4 and 6 bits",
        "against": "bounded",
        "seeds": 1,
        "widths": {"weights": 4, "activations": 6},
    },
    "biased": {
        "group": "all",
        "what": "noise and bias",
        "seeds": 1,
        "noise": 0.1,
        "pairwise_bias": True,
        "changes": {"inputs": {"order": "pt"}},
    },
}


def write_study(folder: Path, **changes: Any) -> Path:
    base = yaml.safe_load((MODELS / "salt_p4_n16.yaml").read_text())
    training = {"float_phases": [PHASE], "quantized_phases": [PHASE]}
    content = {
        "training_jets": 200,
        "validation_jets": 60,
        "margin": 0.003,
        "base": {**base, **SMALL, "training": training},
        "groups": {"all": "All rows"},
        "rows": ROWS,
        **changes,
    }
    path = folder / "docs" / "results" / "study.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    jets = JetSet.read(MODELS / "sample.h5", slice(0, 500))
    for split, rows in (
        ("train", slice(0, 200)),
        ("validation", slice(200, 300)),
        ("test", slice(300, 500)),
    ):
        jets[rows].write(tmp_path / f"{split}.h5")
    return tmp_path


def silent(*_: Any) -> None:
    pass


class Stopped(Exception):
    pass


def test_the_shipped_study_answers_its_questions() -> None:
    path = ROOT / "docs" / "results" / "ablations.yaml"
    study = load_study(path)
    settings = [r.settings for r in study.runs()]
    assert len({s.key for s in settings}) == len(settings)
    assert {s.model.particles for s in settings} == {16, 32, 64, 150}
    assert {s.model.partitions for s in settings} == {2, 4, 8, 16}
    orders = {s.model.inputs.order for s in settings}
    assert orders == {"kt", "pt", "delta_r", "shuffled", "lund"}
    assert all(r.seeds >= 3 for r in study.rows.values() if r.expect)
    assert [r.row for r in study.runs()[:3]] == ["base", "linformer", "full"]
    for record in Results(path).records().values():
        assert Results(path).correct(record).mean() == pytest.approx(record.accuracy)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_runs_are_trained_once_shared_and_compared(data: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    study, results = load_study(path), Results(path)
    runs = study.runs()
    assert [r.name for r in runs] == [
        "base-1", "dense-1", "bounded-1", "narrow-1", "biased-1", "base-2",
    ]  # fmt: skip
    calls: list[tuple[int, int]] = []
    work = tmp_path / "work"
    with Runner(1) as runner:
        made = run_missing(
            results, runs[:1], data, work, runner, lambda t, d, n: calls.append((d, n))
        )
    assert made == 1 and calls[0] == (0, 1) and calls[-1] == (1, 1)
    assert run_missing(results, runs[:1], data, work, Runner(1), silent) == 0
    assert run_missing(results, runs[:1], tmp_path / "nowhere", work, Runner(1), silent) == 0

    jets = results.records()["base-1"].jets
    steps: list[Progress] = []
    for r in runs[1:]:
        steps.clear()
        results.add(*train_run(r, data, work, jets, steps.append))
        if r.row == "narrow":
            assert {s.stage for s in steps} == {"quantized"}, "the float weights are not shared"
    records = results.records()
    assert len(records) == 6
    assert records["biased-1"].settings["noise"] == 0.1
    assert records["dense-1"].parameters > records["base-1"].parameters
    hits = [results.correct(records[f"base-{s}"]) for s in (1, 2)]
    assert not np.array_equal(hits[0], hits[1])

    found = row_results(study, results)
    assert found["base"].accuracy.mean == pytest.approx(np.mean(hits))
    expected = results.correct(records["dense-1"]).mean() - hits[0].mean()
    assert found["dense"].difference is not None
    assert found["dense"].difference.mean == pytest.approx(expected)
    assert found["dense"].verdict == "cannot be decided" and found["base"].verdict is None

    document = path.parent.with_suffix(".md")
    document.write_text("# Title\n\nkept above\n")
    for _ in range(2):
        written = render(study, results, document)
    text = document.read_text()
    assert text.startswith("# Title\n\nkept above\n") and text.count(BEGIN) == text.count(END) == 1
    assert f"| `dense` | dense projections | 1 | {100 * records['dense-1'].accuracy:.2f} ±" in text
    assert all(p.stat().st_size > 1000 for p in written[1:])
    document.write_text(text + "kept below\n")
    render(study, results, document)
    assert document.read_text().endswith(f"{END}\nkept below\n")

    steps.clear()
    train_run(runs[1], data, work, "other jets", steps.append)
    assert {s.stage for s in steps} == {"float"}, "weights of other jets are not this run's"

    # Other settings, or other jets, make the old results those of another study.
    other = load_study(write_study(tmp_path, training_jets=150))
    assert [r.name for r in results.missing(other.runs(["dense"]), jets)] == ["dense-1"]
    assert results.missing(runs, jets) == [] and len(results.missing(runs, "others")) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_an_interrupted_run_continues(data: Path, tmp_path: Path) -> None:
    phases = {
        "float_phases": [{**PHASE, "epochs": 2}],
        "quantized_phases": [{**PHASE, "epochs": 2}],
    }
    rows = {**ROWS, "narrow": {**ROWS["narrow"], "changes": {"training": phases}}}
    narrow = load_study(write_study(tmp_path, rows=rows)).runs(["narrow"])[0]
    whole, hits = train_run(narrow, data, tmp_path / "whole", "", silent)
    seen: list[tuple[str, int]] = []

    def stop(step: Progress) -> None:
        seen.append((step.stage, step.epoch))
        if seen.count((step.stage, step.epoch)) == 1 and step.epoch == 2:
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            train_run(narrow, data, tmp_path / "parts", "", stop)
    resumed, again = train_run(narrow, data, tmp_path / "parts", "", stop)
    assert seen.count(("float", 1)) == 4 and seen.count(("quantized", 1)) == 4  # 200 / 50 steps
    assert np.mean(hits != again) < 0.02  # float32 sums in threads of any order
    assert resumed.settings == whole.settings


def fake(folder: Path, rows: dict[str, list[np.ndarray]], **changes: Any) -> dict[str, Any]:
    """Results of runs as if trained: a list of correctness, one for each seed."""
    shown = {n: {"seeds": 3, **ROWS.get(n, ROWS["dense"])} for n in rows}
    path = write_study(folder, rows={n: {**r, "seeds": 3} for n, r in shown.items()}, **changes)
    study, results = load_study(path), Results(path)
    for name, seeds in rows.items():
        for seed, correct in enumerate(seeds, 1):
            add(results, study.runs([name])[0], seed, correct, study)
    return row_results(study, results)


def add(results: Results, r: Run, seed: int, correct: np.ndarray, study: Study) -> None:
    record = Record(
        row=r.row, seed=seed, settings={}, key=study.settings(r.row, seed).key, jets="same",
        test_jets=len(correct), accuracy=correct.mean(), auc={"mean": 0.9}, parameters=10,
        cpu_seconds=1,
    )  # fmt: skip
    results.add(record, correct)


def test_pairing_sees_what_two_accuracies_do_not(tmp_path: Path) -> None:
    """A row that loses 1 % of the jets and gains none differs, though each accuracy is uncertain
    by more than that; one that differs as much in other jets does not."""
    rng = np.random.default_rng(0)
    base = [rng.random(1000) < 0.7] * 3
    worse = base[0].copy()
    worse[np.flatnonzero(worse)[:10]] = False
    found = fake(tmp_path / "a", {"base": base, "dense": [worse] * 3})
    assert found["base"].accuracy.error > 0.014
    assert found["dense"].difference == Estimate(
        pytest.approx(-0.01), pytest.approx(0.00315, abs=1e-4), 3
    )
    assert found["dense"].verdict == "holds"
    found = fake(tmp_path / "fewer", {"base": base[:2], "dense": [worse] * 3})
    assert found["dense"].difference.seeds == 2  # those that both have
    unrelated = np.roll(worse, 1)
    found = fake(tmp_path / "b", {"base": base, "dense": [unrelated] * 3})
    assert found["dense"].difference.error > 0.015
    assert found["dense"].verdict == "cannot be decided"


def test_the_spread_of_seeds_is_an_error_of_every_row(tmp_path: Path) -> None:
    def hits(number: int) -> np.ndarray:
        return np.arange(1000) < number

    steady = {"base": [hits(700)] * 3, "dense": [hits(690)] * 3}
    alone = fake(tmp_path / "a", steady)["dense"].difference
    spread = {**steady, "bounded": [hits(n) for n in (670, 700, 730)]}
    found = fake(tmp_path / "b", spread)
    variance = 0.03**2
    bounded, dense = found["bounded"].difference, found["dense"].difference
    assert bounded.error >= (variance / 3) ** 0.5  # its own
    middle = variance / (1 - 1 / 9) ** 3 / 2  # of two rows, the other one without spread
    assert dense.error == pytest.approx((alone.error**2 + middle / 3) ** 0.5, rel=1e-3)
    wild = {**steady, "bounded": spread["bounded"], "linformer": [hits(690)] * 3}
    assert fake(tmp_path / "c", wild)["dense"].difference.error == alone.error


@pytest.mark.parametrize(
    ("mean", "error", "expect", "verdict"),
    [
        (-0.01, 0.002, "worse", "holds"),
        (-0.01, 0.006, "worse", "cannot be decided"),
        (0.00, 0.001, "worse", "does not hold"),
        (0.01, 0.002, "worse", "does not hold"),
        (0.01, 0.002, "better", "holds"),
        (0.00, 0.001, "better", "does not hold"),
        (0.00, 0.001, "same", "holds"),
        (0.01, 0.002, "same", "does not hold"),
        (0.00, 0.004, "same", "cannot be decided"),
        (0.002, 0.0004, "same", "holds"),
    ],
)
def test_verdicts(mean: float, error: float, expect: Any, verdict: str) -> None:
    assert judge(Estimate(mean, error, 3), expect, 0.003) == verdict
    too_few = Estimate(mean, error, compare.MIN_SEEDS - 1)
    assert judge(too_few, expect, 0.003) == "cannot be decided"


def test_noise_moves_angles_of_particles_only(data: Path, tmp_path: Path) -> None:
    jets = JetSet.read(data / "test.h5").constituents
    noisy = jets.copy()
    smear_angles(noisy, 0.1, np.random.default_rng(1))
    real = jets[..., 0] > 0
    assert np.array_equal(noisy[..., 0], jets[..., 0]) and not noisy[~real].any()
    assert np.std((noisy - jets)[real][:, 1:], axis=0) == pytest.approx([0.1, 0.1], rel=0.03)
    biased = load_study(write_study(tmp_path)).settings("biased", 1)
    exact = biased.model_copy(update={"noise": 0.0})
    first = read_samples(data, "test", biased)
    assert np.array_equal(first.inputs, read_samples(data, "test", biased).inputs)
    assert not np.array_equal(first.inputs, read_samples(data, "test", exact).inputs)
    assert len(read_samples(data, "train", exact, 150).labels) == 150


def test_blocks_make_no_difference(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_study(write_study(tmp_path)).settings("base", 1)
    whole = read_samples(data, "test", settings)
    monkeypatch.setattr(run, "BLOCK", 70)
    assert np.array_equal(read_samples(data, "test", settings).inputs, whole.inputs)
    assert len(whole.labels) == 200


def test_widths_change_widths_alone() -> None:
    types = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).types
    assert types is not None
    inside = types.attention.model_copy(update={"context": FixedType.parse("ap_fixed<10,6>")})
    types = types.model_copy(update={"attention": inside})
    narrow = Widths(weights=5, activations=7).types(types)
    assert {t.width for t in [*narrow.weights.values(), narrow.biases]} == {5}
    widths = {t.width for k, t in narrow.attention if k != "context"}
    assert widths == {7} == {narrow.embed.width, narrow.head.width}
    assert (narrow.output, narrow.attention.context) == (types.output, types.attention.context)
    assert narrow.attention.sum.overflow == types.attention.sum.overflow
    for (_, a), (_, b) in zip(narrow.attention, types.attention, strict=True):
        assert (a.int_bits, a.signed, a.rounding) == (b.int_bits, b.signed, b.rounding)


def test_pairwise_features() -> None:
    """Two partitions of two particles: logarithms by hand, padding 0."""
    inputs = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).inputs
    pt = np.array([3.0, 1.0, 7.0, 0.0])
    deta = np.array([0.25, 0.5, -0.25, 0.0])
    x = np.stack([np.log2(1 + pt) * inputs.pt.scale, deta * inputs.deta.scale, 0 * pt], axis=-1)
    features = PairwiseBias(2, 2, inputs).features(x[None].astype(np.float32)).numpy()[0]
    centre = (3 * 0.25 + 1 * 0.5) / 4
    distance = abs(-0.25 - centre)
    expected = [np.log(distance), np.log(4 * distance), np.log(4 / 11)]
    assert features[2, 0] == pytest.approx(expected, rel=1e-4)
    assert not features[3].any() and np.isfinite(features).all()


def test_the_bias_starts_as_sal_t_and_matters() -> None:
    config = load_yaml(MODELS / "salt_p4.yaml", ModelConfig)
    plain, biased = build_model(config, quantized=False), build_biased_model(config)
    shared = [layer.name for layer in plain.layers if layer.get_weights()]
    for name in shared:
        biased.get_layer(name).set_weights(plain.get_layer(name).get_weights())
    x = np.random.default_rng(1).normal(0, 2, (5, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(biased(x), plain(x), atol=1e-5)
    bias = biased.get_layer("block1_pairwise_bias")
    assert bias.trainable_variables
    bias.set_weights([w + 0.5 for w in bias.get_weights()])
    bias.heads.kernel.assign(np.random.default_rng(2).normal(0, 1, bias.heads.kernel.shape))
    assert np.abs(biased(x) - plain(x)).max() > 1e-3


def test_user_mistakes(data: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    study, results = load_study(path), Results(path)
    with pytest.raises(UserError, match="row 'bse': unknown; known: base, dense, bounded"):
        study.runs(["bse"])
    with pytest.raises(UserError, match="no results of this study yet"):
        render(study, results, path.parent.with_suffix(".md"))
    with pytest.raises(UserError, match="needs 300 jets, found 200"):
        run.fingerprint(data, 300, 60)
    with pytest.raises(UserError, match="no such jet file"):
        run_missing(results, study.runs(), tmp_path / "nowhere", tmp_path, Runner(1), silent)
    results.path.write_text("{")
    with pytest.raises(UserError, match="not the results of a study"):
        results.records()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"odd": {"against": "nothing"}}, "row odd: against unknown row 'nothing'"),
        ({"odd": {"group": "nowhere"}}, "row odd: unknown group 'nowhere'"),
        ({"odd": {"changes": {"partitons": 3}}}, "row odd: unknown key 'model.partitons'"),
        ({"odd": {"changes": {"types": None}, "bounded": True}}, "types: the key is missing"),
        ({"odd": {"pairwise_bias": True, "bounded": True}}, "pairwise_bias: float only"),
    ],
)
def test_faults_of_a_study(tmp_path: Path, rows: dict[str, Any], words: str) -> None:
    wrong = {name: {"group": "all", "what": "", **row} for name, row in rows.items()}
    with pytest.raises(UserError) as caught:
        load_study(write_study(tmp_path, rows={**ROWS, **wrong}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_lost_correctness_is_named(tmp_path: Path) -> None:
    fake(tmp_path, {"base": [np.ones(10, bool)] * 3})
    results = Results(tmp_path / "docs" / "results" / "study.yaml")
    (results.study.with_suffix("") / "base-2.npy").unlink()
    with pytest.raises(UserError, match="base-2.npy: missing or damaged"):
        row_results(load_study(results.study), results)


def test_runs_of_different_jets_are_not_compared(tmp_path: Path) -> None:
    fake(tmp_path, {"base": [np.ones(10, bool)] * 3})
    results = Results(tmp_path / "docs" / "results" / "study.yaml")
    text = json.loads(results.path.read_text())
    text["runs"][0]["jets"] = "others"
    results.path.write_text(json.dumps(text))
    with pytest.raises(UserError, match="different jets"):
        row_results(load_study(results.study), results)
