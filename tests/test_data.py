"""Data sets that users have: each format in its real layout, and what is wrong with files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from salt_hls.config import MODELS, ModelConfig, load_yaml
from salt_hls.errors import UserError
from salt_hls.jets.dataset import CLASSES, POINTS, JetSet
from salt_hls.jets.kinematics import relative_to_axis, wrap
from salt_hls.jets.ordering import prepare
from salt_hls.jets.readers import (
    generated,
    lhc,
    load_data,
    modelnet,
    quark_gluon,
    top_tagging,
)
from salt_hls.jets.readers.modelnet import morton, point_cloud

JETS, M = 100, 12
MESSAGES = yaml.safe_load(Path(__file__).with_name("messages.yaml").read_text())
"""Every message word by word."""

Make = Callable[..., Path]
Write = Callable[[Path], None]

LHC_PARTICLE = (
    "j1_px", "j1_py", "j1_pz", "j1_e", "j1_erel", "j1_pt", "j1_ptrel", "j1_eta", "j1_etarel",
    "j1_etarot", "j1_phi", "j1_phirel", "j1_phirot", "j1_deltaR", "j1_costheta", "j1_costhetarel",
    "j1_pdgid",
)  # fmt: skip
LHC_JET = ["j_ptfrac", "j_pt", "j_eta", "j_mass", "j_g", "j_q", "j_w", "j_z", "j_t", "j_undef"]


class Truth:
    """Jets as a detector sees them: pT, eta, phi of every particle, around random axes."""

    def __init__(self, seed: int = 0, classes: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.labels = np.arange(JETS) % classes
        self.axis = np.stack([rng.normal(0, 1, JETS), rng.uniform(-np.pi, np.pi, JETS)], axis=-1)
        self.pt = np.sort(rng.exponential(30, (JETS, M)) + 1)[:, ::-1].copy()
        self.pt[:, 9:] *= rng.random((JETS, 1)) < 0.5  # padding, in half of the jets
        self.offset = rng.normal(0, 0.1, (JETS, M, 2)) * (self.pt > 0)[..., None]

    @property
    def eta(self) -> np.ndarray:
        return (self.axis[:, None, 0] + self.offset[..., 0]) * (self.pt > 0)

    @property
    def phi(self) -> np.ndarray:
        return wrap(self.axis[:, None, 1] + self.offset[..., 1]) * (self.pt > 0)

    @property
    def momenta(self) -> np.ndarray:
        """E, px, py, pz of massless particles."""
        pt, eta, phi = self.pt, self.eta, self.phi
        columns = (pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
        return np.stack(columns, axis=-1)

    @property
    def jets(self) -> JetSet:
        constituents = np.concatenate([self.pt[..., None], self.offset], axis=-1)
        return JetSet(
            constituents.astype(np.float32),
            self.labels.astype(np.int8),
            np.zeros((JETS, 5), np.float32),
        )


def write_generated(path: Path, truth: Truth) -> None:
    truth.jets.write(path)


def write_lhc(path: Path, truth: Truth) -> None:
    """10,000 jets a file in the real ones; 17 feature names for 16 columns, float64."""
    table = {name: np.zeros((JETS, M)) for name in LHC_PARTICLE[:-1]}
    e, px, py, pz = np.moveaxis(truth.momenta, -1, 0)
    table |= {"j1_px": px, "j1_py": py, "j1_pz": pz, "j1_e": e, "j1_pt": truth.pt}
    table |= {"j1_eta": truth.eta, "j1_phi": truth.phi}
    table |= {"j1_etarel": truth.offset[..., 0], "j1_phirel": truth.offset[..., 1]}
    jets = np.zeros((JETS, len(LHC_JET)))
    jets[:, 1], jets[:, 3] = truth.pt.sum(axis=1), 80
    jets[np.arange(JETS), 4 + truth.labels] = 1
    with h5py.File(path, "w") as file:
        file["jetConstituentList"] = np.stack(list(table.values()), axis=-1)
        file["particleFeatureNames"] = np.array(LHC_PARTICLE, "S")
        file["jets"], file["jetFeatureNames"] = jets, np.array(LHC_JET, "S")


def write_top(path: Path, truth: Truth) -> None:
    """As pandas 0.2x to 2.x write `to_hdf(path, key="table", format="table")`."""
    names = [f"{c}_{i}" for i in range(M) for c in ("E", "PX", "PY", "PZ")]
    names += ["truthE", "truthPX", "truthPY", "truthPZ"]
    fields = [
        ("index", "<i8"),
        ("values_block_0", "<f4", (len(names),)),
        ("values_block_1", "<i8", (2,)),
    ]
    rows = np.zeros(JETS, fields)
    rows["index"] = np.arange(JETS)
    rows["values_block_0"][:, : 4 * M] = truth.momenta.reshape(JETS, -1)
    rows["values_block_1"][:, 1] = truth.labels
    with h5py.File(path, "w") as file:
        table = file.create_dataset("table/table", data=rows, chunks=True, compression="gzip")
        file["table"].attrs["pandas_type"] = np.bytes_(b"frame_table")
        for block, columns in enumerate((names, ["ttv", "is_signal_new"])):
            table.attrs[f"values_block_{block}_kind"] = np.bytes_(pickle.dumps(columns, 0))


def write_quark_gluon(path: Path, truth: Truth) -> None:
    """phi in [0, 2 pi), particles in no order, float64."""
    pdg = np.where(truth.pt > 0, 211.0, 0.0)
    x = np.stack([truth.pt, truth.eta, truth.phi % (2 * np.pi), pdg], axis=-1)
    np.savez_compressed(path, X=x[:, ::-1], y=truth.labels.astype(np.float64))


FORMATS: dict[str, tuple[Callable[[Path, Truth], None], str, int]] = {
    "generated": (write_generated, "h5", 5),
    "LHC": (write_lhc, "h5", 5),
    "top": (write_top, "h5", 2),
    "quark/gluon": (write_quark_gluon, "npz", 2),
}


@pytest.fixture(params=FORMATS)
def format_(request: pytest.FixtureRequest) -> tuple[Any, str, int]:
    return FORMATS[request.param]


def test_every_format_gives_the_same_jets(format_: tuple[Any, str, int], tmp_path: Path) -> None:
    write, suffix, classes = format_
    truths = {s: Truth(i, classes) for i, s in enumerate(("train", "val", "test"))}
    for split, truth in truths.items():
        write(tmp_path / f"{split}.{suffix}", truth)
    data = load_data(tmp_path, particles=8)
    assert len(data.train.classes) == classes and data.notes == ()
    for jets, truth in zip((data.train, data.validation, data.test), truths.values(), strict=True):
        assert jets.constituents.shape == (JETS, 8, 3) and jets.constituents.dtype == np.float32
        assert np.array_equal(jets.labels, truth.labels)
        np.testing.assert_allclose(jets.constituents[..., 0], truth.pt[:, :8], rtol=1e-5)
        # Axes of the sum of the momenta, or of the file, differ by less than this.
        apart = jets.constituents[..., 1:] - truth.offset[:, :8]
        assert np.abs(apart).max() < 0.3 and np.abs(apart - apart[:, :1]).max() < 1e-4
        assert not jets.constituents[truth.pt[:, :8] == 0].any()


def test_files_are_read_in_slices(
    format_: tuple[Any, str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large: what is read, and which jet a message names, does not depend on it."""
    write, suffix, classes = format_
    path = tmp_path / f"a.{suffix}"
    write(path, Truth(classes=classes))
    whole = load_data(path, 8).train
    for module in (generated, lhc, quark_gluon, top_tagging):
        monkeypatch.setattr(module, "SLICE", 30)
    kind = {"h5": None, "npz": quark_gluon}[suffix]
    parts = load_data(path, 8).train
    for name in ("constituents", "labels", "jets"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))
    if kind is None:
        kind = {write_generated: generated, write_lhc: lhc, write_top: top_tagging}[write]
    assert [len(part) for part in kind.slices(path, 8)] == [30, 30, 30, 10]


