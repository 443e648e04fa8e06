"""Simulated jets of the five LHC classes, after the public hls4ml LHC jet set.

pp collisions at 13 TeV (Pythia8, Monash tune, with underlying event) produce pairs of gluons,
light quarks, W, Z or top quarks with a parton pT within 1 % of 1 TeV, as in the public set (a
"resonance-like" narrow window). Bosons and tops decay to quarks. Visible particles pass a CMS-like
response, are clustered with anti-kT R = 0.8, and the two leading jets with 0.8 < pT < 1.6 TeV that
match a hard parton are kept with the class of their process.

The response (`smear`) is that of a particle-flow detector:

===============  ===================  =============================  ===========================
candidate        threshold            energy or pT resolution        granularity
===============  ===================  =============================  ===========================
charged          pT > 0.5 GeV         0.8 % (+) 0.015 % pT/GeV       none (angles are exact)
photon           E > 0.5 GeV          3 %/sqrt(E/GeV) (+) 0.5 %      cells of 0.0174, 0.002 smear
neutral hadron   E > 1 GeV            100 %/sqrt(E/GeV) (+) 5 %      cells of 0.087, 0.010 smear
===============  ===================  =============================  ===========================
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import CLASSES, MAX_CONSTITUENTS, JetSet
from salt_hls.jets.kinematics import wrap
from salt_hls.system.jobs import Job, Runner
from salt_hls.system.progress import Progress
from salt_hls.system.wording import option

PROCESSES: dict[str, tuple[str, ...]] = {
    "g": ("HardQCD:gg2gg=on", "HardQCD:qqbar2gg=on"),
    "q": ("HardQCD:gg2qqbar=on", "HardQCD:qq2qq=on", "HardQCD:qqbar2qqbarNew=on"),
    "W": ("WeakDoubleBoson:ffbar2WW=on", "24:onMode=off", "24:onIfAny=1 2 3 4 5"),
    "Z": (
        "WeakDoubleBoson:ffbar2gmZgmZ=on",
        "WeakZ0:gmZmode=2",
        "23:onMode=off",
        "23:onIfAny=1 2 3 4 5",
    ),
    "t": (
        "Top:gg2ttbar=on",
        "Top:qqbar2ttbar=on",
        "24:onMode=off",
        "24:onIfAny=1 2 3 4 5",
    ),
}
"""Pythia8 settings per class: the hard process, and hadronic decays of what it makes."""

PARTON_IDS: dict[str, tuple[int, ...]] = {
    "g": (21,),
    "q": (1, 2, 3, 4, 5),
    "W": (24,),
    "Z": (23,),
    "t": (6,),
}

PARTON_PT = (990.0, 1010.0)
JET_RADIUS = 0.8
JET_PT = (800.0, 1600.0)
JET_MAX_ETA = 2.0
MATCH_DR = 0.4
EVENTS_PER_CHUNK = 1000
JETS_PER_COLLISION = 1.7
"""How many of the two jets of a collision pass, at least, by experience."""
STANDARD = {"train": 53, "validation": 7, "test": 7}
"""Chunks of every class that the shipped models' 610,000 jets are made of."""
SAMPLE_JETS = 6000
SPLITS = ("train", "validation", "test")
_HARD_STATUS = (22, 23)


@dataclass(frozen=True)
class Chunk:
    """One unit of generation: its seed fixes its jets whatever else is generated."""

    split: str
    jet_class: str
    index: int
    collisions: int = EVENTS_PER_CHUNK

    @property
    def seed(self) -> int:
        """Pythia seed, disjoint between splits, classes and chunks (1 ... 9e8)."""
        split = SPLITS.index(self.split)
        return 1 + split * 100_000_000 + CLASSES.index(self.jet_class) * 10_000_000 + self.index

    @property
    def file_name(self) -> str:
        size = "" if self.collisions == EVENTS_PER_CHUNK else f"-{self.collisions}"
        return f"{self.split}-{self.jet_class}-{self.index:05d}{size}.h5"


