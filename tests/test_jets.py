"""Jets: ordering, grid, files, generator."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salt_hls.config import MODELS, Inputs, ModelConfig, Order, load_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.jets import generator
from salt_hls.jets.dataset import CLASSES, JET_COLUMNS, JetSet
from salt_hls.jets.declustering import clustering_sequence
from salt_hls.jets.ordering import ORDERS, order_particles, prepare, select_particles
from salt_hls.system.jobs import Runner

SAMPLE = MODELS / "sample.h5"
INPUTS: Inputs = load_yaml(MODELS / "salt_p4.yaml", ModelConfig).inputs

jets_strategy = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.just(3)),
    elements=st.floats(0, 100, width=16),
)


@pytest.mark.parametrize("order", ["kt", "pt", "delta_r"])
@given(jets=jets_strategy)
def test_order_is_descending_and_padding_last(order: str, jets: np.ndarray) -> None:
    ordered = order_particles(jets, order)
    pt, deta, dphi = (ordered[..., i].astype(float) for i in range(3))
    key = {
        "kt": pt * np.hypot(deta, dphi),
        "pt": pt,
        "delta_r": np.hypot(deta, dphi),
    }[order]
    for row_pt, row_key in zip(pt, key, strict=True):
        real = row_pt > 0
        assert not np.any(np.diff(real.astype(int)) > 0), "a particle follows padding"
        assert np.all(np.diff(row_key[real]) <= 1e-9 * row_key[real][:-1] if real.any() else True)
    for before, after in zip(jets, ordered, strict=True):
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))


def test_ties_keep_their_order() -> None:
    jet = np.array([[[2, 1, 0], [1, 2, 0], [4, 0.5, 0], [0, 0, 0]]], np.float32)
    assert order_particles(jet, "kt").tolist() == jet.tolist()


def test_unknown_order() -> None:
    with pytest.raises(UserError, match="random"):
        order_particles(np.zeros((1, 2, 3), np.float32), "random")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ORDERS)
def test_order_does_not_depend_on_how_jets_are_stored(order: Order) -> None:
    jets = JetSet.read(SAMPLE, slice(0, 300)).constituents[:, :32]
    jets = jets[[len(np.unique(j[j[:, 0] > 0, 0])) == np.sum(j[:, 0] > 0) for j in jets]]
    assert len(jets) > 200  # without equal pT, whose order may stay
    jets[0] = 0  # a jet without particles
    ordered = order_particles(jets, order)
    rng = np.random.default_rng(1)
    mixed = jets[:, rng.permutation(32)][::-1]
    assert np.array_equal(order_particles(mixed, order)[::-1], ordered)
    real = ordered[..., 0] > 0
    assert not np.any(np.diff(real.astype(int), axis=1) > 0), "a particle follows padding"
    assert sorted(map(tuple, ordered[1])) == sorted(map(tuple, jets[1]))


def test_shuffled_order_ignores_momenta() -> None:
    """Each place has particles of every rank in pT, and each jet its own order."""
    jets = JetSet.read(SAMPLE, slice(0, 2000)).constituents[:, :20]
    pt = order_particles(jets[np.all(jets[..., 0] > 0, axis=1)], "shuffled")[..., 0]
    ranks = np.argsort(np.argsort(-pt, axis=1), axis=1)
    assert ranks.mean(axis=0) == pytest.approx([9.5] * 20, abs=0.6)
    assert ranks.std(axis=0) == pytest.approx([5.77] * 20, abs=0.3)
    assert len(np.unique(ranks, axis=0)) == len(ranks)


def test_clustering_sequence_by_hand() -> None:
    """Two prongs of two particles, and one soft particle at a wide angle."""
    names = {"wide": (2, 0.7, 0.1), "a": (50, 0.2, 0), "b": (10, 0.25, 0), "c": (30, -0.2, 0)}
    jet = np.array([[*names.values(), (20, -0.2, 0.02), (0, 0, 0)]], np.float32)
    # Undone: wide | rest; (c d) | (a b), which holds the hardest; d | c; b | a.
    assert clustering_sequence(jet).tolist() == [[0, 4, 3, 2, 1, 6]]
    assert order_particles(jet, "lund")[0, :, 0].tolist() == [2, 20, 30, 10, 50, 0]


def test_selection_takes_the_hardest_and_pads() -> None:
    jet = np.array([[[1, 0.1, 0], [5, 0.2, 0], [3, 0.3, 0]]], np.float32)
    assert select_particles(jet, 2)[..., 0].tolist() == [[5, 3]]
    assert select_particles(jet, 5)[..., 0].tolist() == [[5, 3, 1, 0, 0]]


def test_grid_of_the_sample() -> None:
    jets = JetSet.read(SAMPLE, slice(0, 500))
    x = prepare(jets.constituents, 32, INPUTS)
    assert x.shape == (500, 32, 3)
    for i, feature in enumerate(INPUTS.features):
        assert feature.type.contains(x[..., i])
        assert INPUTS.container.contains(x[..., i])
        assert len(np.unique(x[..., i])) > 100
    coarse = replace(INPUTS.pt.type, width=4)
    assert not coarse.contains(x[..., 0])


@pytest.mark.parametrize(
    ("pt", "deta", "container"),
    [
        # The widest range is unsigned: the container's sign costs one more bit.
        ("ap_ufixed<8,5>", "ap_fixed<9,4>", "ap_fixed<11,6>"),
        ("ap_ufixed<8,3>", "ap_fixed<9,4>", "ap_fixed<9,4>"),
        ("ap_ufixed<8,4>", "ap_fixed<9,4>", "ap_fixed<10,5>"),
        ("ap_ufixed<8,5>", "ap_ufixed<6,2>", "ap_ufixed<9,5>"),
    ],
)
def test_the_container_holds_every_feature(pt: str, deta: str, container: str) -> None:
    features = {
        "pt": INPUTS.pt.model_copy(update={"type": FixedType.parse(pt)}),
        **{
            name: getattr(INPUTS, name).model_copy(update={"type": FixedType.parse(deta)})
            for name in ("deta", "dphi")
        },
    }
    inputs = INPUTS.model_copy(update=features)
    assert str(inputs.container) == container
    for feature in inputs.features:
        t = feature.type
        assert inputs.container.contains(np.array([t.min, t.lsb, t.max]))


def test_sample_holds_real_jets_of_every_class() -> None:
    jets = JetSet.read(SAMPLE)
    assert len(jets) >= 5000 and jets.constituents.shape[1:] == (150, 3)
    counts = np.bincount(jets.labels, minlength=5)
    assert counts.min() > 0.15 * len(jets)
    mass = jets.jets[:, JET_COLUMNS.index("mass")]
    medians = {name: np.median(mass[jets.labels == i]) for i, name in enumerate(CLASSES)}
    assert 80 < medians["W"] < 91 < medians["Z"] < 100 and 165 < medians["t"] < 185


def test_generator_is_seeded_and_physical() -> None:
    chunk = generator.Chunk("test", "W", 3, collisions=12)
    first, second = generator.generate_chunk(chunk), generator.generate_chunk(chunk)
    assert len(first) >= 12
    assert np.array_equal(first.constituents, second.constituents)
    assert not np.array_equal(
        first.constituents[:5],
        generator.generate_chunk(generator.Chunk("test", "W", 4, 12)).constituents[:5],
    )
    pt = first.jets[:, JET_COLUMNS.index("pt")]
    assert np.all((pt > 800) & (pt < 1600))
    assert abs(np.median(first.jets[:, JET_COLUMNS.index("mass")]) - 86) < 12
    assert np.all(np.diff(first.constituents[..., 0], axis=1) <= 0)
    total = first.constituents[..., 0].sum(axis=1)
    assert np.all(np.abs(total / pt - 1) < 0.2)


def test_seeds_are_disjoint() -> None:
    for jets in (None, 100, 20_000, 560_000):
        chunks = generator.plan(jets)
        assert len({c.seed for c in chunks}) == len(chunks) == len({c.file_name for c in chunks})


def test_the_jets_of_the_shipped_models_are_planned() -> None:
    counts = Counter((c.split, c.file_name.count("-")) for c in generator.plan(None))
    assert counts == {("train", 2): 5 * 53, ("validation", 2): 5 * 7, ("test", 2): 5 * 7}


@pytest.mark.parametrize("jets", [100, 101, 999, 12_345, 1_000_000])
def test_jets_are_split_exactly(jets: int) -> None:
    sizes = generator.split_sizes(jets)
    assert sum(map(sum, sizes.values())) == jets
    assert all(max(of_class) - min(of_class) <= 1 for of_class in sizes.values())
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(sum(sizes[split]) - share * jets) <= 1
        chunks = [c for c in generator.plan(jets) if (c.split, c.jet_class) == (split, "q")]
        assert 1.7 * sum(c.collisions for c in chunks) >= sizes[split][1]


def test_classes_with_too_few_jets_get_more_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one jet of three collisions passes, not 1.7 of one."""

    def made(chunk: generator.Chunk) -> JetSet:
        jets = JetSet.read(SAMPLE, slice(0, math.ceil(chunk.collisions / 3)))
        label = CLASSES.index(chunk.jet_class)
        marked = jets.constituents[:, :1] * 0 + chunk.seed
        return replace(jets, labels=jets.labels * 0 + label, constituents=marked)

    class Here(Runner):
        def do(self, jobs: Any, done: Any, told: Any) -> None:
            for job in jobs:
                job.function(*job.arguments, job.output)
                done(job)

    monkeypatch.setattr(generator, "generate_chunk", made)
    monkeypatch.setattr(generator, "_silence", lambda: None)
    steps: list[tuple[int, int]] = []
    list(generator.generate(200, tmp_path, Here(), lambda _, *step: steps.append(step)))
    for split, size in (("train", 32), ("validation", 4), ("test", 4)):
        jets = JetSet.read(tmp_path / f"{split}.h5")
        assert np.bincount(jets.labels).tolist() == [size] * 5
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("name", ["train", "validation", "test", "sample"])
def test_jets_of_others_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.h5").write_text("mine")
    with pytest.raises(UserError, match=rf"{name}.h5: is there, but not the chunks"):
        next(generator.generate(10, tmp_path, Runner(), lambda d, n: None))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "jets.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable HDF5"):
        JetSet.read(path)


def test_truncated_and_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "jets.h5"
    path.write_bytes(SAMPLE.read_bytes()[:100_000])
    with pytest.raises(UserError, match="not a readable HDF5"):
        JetSet.read(path)
    with h5py.File(path, "w") as file:
        file["constituents"] = np.zeros((2, 5, 3))
    with pytest.raises(UserError, match="'jets'"):
        JetSet.read(path)
    with pytest.raises(UserError, match="no such jet file"):
        JetSet.read(tmp_path / "nothing.h5")