def test_lhc_jets_have_their_axis_mass_and_particles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth()
    truth.pt[:, 5:] *= 0.01  # below 1 GeV too
    write_lhc(tmp_path / "a.h5", truth)
    (jets,) = lhc.slices(tmp_path / "a.h5", 8)
    assert jets.jets.dtype == np.float32
    expected = [truth.pt.sum(axis=1), *truth.axis.T, np.full(JETS, 80), (truth.pt > 0).sum(axis=1)]
    np.testing.assert_allclose(jets.jets, np.stack(expected, axis=-1), rtol=1e-5, atol=1e-5)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        flags = file["jets"][:]
        flags[34, 4:6] = 1
        file["jets"][:] = flags
    monkeypatch.setattr(lhc, "SLICE", 30)
    with pytest.raises(UserError) as error:
        list(lhc.slices(tmp_path / "a.h5", 8))
    assert str(error.value) == (
        f"{tmp_path / 'a.h5'}: jet 34 must have one of j_g, j_q, j_w, j_z, j_t set, got "
        "[1.0, 1.0, 0.0, 0.0, 1.0]"
    )


def test_particles_beyond_the_file_are_padding(
    format_: tuple[Any, str, int], tmp_path: Path
) -> None:
    write, suffix, classes = format_
    write(tmp_path / f"a.{suffix}", Truth(classes=classes))
    constituents = load_data(tmp_path, 20).train.constituents
    assert constituents.shape[1] == 20 and not constituents[:, M:].any()


def test_axis_is_the_sum_of_the_momenta() -> None:
    truth = Truth()
    constituents, jets = relative_to_axis(truth.momenta)
    total = truth.momenta.sum(axis=1)
    np.testing.assert_allclose(jets[:, 0], np.hypot(total[:, 1], total[:, 2]), rtol=1e-5)
    phi = jets[:, None, 2] + constituents[..., 2]
    px = (constituents[..., 0] * np.cos(phi)).sum(axis=1)
    np.testing.assert_allclose(px, total[:, 1], rtol=1e-3, atol=1e-2)
    assert np.all(jets[:, 3] > 1) and np.array_equal(jets[:, 4], (truth.pt > 0).sum(axis=1))