def smear(
    pt: NDArray[np.float64],
    eta: NDArray[np.float64],
    phi: NDArray[np.float64],
    pdg: NDArray[np.int64],
    charged: NDArray[np.bool_],
    event: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Particle-flow candidates (pt, eta, phi, event) of visible particles; see the module table."""
    parts = []
    keep = charged & (pt > 0.5)
    resolution = np.hypot(0.008, 1.5e-4 * pt[keep])
    factor = np.maximum(1 + resolution * rng.standard_normal(keep.sum()), 0.0)
    parts.append((pt[keep] * factor, eta[keep], phi[keep], event[keep]))

    photons = ~charged & (pdg == 22)
    for select, cell, stochastic, constant, blur, threshold in (
        (photons, 0.0174, 0.03, 0.005, 0.002, 0.5),
        (~charged & ~photons, 0.087, 1.0, 0.05, 0.010, 1.0),
    ):
        energy, c_eta, c_phi, c_event = _merge_cells(
            pt[select], eta[select], phi[select], event[select], cell
        )
        noise = rng.standard_normal((3, energy.size))
        sigma = np.hypot(stochastic / np.sqrt(energy), constant)
        energy = energy * np.maximum(1 + sigma * noise[0], 0.0)
        c_eta = c_eta + blur * noise[1]
        c_phi = c_phi + blur * noise[2]
        seen = energy > threshold
        parts.append(((energy / np.cosh(c_eta))[seen], c_eta[seen], c_phi[seen], c_event[seen]))
    joined: list[NDArray[Any]] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    c_pt, c_eta, c_phi, c_event = joined
    return c_pt, c_eta, c_phi, c_event.astype(np.int64)


def _merge_cells(
    pt: NDArray[np.float64],
    eta: NDArray[np.float64],
    phi: NDArray[np.float64],
    event: NDArray[np.int64],
    cell: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Energy sums and energy-weighted positions of the particles in each calorimeter cell."""
    energy = pt * np.cosh(eta)
    i_eta = np.floor(eta / cell).astype(np.int64) + 2**15
    i_phi = np.floor(phi / cell).astype(np.int64) + 2**15
    _, first, group = np.unique(
        (event << 32) | (i_eta << 16) | i_phi, return_index=True, return_inverse=True
    )
    total = np.bincount(group, energy).astype(np.float64)
    return (
        total,
        np.bincount(group, energy * eta) / total,
        np.bincount(group, energy * phi) / total,
        event[first],
    )


def _pythia(jet_class: str, seed: int) -> Any:
    """A configured Pythia8 generator of one class."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    settings = (
        "Print:quiet=on",
        "Beams:eCM=13000.",
        f"PhaseSpace:pTHatMin={PARTON_PT[0]}",
        f"PhaseSpace:pTHatMax={PARTON_PT[1]}",
        "Random:setSeed=on",
        f"Random:seed={seed}",
        *PROCESSES[jet_class],
    )
    for setting in settings:
        if not pythia.readString(setting):
            raise UserError(f"Pythia8 does not know the setting {setting!r}")
    if not pythia.init():
        raise UserError(f"Pythia8 could not start for class {jet_class!r}")
    return pythia


def generate_chunk(chunk: Chunk) -> JetSet:
    """The jets of one chunk: 2 leading jets of its collisions, where they pass."""
    import awkward as ak
    import fastjet

    pythia = _pythia(chunk.jet_class, chunk.seed)
    events = pythia.nextBatch(chunk.collisions)
    rng = np.random.default_rng(chunk.seed)

    particles = events.prt
    counts = ak.to_numpy(ak.num(particles))
    flat = ak.flatten(particles)
    event = np.repeat(np.arange(len(counts)), counts)
    pdg = ak.to_numpy(flat.id).astype(np.int64)
    status = ak.to_numpy(flat.status)
    px, py, pz = (ak.to_numpy(flat.p[c]) for c in ("px", "py", "pz"))
    pt = np.hypot(px, py)
    with np.errstate(divide="ignore"):
        eta = np.arcsinh(pz / np.maximum(pt, 1e-9))
    phi = np.arctan2(py, px)

    hard = np.isin(status, [-s for s in _HARD_STATUS]) & np.isin(
        np.abs(pdg), PARTON_IDS[chunk.jet_class]
    )
    invisible = np.isin(np.abs(pdg), (12, 14, 16))
    visible = (status > 0) & ~invisible & (np.abs(eta) < 4.0) & (pt > 0.05)
    charge = {int(i): bool(pythia.particleData.chargeType(int(i))) for i in np.unique(pdg)}
    charged = np.array([charge[int(i)] for i in pdg[visible]], dtype=bool)
    c_pt, c_eta, c_phi, c_event = smear(
        pt[visible], eta[visible], phi[visible], pdg[visible], charged, event[visible], rng
    )
    order = np.argsort(c_event, kind="stable")
    c_pt, c_eta, c_phi, c_event = c_pt[order], c_eta[order], c_phi[order], c_event[order]
    candidates = ak.unflatten(
        ak.zip(
            {
                "px": c_pt * np.cos(c_phi),
                "py": c_pt * np.sin(c_phi),
                "pz": c_pt * np.sinh(c_eta),
                "E": c_pt * np.cosh(c_eta),
            },
            with_name="Momentum4D",
        ),
        np.bincount(c_event, minlength=len(counts)),
    )
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, JET_RADIUS)
    cluster = fastjet.ClusterSequence(candidates, definition)
    jets = cluster.inclusive_jets(min_pt=JET_PT[0])
    members = cluster.constituent_index(min_pt=JET_PT[0])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(c_event, minlength=len(counts)))])

    constituents, kinematics = [], []
    for i in range(len(counts)):
        found = []
        partons = np.flatnonzero(hard & (event == i)) if len(jets[i]) else np.array([], int)
        for jet, inside in zip(jets[i].tolist(), members[i].tolist(), strict=True):
            j_pt = float(np.hypot(jet["px"], jet["py"]))
            j_eta = float(np.arcsinh(jet["pz"] / j_pt))
            j_phi = float(np.arctan2(jet["py"], jet["px"]))
            distance = np.hypot(eta[partons] - j_eta, wrap(phi[partons] - j_phi))
            if j_pt > JET_PT[1] or abs(j_eta) > JET_MAX_ETA or not np.any(distance < MATCH_DR):
                continue
            mass2 = jet["E"] ** 2 - jet["px"] ** 2 - jet["py"] ** 2 - jet["pz"] ** 2
            rows = offsets[i] + np.array(inside)
            rows = rows[np.argsort(-c_pt[rows], kind="stable")]
            table = np.zeros((MAX_CONSTITUENTS, 3), np.float32)
            kept = rows[:MAX_CONSTITUENTS]
            table[: len(kept), 0] = c_pt[kept]
            table[: len(kept), 1] = c_eta[kept] - j_eta
            table[: len(kept), 2] = wrap(c_phi[kept] - j_phi)
            found.append((j_pt, table, (j_pt, j_eta, j_phi, np.sqrt(max(mass2, 0.0)), len(rows))))
        for _, table, row in sorted(found, key=lambda f: -f[0])[:2]:
            constituents.append(table)
            kinematics.append(row)
    n = len(constituents)
    return JetSet(
        constituents=np.array(constituents, np.float32).reshape(n, MAX_CONSTITUENTS, 3),
        labels=np.full(n, CLASSES.index(chunk.jet_class), np.int8),
        jets=np.array(kinematics, np.float32).reshape(n, 5),
    )


def _write_chunk(chunk: Chunk, path: Path) -> None:
    """A job: generates and stores one chunk, whole or not at all."""
    _silence()
    generate_chunk(chunk).write(path)


def split_sizes(jets: int) -> dict[str, list[int]]:
    """Jets of each class in each split: 80 / 10 / 10 %, classes alike, the first ones one more."""
    tenth = round(jets / 10)
    sizes = {"train": jets - 2 * tenth, "validation": tenth, "test": tenth}
    n = len(CLASSES)
    return {split: [size // n + (i < size % n) for i in range(n)] for split, size in sizes.items()}


def plan(jets: int | None) -> list[Chunk]:
    """Chunks that give about `jets` jets, else those of the jets the shipped models are trained on.

    Of few jets the chunks are smaller.
    """
    counts, size = dict(STANDARD), dict.fromkeys(SPLITS, EVENTS_PER_CHUNK)
    for split, (most, *_) in split_sizes(jets).items() if jets is not None else ():
        size[split] = min(EVENTS_PER_CHUNK, math.ceil(most / JETS_PER_COLLISION))
        counts[split] = math.ceil(most / (JETS_PER_COLLISION * size[split]))
    return [
        Chunk(split, jet_class, index, size[split])
        for split in SPLITS
        for index in range(counts[split])
        for jet_class in CLASSES
    ]


def generate(jets: int | None, folder: Path, runner: Runner, progress: Progress) -> Iterator[Path]:
    """Generates what is missing in `folder`/chunks, then joins each split to `folder`/<split>.h5.

    jets: in all, see `split_sizes`; `None` takes all jets of the standard chunks.
    `progress` counts collisions. An interrupted run drops the chunks it is at
    and continues with them. The jets are the same wherever, and in whatever order, chunks are made.
    """
    chunks = folder / "chunks"
    for path in (folder / f"{name}.h5" for name in (*SPLITS, "sample")):
        if path.exists() and not chunks.is_dir():
            raise UserError(
                f"{path}: is there, but not the chunks `salt-hls data` made it of; move it away, "
                f"or write elsewhere with {option('data')}"
            )
    chunks.mkdir(parents=True, exist_ok=True)
    wanted = plan(jets)
    sizes = None if jets is None else split_sizes(jets)
    while True:
        _make(wanted, chunks, runner, progress)
        more = [] if sizes is None else _more(wanted, chunks, sizes)
        if not more:
            break
        wanted += more
    for split in SPLITS:
        parts = []
        left = None if sizes is None else dict(zip(CLASSES, sizes[split], strict=True))
        for chunk in (c for c in wanted if c.split == split):
            part = JetSet.read(chunks / chunk.file_name)
            if left is not None:
                part = part[slice(left[chunk.jet_class])]
                left[chunk.jet_class] -= len(part)
            parts.append(part)
        path = folder / f"{split}.h5"
        joined = JetSet.concatenate(parts).shuffled(seed=SPLITS.index(split))
        joined.write(path)
        yield path
    # What keras_models/sample.h5 is a copy of: `joined` is the test split now.
    joined[slice(SAMPLE_JETS)].compact().write(folder / "sample.h5", compression="gzip")
    yield folder / "sample.h5"


def _make(wanted: Sequence[Chunk], chunks: Path, runner: Runner, progress: Progress) -> None:
    """Those that are not there yet."""
    folder = chunks.resolve()
    jobs = [Job(c.file_name, _write_chunk, (c,), folder / c.file_name) for c in wanted]
    sizes = {job.output: chunk.collisions for job, chunk in zip(jobs, wanted, strict=True)}
    done, total = 0, sum(sizes.values())
    progress("collisions", done, total)

    def written(job: Job) -> None:
        nonlocal done
        done += sizes[job.output]
        progress("collisions", done, total)

    runner.do(jobs, written, lambda text: progress(text, done, total))


def _silence() -> None:
    """FastJet prints its banner in every process, straight to the standard output."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _more(wanted: Sequence[Chunk], chunks: Path, sizes: dict[str, list[int]]) -> list[Chunk]:
    """One more chunk for every class of a split whose chunks hold too few jets."""
    more = []
    for split, needed in sizes.items():
        for jet_class, need in zip(CLASSES, needed, strict=True):
            there = [c for c in wanted if (c.split, c.jet_class) == (split, jet_class)]
            jets = (len(JetSet.read(chunks / c.file_name, particles=0)) for c in there)
            if sum(jets) < need:
                more.append(replace(there[-1], index=len(there)))
    return more
