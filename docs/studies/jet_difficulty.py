"""What makes the generated jets hard to tell apart: detector response or underlying event?

Generates small sets with each switched off, and trains boosted trees on jet observables (masses,
multiplicities, energy correlations): a model that needs no long training. Prints one line for each
set; about 25 minutes on one core. Run: .venv/bin/python docs/studies/jet_difficulty.py
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from salt_hls.jets import generator
from salt_hls.jets.dataset import CLASSES, JetSet

EVENTS = 2500
Values = NDArray[np.float64]


def mass(pt: Values, deta: Values, dphi: Values) -> Values:
    """Invariant mass of massless particles."""
    energy, pz = (pt * np.cosh(deta)).sum(1), (pt * np.sinh(deta)).sum(1)
    px, py = (pt * np.cos(dphi)).sum(1), (pt * np.sin(dphi)).sum(1)
    return np.asarray(np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0)))


def observables(constituents: NDArray[np.float32]) -> Values:
    """Jet observables (jets, 31) from constituents (jets, particles, 3)."""
    pt, deta, dphi = (constituents[..., i].astype(np.float64) for i in range(3))
    r = np.hypot(deta, dphi)
    z = pt / pt.sum(1, keepdims=True)
    found = [mass(pt, deta, dphi), (pt > 0).sum(1), pt.sum(1)]
    for cut in (1, 3, 8, 20):
        found += [mass(np.where(pt > cut, pt, 0), deta, dphi), (pt > cut).sum(1)]
    for radius in (0.1, 0.2, 0.3, 0.4):
        inside = np.where(r < radius, pt, 0)
        found += [mass(inside, deta, dphi), inside.sum(1) / pt.sum(1)]
    found += [(z * r).sum(1), (z * r * r).sum(1), (z * np.sqrt(r)).sum(1), (z * z).sum(1)]
    k = slice(0, 40)
    distance = np.hypot(deta[:, k, None] - deta[:, None, k], dphi[:, k, None] - dphi[:, None, k])
    for beta in (0.5, 1.0, 2.0):
        a, w = distance**beta, z[:, k]
        e2 = np.einsum("nij,ni,nj->n", a, w, w, optimize="greedy") / 2
        e3 = np.einsum("nij,njk,nki,ni,nj,nk->n", a, a, a, w, w, w, optimize="greedy") / 6
        e2 = np.maximum(e2, 1e-9)
        found += [e2, e3, e3 / e2**3, e3 / e2**2]
    return np.stack(found, axis=1)


def accuracy(jets: JetSet, particles: int) -> float:
    """Accuracy of boosted trees on a quarter of the jets, trained on the rest."""
    parts = [jets.constituents[i : i + 2000, :particles] for i in range(0, len(jets), 2000)]
    x = np.concatenate([observables(part) for part in parts])
    n = 3 * len(x) // 4
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[:n], jets.labels[:n])
    return float(np.mean(model.predict(x[n:]) == jets.labels[n:]))


def no_response(
    pt: Values, eta: Values, phi: Values, pdg: object, charged: object, event: object, rng: object
) -> tuple[Values, Values, Values, object]:
    """Every visible particle as generated."""
    return pt, eta, phi, event


def main() -> None:
    """One line for each set."""
    processes, smear = dict(generator.PROCESSES), generator.smear
    generator.EVENTS_PER_CHUNK = EVENTS
    for name, response, underlying in (
        ("as generated", True, True),
        ("no detector response", False, True),
        ("no underlying event", True, False),
    ):
        generator.smear = smear if response else no_response  # type: ignore[assignment]
        off = () if underlying else ("PartonLevel:MPI=off",)
        generator.PROCESSES = {k: v + off for k, v in processes.items()}
        chunks = [generator.Chunk("train", jet_class, 900) for jet_class in CLASSES]
        jets = JetSet.concatenate([generator.generate_chunk(c) for c in chunks]).shuffled(0)
        rates = ", ".join(f"N = {n}: {accuracy(jets, n):.4f}" for n in (32, 150))
        sys.stdout.write(f"{name}: {len(jets)} jets, accuracy {rates}\n")


if __name__ == "__main__":
    main()