def test_lhc_folders_and_columns_by_name(tmp_path: Path) -> None:
    """Several files a split in folders; the validation archive is the test set."""
    for i, folder in enumerate(("train", "train", "hls4ml_val")):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"jetImage_7_30p_{i}.h5"
        write_lhc(path, Truth(i))
        with h5py.File(path, "r+") as file:  # other columns, other order
            order = np.random.default_rng(0).permutation(16)
            content, names = file["jetConstituentList"][:], file["particleFeatureNames"][:]
            del file["jetConstituentList"], file["particleFeatureNames"]
            file["jetConstituentList"], file["particleFeatureNames"] = (
                content[..., order],
                names[order],
            )
    data = load_data(tmp_path, 8)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [180, 20, 100]
    np.testing.assert_allclose(data.test.constituents[..., 0], Truth(2).pt[:, :8], rtol=1e-5)
    assert len(data.notes) == 2 and data.test.jets[0, 0] > 0


@pytest.mark.parametrize(
    ("off", "share", "fits"),
    [
        (0.009, 1, True), (0.011, 1, False), (-0.011, 1, False),
        (0.5, 0.01, True), (0.5, 0.0117, False),
    ],
)  # fmt: skip
def test_lhc_columns_may_be_rounded(off: float, share: float, fits: bool, tmp_path: Path) -> None:
    """j1_pt is that of px and py within 1 % of itself and 10 MeV, but for 1 % of the particles."""
    truth = Truth()
    truth.pt[:] = np.linspace(0.1, 3, truth.pt.size).reshape(truth.pt.shape)
    write_lhc(tmp_path / "a.h5", truth)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        table = file["jetConstituentList"][:]
        column = LHC_PARTICLE.index("j1_pt")
        some = np.arange(truth.pt.size) < round(share * truth.pt.size)
        table[..., column] += off * (1 + truth.pt) * some.reshape(truth.pt.shape)
        table[..., column] = np.abs(table[..., column])
        file["jetConstituentList"][:] = table
    if fits:
        load_data(tmp_path / "a.h5", 8)
    else:
        with pytest.raises(UserError, match="j1_pt is not the length"):
            load_data(tmp_path / "a.h5", 8)


@pytest.mark.parametrize(
    ("energy", "share", "fits"),
    [(0.991, 1, True), (0.989, 1, False), (0.5, 0.01, True), (0.5, 0.0117, False)],
)
def test_energies_may_be_rounded(energy: float, share: float, fits: bool, tmp_path: Path) -> None:
    truth = Truth(classes=2)
    truth.pt[:] = np.linspace(0.1, 3, truth.pt.size).reshape(truth.pt.shape)
    write_top(tmp_path / "a.h5", truth)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        rows = file["table/table"][:]
        momenta = rows["values_block_0"][:, : 4 * M].reshape(-1, 4)
        some = np.arange(len(momenta)) < round(share * len(momenta))
        momenta[:, 0] = np.linalg.norm(momenta[:, 1:], axis=1) * np.where(some, energy, 1.001)
        rows["values_block_0"][:, : 4 * M] = momenta.reshape(JETS, -1)
        file["table/table"][:] = rows
    if fits:
        load_data(tmp_path / "a.h5", 8)
    else:
        with pytest.raises(UserError, match="energies below momenta"):
            load_data(tmp_path / "a.h5", 8)


def test_a_split_is_cut_alike_every_time(tmp_path: Path) -> None:
    write_quark_gluon(tmp_path / "QG_jets.npz", Truth(classes=2))
    first, second = (load_data(tmp_path / "QG_jets.npz", 4) for _ in range(2))
    parts = [(d.train, d.validation, d.test) for d in (first, second)]
    for a, b in zip(*parts, strict=True):
        assert np.array_equal(a.constituents, b.constituents)
    together = np.concatenate([s.constituents[:, 0, 0] for s in parts[0]])
    assert [len(s) for s in parts[0]] == [80, 10, 10] and len(np.unique(together)) == JETS


@pytest.mark.parametrize("rare", [3, 20, 33])
def test_a_cut_has_every_class(rare: int, tmp_path: Path) -> None:
    truth = Truth(classes=2)
    truth.labels = (np.arange(JETS) < rare).astype(int)
    write_quark_gluon(tmp_path / "QG_jets.npz", truth)
    data = load_data(tmp_path / "QG_jets.npz", 4)
    counts = [int(s.labels.sum()) for s in (data.validation, data.test, data.train)]
    tenth = max(1, round(0.1 * rare))
    assert counts == [tenth, tenth, rare - 2 * tenth]
    together = np.concatenate([s.constituents[:, 0, 0] for s in (data.train, data.validation)])
    assert len(np.unique(np.append(together, data.test.constituents[:, 0, 0]))) == JETS


def test_the_pickle_of_a_table_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "train.h5"
    write_top(path, Truth(classes=2))
    evil = b"cos\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "executed").encode()
    with h5py.File(path, "r+") as file:
        file["table/table"].attrs["values_block_1_kind"] = np.bytes_(evil)
    with pytest.raises(UserError, match="is_signal_new"):
        load_data(path, 4)
    assert not (tmp_path / "executed").exists()


def test_a_filter_that_is_not_there_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    write_top(tmp_path / "a.h5", Truth(classes=2))
    monkeypatch.setattr(top_tagging.h5py.h5z, "filter_avail", lambda number: False)
    with pytest.raises(UserError, match="compressed with deflate.*ptrepack"):
        load_data(tmp_path, 4)


# ModelNet


