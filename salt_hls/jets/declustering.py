"""Clustering sequence of a jet, with FastJet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from salt_hls.system.extras import need

RADIUS = 100.0
"""Wider than any jet: all particles end in one."""


def clustering_sequence(constituents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Position of each particle in its jet's declustering, 0 first: (jets, particles).

    constituents: (jets, particles, 3) with pT [GeV], deta, dphi; particles of pT 0 come last. The
    particles are clustered as massless with the Cambridge/Aachen algorithm, the clustering is
    undone step by step, and at each step the branch without the hardest particle of the two comes
    first, itself ordered in the same way. So the emissions along the primary Lund plane follow each
    other from wide to small angles, each with its particles together, and the hardest particle is
    last (Dreyer, Salam, Soyez, arXiv 1807.04758; there the harder branch is that of larger pT).
    """
    need("order lund", "data")
    import awkward as ak
    import fastjet

    jets, particles, _ = constituents.shape
    positions = np.full((jets, particles), particles, np.float64)
    pt = constituents[..., 0].astype(np.float64)
    # By falling pT: FastJet then visits the branch of the hardest particle, the lowest, first.
    hardest = np.argsort(-pt, axis=1, kind="stable")
    counts = np.count_nonzero(pt > 0, axis=1)
    real = np.arange(particles) < counts[:, None]
    ordered = np.take_along_axis(constituents.astype(np.float64), hardest[..., None], axis=1)
    p, deta, dphi = ordered[real].T
    momenta = ak.zip(
        {
            "px": p * np.cos(dphi),
            "py": p * np.sin(dphi),
            "pz": p * np.sinh(deta),
            "E": p * np.cosh(deta),
        },
        with_name="Momentum4D",
    )
    filled = counts > 0
    cluster = fastjet.ClusterSequence(
        ak.unflatten(momenta, counts[filled]),
        fastjet.JetDefinition(fastjet.cambridge_algorithm, RADIUS),
    )
    history = cluster.unique_history_order()
    # Entries from the number of particles on are clusterings, not particles.
    sequence = ak.to_numpy(ak.flatten(history[history < counts[filled]]))
    row = np.repeat(np.arange(jets), counts)
    step = np.concatenate([np.arange(n)[::-1] for n in counts[filled]])
    positions[row, hardest[row, sequence]] = step
    return positions
