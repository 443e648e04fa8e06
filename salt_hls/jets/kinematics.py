"""Momenta and angles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_AZIMUTH = 3 * np.pi
"""Radians. Azimuths in [-pi, pi) or [0, 2 pi), some of them unwrapped to stay within pi of their
jet's, and differences of two of them: nothing reaches this, and degrees do."""


def wrap(phi: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Azimuth differences in [-pi, pi)."""
    return np.asarray((phi + np.pi) % (2 * np.pi) - np.pi, np.float64)


def relative_to_axis(
    momenta: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Constituents and jets, as `JetSet` holds them, of four-momenta (jets, particles, 4).

    momenta: E, px, py, pz in GeV, zeros for padding. The axis is that of the sum of the momenta.
    """
    exact = momenta.astype(np.float64)
    pt, eta, phi = _pt_eta_phi(exact)
    total = exact.sum(axis=1)
    jet_pt, jet_eta, jet_phi = _pt_eta_phi(total)
    real = pt > 0
    angles = (eta - jet_eta[:, None], wrap(phi - jet_phi[:, None]))
    constituents = np.stack([pt, *(np.where(real, a, 0) for a in angles)], axis=-1)
    mass2 = total[:, 0] ** 2 - np.sum(total[:, 1:] ** 2, axis=1)
    jets = (jet_pt, jet_eta, jet_phi, np.sqrt(np.maximum(mass2, 0)), real.sum(axis=1))
    return constituents.astype(np.float32), np.stack(jets, axis=-1).astype(np.float32)


def _pt_eta_phi(
    momenta: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    _, px, py, pz = np.moveaxis(momenta, -1, 0)
    pt = np.hypot(px, py)
    return (
        pt,
        np.arcsinh(np.divide(pz, pt, out=np.zeros_like(pt), where=pt > 0)),
        np.arctan2(py, px),
    )