def write_off(path: Path, scale: tuple[float, float, float], header: str = "OFF\n") -> None:
    """A box of eight corners and six faces of four corners."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * scale
    faces = ("0 1 3 2", "4 5 7 6", "0 1 5 4", "2 3 7 6", "0 2 6 4", "1 3 7 5")
    lines = [" ".join(str(v) for v in corner) for corner in corners]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{header}8 6 0\n" + "\n".join([*lines, *(f"4 {f}" for f in faces)]))


def write_modelnet(folder: Path) -> None:
    for name, scale in (("bed", (4.0, 3.0, 1.0)), ("lamp", (1.0, 1.0, 8.0))):
        for split, count in (("train", 30), ("test", 5)):
            for i in range(count):
                header = "OFF" if i % 2 else "OFF\n# a comment\n"
                write_off(folder / name / split / f"{name}_{i:04d}.off", scale, header)


def test_modelnet_becomes_point_clouds(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "ModelNet10")
    data, again = (load_data(tmp_path / "ModelNet10", 16) for _ in range(2))
    assert data.train.classes == ("bed", "lamp") and data.train.features == POINTS
    assert [len(s) for s in (data.train, data.validation, data.test)] == [54, 6, 10]
    assert np.array_equal(data.train.constituents, again.train.constituents)
    points = data.test.constituents
    assert points.shape == (10, 16, 3) and len(np.unique(points[:, 0, 0])) == 10
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1).max(axis=1), 1, rtol=1e-6)
    flat = points.std(axis=1)
    assert np.all(flat[data.test.labels == 1][:, 2] > 2 * flat[data.test.labels == 1][:, 0])
    for cloud in points:
        assert np.all(np.diff(morton(cloud.astype(float))) >= 0)


def test_points_are_uniform_by_area_and_stay_in_order(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [10, 0, 0], [13, 0, 0], [10, 1, 0]], float)
    points = point_cloud(corners, np.array([[0, 1, 2], [3, 4, 5]]), 4000, seed=1)
    assert abs(np.mean(points[:, 0] > 0.2) - 0.75) < 0.04  # areas 1 : 3, and a gap between them
    config = yaml_with({"x": LINEAR, "y": LINEAR, "z": LINEAR, "order": "given"}, tmp_path)
    cloud = np.random.default_rng(0).uniform(-1, 1, (2, 20, 3)).astype(np.float32)
    inputs = prepare(cloud, 16, config.inputs)
    np.testing.assert_allclose(inputs, cloud[:, :16], atol=0.01)


def test_meshes_by_hand(tmp_path: Path) -> None:
    """Polygons become fans; comments, blank lines and bytes that are no text may stand around."""
    path = tmp_path / "a.off"
    corners = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n0.5 2 0\n"
    path.write_bytes(
        b"\n  OFF # caf\xc3\xa9\n5 3 0\n"
        + corners.encode()
        + b"4 0 1 2 3\n3 3 2 4 # \xff\n5 4 0 1 2 3"
    )
    vertices, triangles = modelnet.read_off(path)
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 2, 0]]
    fans = [[0, 1, 2], [0, 2, 3], [3, 2, 4], [4, 0, 1], [4, 1, 2], [4, 2, 3]]
    assert triangles.tolist() == fans and triangles.dtype == np.int64
    path.write_text(f"OFF5 2 0\n{corners}3 0 1 2\n3 2 3 4\n")
    assert modelnet.read_off(path)[1].tolist() == [[0, 1, 2], [2, 3, 4]]
    # As many numbers as two triangles have, but a square and a line without an area.
    path.write_text(f"OFF 5 2 0\n{corners}4 0 1 2 3\n2 0 1\n")
    assert modelnet.read_off(path)[1].tolist() == [[0, 1, 2], [0, 2, 3]]
    path.write_text(f"OFF 5 1 0\n{corners}3 1 2 5\n")
    with pytest.raises(UserError, match="vertices it does not have"):
        modelnet.read_off(path)
    path.write_text("SOLID binary mesh")
    with pytest.raises(UserError) as error:
        modelnet.read_off(path)
    assert str(error.value) == f"{path}: no OFF mesh: it starts with 'SOLID binary'"


def test_places_along_the_morton_curve() -> None:
    """The bits of x, y, z of 1,024 cells an axis, x the lowest."""
    cell = 2 / 1024
    points = -1 + cell * (np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 2]]) + 0.5)
    assert morton(points).tolist() == [0, 1, 2, 4, 0b101001]
    assert morton(np.array([[1.0, 1, 1], [-1, -1, -1], [0, 0, 0]])).tolist() == [
        2**30 - 1, 0, 0b111 << 27,
    ]  # fmt: skip
    # What rounding leaves beyond the cube is in its last cells.
    beyond = np.array([[1.01, -1.01, 0.0], [1, -1, 0]])
    assert len(set(morton(beyond).tolist())) == 1


def test_points_lie_on_the_triangles_far_from_the_origin() -> None:
    corners = np.array([[5, 5, 5], [6, 5, 5], [5, 7, 5]], float)
    points = point_cloud(corners, np.array([[0, 1, 2]]), 3000, seed=3)
    assert np.abs(points[:, 2]).max() < 1e-12
    x, y = points[:, 0] - points[:, 0].min(), points[:, 1] - points[:, 1].min()
    scale = np.ptp(y) / 2
    inside = x / scale + y / (2 * scale)
    assert inside.max() < 1.03 and x.min() == 0
    # Uniform: a quarter of the area is above the middle of the height.
    assert abs(np.mean(y > scale) - 0.25) < 0.03
    small = point_cloud(corners * 1e-3, np.array([[0, 1, 2]]), 50, seed=3)  # below an area of 1
    assert np.linalg.norm(small, axis=1).max() == pytest.approx(1)


def test_triangles_far_from_the_origin_keep_their_shares_and_places() -> None:
    near = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    far = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0]], float) + [7, 0, 0]
    corners = np.concatenate([near, far]) + [40, -30, 0]
    points = point_cloud(corners, np.array([[0, 1, 2], [3, 4, 5]]), 4000, seed=5)
    second = points[:, 0] > points[:, 0].mean() - 0.1
    # Areas are 1 : 3; mean x are 1/3 and 8, mean y 1/3 both, in the scale of y.
    assert abs(second.mean() - 0.75) < 0.03
    apart = points[second].mean(axis=0) - points[~second].mean(axis=0)
    scale = 1 / np.ptp(points[second, 1])
    assert apart * scale == pytest.approx([8 - 1 / 3, 0, 0], abs=0.4)


def test_a_mesh_outside_of_its_folders(tmp_path: Path) -> None:
    write_off(tmp_path / "a.off", (1, 1, 1))
    with pytest.raises(UserError) as error:
        next(modelnet.slices(Path("/a.off"), 4))
    assert str(error.value) == "/a.off: expected <class>/<train or test>/<name>.off"
    write_off(tmp_path / "bed" / "train" / "a.off", (1, 1, 1))
    (jets,) = modelnet.slices(tmp_path / "bed" / "train" / "a.off", 4)
    assert jets.constituents.dtype == jets.jets.dtype == np.float32 and len(jets.jets) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [("PLY\n", "no OFF mesh"), ("OFF 4 1 0\n0 0 0", "damaged"), ("OFF\nx y z", "damaged"),
     ("OFF 3 1 0\n0 0 0 1 0 0 0 1 0\n3 0 1 7", "vertices it does not have"),
     ("OFF 3 1 0\n0 0 0 nan 0 0 0 1 0\n3 0 1 2", "NaN or infinity"),
     ("OFF 3 1 0\n0 0 0 1e308 0 0 0 1e308 0\n3 0 1 2", "finite area"),
     ("OFF 3 1 0\n0 0 0 1 0 0 2 0 0\n3 0 1 2", "finite area")],
)  # fmt: skip
def test_damaged_meshes(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "bed" / "train" / "a.off"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match=what) as error:
        next(modelnet.slices(path, 4))
    assert str(path) in str(error.value)


# What fits a model

LINEAR = {"scale": 1.0, "type": "ap_fixed<9,2,RND,SAT>"}


def yaml_with(inputs: dict[str, Any], tmp_path: Path, **changes: Any) -> ModelConfig:
    content = yaml.safe_load((MODELS / "salt_p4.yaml").read_text())
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({**content, "inputs": inputs or content["inputs"], **changes}))
    return load_yaml(path, ModelConfig)


@pytest.mark.parametrize(("classes", "fits"), [(1, True), (2, True), (3, False), (5, False)])
def test_classes_of_data_and_model(classes: int, fits: bool, tmp_path: Path) -> None:
    write_top(tmp_path / "a.h5", Truth(classes=2))
    data = load_data(tmp_path / "a.h5", 4)
    config = yaml_with({}, tmp_path, classes=classes)
    if fits:
        data.require_fit(config.inputs, config.classes, Path("mine.yaml"))
    else:
        with pytest.raises(UserError, match=f"mine.yaml: classes is {classes}.* 2 .QCD, t."):
            data.require_fit(config.inputs, config.classes, Path("mine.yaml"))


def test_points_need_a_model_of_points(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "m")
    data = load_data(tmp_path / "m", 4)
    points = {"x": LINEAR, "y": LINEAR, "z": LINEAR, "order": "given"}
    data.require_fit(yaml_with(points, tmp_path).inputs, 2, Path("mine.yaml"))
    for change in ({"order": "pt"}, {"y": {**LINEAR, "curve": "log2"}}):
        with pytest.raises(UserError) as error:
            data.require_fit(yaml_with({**points, **change}, tmp_path).inputs, 2, Path("a.yaml"))
        curves = "linear, log2, linear" if "y" in change else "linear, linear, linear"
        assert str(error.value) == (
            "a.yaml: inputs: point clouds need order: given and curve: linear, got order: "
            f"{change.get('order', 'given')} and {curves}"
        )


# What is wrong with files


def damage(**values: Any) -> Write:
    """Writes generated jets with some arrays changed by functions of the arrays."""

    def write(path: Path) -> None:
        write_generated(path, Truth())
        with h5py.File(path, "r+") as file:
            for name, change in values.items():
                content = file[name][:]
                del file[name]
                changed = change(content)
                if changed is not None:
                    file[name] = changed

    return write


def put(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(content: np.ndarray) -> np.ndarray:
        content[index] = value
        return content

    return change


def degrees(content: np.ndarray) -> np.ndarray:
    return content * np.array([1, 1, 180 / np.pi], np.float32)


def on_axis(content: np.ndarray) -> np.ndarray:
    return np.where(content[..., :1] > 0, content + np.array([0, 1.2, 0], np.float32), 0)


ERRORS: dict[str, tuple[Write, str]] = {
    "NaN": (damage(constituents=put((3, 2, 1), np.nan)), "jet 3, particle 2: NaN.*deta, got nan"),
    "infinite": (damage(constituents=put((99, 0, 0), np.inf)), "jet 99, particle 0.*pt, got inf"),
    "negative pT": (damage(constituents=put((4, 1, 0), -2)), "jet 4.*negative pT in pt, got -2"),
    "label": (damage(labels=put(7, 5)), "jet 7 has label 5; labels are 0 ... 4 .g, q"),
    "half a label": (damage(labels=lambda x: x + 0.5), "jet 0 has label 0.5"),
    "negative label": (damage(labels=put(7, -1)), "jet 7 has label -1"),
    "missing class": (damage(labels=lambda x: x % 4), "no jet of class 't'"),
    "degrees": (damage(constituents=degrees), "radians"),
    "absolute angles": (damage(constituents=on_axis), "relative to the jet axis.*1.2"),
    "relative pT": (damage(constituents=lambda x: x * np.float32([0.001, 1, 1])), "in GeV"),
    "no jets": (damage(constituents=np.zeros_like), "no jets in it .100 are empty"),
    "features": (damage(constituents=lambda x: x[..., :2]), "must be .jets, particles, 3.*12, 2"),
    "flat": (damage(constituents=lambda x: x[:, 0]), "shape .100, 3., expected .jets, parti"),
    "few columns": (damage(jets=lambda x: x[:, :2]), "'jets' has the wrong shape .100, 2"),
    "fewer labels": (damage(labels=lambda x: x[:-1]), "'labels' has the wrong shape .99,"),
    "no labels": (damage(labels=lambda x: None), "no dataset 'labels'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ERRORS)
def test_what_cannot_be_mended_is_one_line(fault: str, tmp_path: Path) -> None:
    write, what = ERRORS[fault]
    write(tmp_path / "a.h5")
    with pytest.raises(UserError, match=what) as error:
        load_data(tmp_path / "a.h5", 8)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert str(error.value).replace(f"{tmp_path}/", "") == MESSAGES["ERRORS"][fault]


def test_the_file_and_its_jet_are_named(tmp_path: Path) -> None:
    for name in "abc":
        write_generated(tmp_path / f"{name}.h5", Truth())
    damage(constituents=put((3, 2, 1), np.nan))(tmp_path / "c.h5")
    with pytest.raises(UserError, match="c.h5: jet 3, particle 2"):
        load_data(tmp_path, 8)


def backwards(content: np.ndarray) -> np.ndarray:
    return content[:, ::-1]


def turned(content: np.ndarray) -> np.ndarray:
    content[:30, 0, 2] += np.float32(2 * np.pi) * np.where(content[:30, 0, 2] < 0, 1, -1)
    return content


NOTES: dict[str, tuple[Write, str]] = {
    "unsorted": (
        damage(constituents=backwards),
        "100 of 100 jets are not in descending pT: sorted",
    ),
    "MeV": (
        damage(constituents=lambda x: x * np.float32([1000, 1, 1])),
        "a typical jet has pT 3.48e+05: taken as MeV and divided by 1000",
    ),
    "phi wrap": (damage(constituents=turned), "30 dphi are outside of [-pi, pi): wrapped"),
}


@pytest.mark.parametrize("fault", NOTES)
def test_what_can_be_mended_is_mended_and_told(fault: str, tmp_path: Path) -> None:
    write, what = NOTES[fault]
    write(tmp_path / "a.h5")
    write_generated(tmp_path / "b.h5", Truth())
    data, sound = (load_data(tmp_path / name, 8) for name in ("a.h5", "b.h5"))
    assert data.notes[0] == f"{tmp_path / 'a.h5'}: {what}" and data.notes[1:] == sound.notes
    assert sound.notes == (
        "no validation set among the files: 10 jets of the training set are it",
        "no test set among the files: 10 jets of the training set are it",
    )
    np.testing.assert_allclose(
        data.train.constituents, sound.train.constituents, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("lowest", [0, -np.pi])
def test_azimuths_may_be_kept_near_their_jet(lowest: float, dtype: str, tmp_path: Path) -> None:
    """As in the public quark/gluon files: phi within pi of the jet's, below 0 and beyond 2 pi."""
    truth = Truth(classes=2)
    truth.offset *= 4  # well across the seam
    plain, kept = tmp_path / "a.npz", tmp_path / "b.npz"
    write_quark_gluon(plain, truth)
    with np.load(plain) as content:
        x, y = content["X"], content["y"]
    axis = (truth.axis[:, None, 1] - lowest) % (2 * np.pi) + lowest
    phi = ((axis + truth.offset[..., 1]) * (truth.pt > 0))[:, ::-1]
    assert phi.min() < lowest and phi.max() > lowest + 2 * np.pi
    x[..., 2] = np.where(x[..., 0] > 0, phi, 50)  # padding has no angle
    np.savez(kept, X=x.astype(dtype), y=y)
    one, other = (load_data(path, 8).train.constituents for path in (plain, kept))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    x[0, -1, 2] = 3.01 * np.pi
    np.savez(kept, X=x, y=y)
    with pytest.raises(UserError, match="phi reaches 9.45.*; it must be in radians"):
        load_data(kept, 8)


def test_differences_of_azimuths_are_wrapped(tmp_path: Path) -> None:
    """phi in [0, 2 pi) less that of a jet in [-pi, pi): up to 3 pi, whatever the format."""
    truth, sound = Truth(), Truth()
    turns = np.where(np.arange(JETS)[:, None] % 2, 2 * np.pi, -2 * np.pi) * (truth.pt > 0)
    truth.offset[..., 1] += turns
    for write in (write_generated, write_lhc):
        write(tmp_path / "a.h5", truth)
        write(tmp_path / "b.h5", sound)
        turned, straight = (load_data(tmp_path / name, 8) for name in ("a.h5", "b.h5"))
        assert "are outside of [-pi, pi): wrapped" in turned.notes[0]
        np.testing.assert_allclose(
            turned.train.constituents, straight.train.constituents, rtol=1e-5, atol=1e-5
        )


def one_particle(pt: float, deta: float = 0, dphi: float = 0) -> Write:
    """Jets of one particle each, all alike."""

    def alone(content: np.ndarray) -> np.ndarray:
        content[:] = 0
        content[:, 0] = pt, deta, dphi
        return content

    return damage(constituents=alone)


@pytest.mark.parametrize(
    ("particle", "what"),
    [
        ((2, 0, 0), ""), ((1.99, 0, 0), "pT must be in GeV, but a typical jet has 1.99; it looks "
        "relative to the jet, or in TeV"), ((7000, 0, 0), ""), ((7001, 0, 0), "MeV"),
        ((50, 0.199, 0), ""), ((50, 0, -0.199), ""), ((50, 0.15, 0.15), "angles must be relative "
        "to the jet axis, but the middle of a typical jet is 0.21 away from it"),
        ((50, 0, 0.201), "angles must be relative to the jet axis, but the middle of a typical "
        "jet is 0.2 away from it"),
    ],
)  # fmt: skip
def test_limits_of_typical_jets(particle: tuple[float, ...], what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    one_particle(*particle)(path)
    if what in ("", "MeV"):
        jets = load_data(path, 4).train
        scale = 1000 if what else 1
        assert jets.constituents[:, 0, 0] == pytest.approx(particle[0] / scale)
        assert jets.constituents[0, 0, 1:] == pytest.approx(particle[1:])
        assert not jets.constituents[:, 1:].any()
    else:
        with pytest.raises(UserError) as error:
            load_data(path, 4)
        assert str(error.value) == f"{path}: {what}"


def test_kinematics_of_mev_jets_are_in_gev_too(tmp_path: Path) -> None:
    one_particle(8e6, 0.1, 0.1)(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["jets"][:] = [8e6, 1.5, 2.5, 9e4, 1]
    jets = load_data(tmp_path / "a.h5", 4).train
    np.testing.assert_allclose(jets.jets[0], [8e3, 1.5, 2.5, 90, 1])


def test_padding_has_no_angles(tmp_path: Path) -> None:
    """Formats leave there what their formulas give, the axis for example."""

    def angles(content: np.ndarray) -> np.ndarray:
        return np.where(content[..., :1] > 0, content, np.float32([0, 0.3, 50]))

    damage(constituents=angles)(tmp_path / "a.h5")
    data = load_data(tmp_path / "a.h5", 12)
    padding = data.train.constituents[..., 0] == 0
    assert padding.any() and not data.train.constituents[padding].any() and len(data.notes) == 2


def test_empty_jets_are_left_out_and_told(tmp_path: Path) -> None:
    damage(constituents=put(slice(0, 5), 0))(tmp_path / "a.h5")
    data = load_data(tmp_path / "a.h5", 8)
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 95
    assert "5 of 100 jets have no particle" in data.notes[0]


def lhc_without(key: str, value: Any) -> Write:
    def write(path: Path) -> None:
        write_lhc(path, Truth())
        with h5py.File(path, "r+") as file:
            del file[key]
            if value is not None:
                file[key] = value

    return write


def quark_gluon_with(**arrays: np.ndarray) -> Write:
    def write(path: Path) -> None:
        write_quark_gluon(path, Truth(classes=2))
        with np.load(path) as content:
            np.savez(path, **{**content, **arrays})

    return write


def top_with(change: Callable[[Any], None]) -> Write:
    def write(path: Path) -> None:
        write_top(path, Truth(classes=2))
        with h5py.File(path, "r+") as file:
            change(file)

    return write


def swap_names(file: Any) -> None:
    names = [f"{c}_{i}" for i in range(M) for c in ("PZ", "PX", "PY", "E")] + ["t"] * 4
    file["table/table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(names, 0))


def keys(*names: str) -> Write:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name in names:
                file[name] = np.zeros(3)

    return write


def label_called_y(file: Any) -> None:
    names = np.bytes_(pickle.dumps(["ttv", "y"], 0))
    file["table/table"].attrs["values_block_1_kind"] = names


def table_elsewhere(file: Any) -> None:
    file["table"].move("table", "other")


def lhc_of_groups(path: Path) -> None:
    write_lhc(path, Truth())
    with h5py.File(path, "r+") as file:
        del file["jetConstituentList"]
        file["jetConstituentList/x"] = np.zeros(3)


def nan_in_px(file: Any) -> None:
    rows = file["table/table"][:]
    rows["values_block_0"][3, 4 * 2 + 1] = np.nan
    file["table/table"][:] = rows


X = np.zeros((JETS, 3, 4))
NAMES = "particleFeatureNames"
MOVED = LHC_PARTICLE[2:16] + LHC_PARTICLE[:2]
FOREIGN: dict[str, tuple[str, Write, str]] = {
    "keys": ("a.h5", keys("events", "pixels"), "unknown format, found 'events', 'pixels'; known"),
    "many keys": ("a.h5", keys(*"abcdefghij"), "'h' and 2 more"),
    "arrays": ("a.npz", lambda p: np.savez(p, jets=X), "unknown format, found 'jets'"),
    "suffix": ("a.root", lambda p: p.touch(), "ending in .h5"),
    "names": ("a.h5", lhc_without(NAMES, None), NAMES),
    "fewer names": ("a.h5", lhc_without(NAMES, LHC_PARTICLE[:9]), "9 features of 16"),
    "other names": ("a.h5", lhc_without(NAMES, ["a"] * 16), "no feature 'j1_pt'"),
    "names moved": ("a.h5", lhc_without(NAMES, MOVED), "does not describe"),
    "no class": ("a.h5", lhc_without("jets", np.zeros((JETS, 10))), "jet 0 must have one of j_g"),
    "fewer jets": ("a.h5", lhc_without("jets", np.ones((3, 10))), "List must have shape"),
    "flat jets": ("a.h5", lhc_without("jets", np.zeros(JETS)), "jets must have shape .jets, feat"),
    "group": ("a.h5", lhc_of_groups, "damaged or not readable"),
    "no group": ("a.h5", keys("table"), "damaged or not readable"),
    "NaN": ("a.h5", top_with(nan_in_px), "jet 3, particle 2: NaN or infinity in PX, got nan"),
    "no table": ("a.h5", top_with(table_elsewhere), "not a pandas table"),
    "no label": ("a.h5", top_with(label_called_y), "no column 'is_signal_new'"),
    "swapped": ("a.h5", top_with(swap_names), "not E, PX, PY, PZ"),
    "X": ("a.npz", quark_gluon_with(X=X[0]), "X must have shape"),
    "y": ("a.npz", quark_gluon_with(y=np.zeros(3)), "X must have shape .3, particles"),
    "objects": ("a.npz", quark_gluon_with(y=np.array([{}] * JETS)), "must be an array of numbers"),
    "degrees": ("a.npz", quark_gluon_with(X=X + 90.0), "phi reaches 90; .*radians"),
    "gaps": (
        "a.npz",
        quark_gluon_with(X=put((4, 2, 1), np.inf)(X.copy())),
        "jet 4, particle 2: .*ity",
    ),
    "label 2": ("a.npz", quark_gluon_with(y=np.full(JETS, 2.0)), "jet 0 has label 2"),
}


@pytest.mark.parametrize("fault", FOREIGN)
def test_files_that_are_not_what_they_should_be(fault: str, tmp_path: Path) -> None:
    name, write, what = FOREIGN[fault]
    write(tmp_path / name)
    with pytest.raises(UserError, match=what) as error:
        load_data(tmp_path / name, 8)
    assert "\n" not in str(error.value)
    said = str(error.value).replace(f"{tmp_path}/", "")
    assert said == MESSAGES["FOREIGN"].get(fault, said)  # not what libraries say


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(share: float, format_: tuple[Any, str, int], tmp_path: Path) -> None:
    write, suffix, classes = format_
    path = tmp_path / f"a.{suffix}"
    write(path, Truth(classes=classes))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="damaged or not readable"):
        load_data(path, 8)


def test_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such jet file or folder"):
        load_data(tmp_path / "nowhere", 8)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match="found 'readme.txt'"):
        load_data(tmp_path, 8)
    for name in ("jets_val.h5", "test.h5"):
        write_generated(tmp_path / name, Truth())
    with pytest.raises(UserError, match="no training set, only validation and test"):
        load_data(tmp_path, 8)
    write_generated(tmp_path / "my-train.h5", Truth())
    assert len(load_data(tmp_path, 8).train) == JETS


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, full_disk: Any) -> None:
    path = tmp_path / "jets.h5"
    sample = JetSet.read(MODELS / "sample.h5", slice(0, 500))
    sample[slice(0, 10)].write(path)
    before = path.read_bytes()
    with full_disk(60_000), pytest.raises(UserError, match="cannot be written"):
        sample.write(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["jets.h5"]


def test_classes_travel_with_the_file(tmp_path: Path) -> None:
    jets = Truth().jets
    JetSet(jets.constituents, jets.labels, jets.jets, ("a", "b", "c", "d", "e"), POINTS).write(
        tmp_path / "a.h5"
    )
    again = JetSet.read(tmp_path / "a.h5")
    assert again.classes == ("a", "b", "c", "d", "e") and again.features == POINTS
    assert again[slice(0, 3)].classes == again.classes and jets.classes == CLASSES
