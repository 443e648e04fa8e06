"""From jets to the tensor that a trigger delivers: selection, order, padding, input grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from salt_hls.config import Inputs, Order
from salt_hls.errors import UserError
from salt_hls.jets.declustering import clustering_sequence

ORDERS: tuple[Order, ...] = ("kt", "pt", "delta_r", "lund", "shuffled")


def order_particles(constituents: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """Sorts the particles of each jet, descending; padding (pT 0) stays last, ties stay.

    constituents: (jets, particles, 3) with pT [GeV], deta, dphi. kT^2 = pT^2 deltaR^2 orders like
    kT = pT deltaR, so hardware needs no square root. "lund" follows `clustering_sequence`.
    "shuffled" depends on the particles alone, not on how they were ordered before.
    """
    if order not in ORDERS:
        raise UserError(f"order {order!r}: must be one of {', '.join(ORDERS)}")
    key = np.where(constituents[..., 0] > 0, _key(constituents, order), -1.0)
    rows = np.argsort(-key, axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(constituents, rows[..., None], axis=1), np.float32)


def _key(constituents: NDArray[np.float32], order: Order) -> NDArray[np.float64]:
    """What particles are sorted by, descending: (jets, particles), not negative."""
    if order == "lund":
        return np.asarray(constituents.shape[1] - clustering_sequence(constituents))
    if order == "shuffled":
        return _scrambled(constituents)
    pt = constituents[..., 0].astype(np.float64)
    if order == "pt":
        return pt
    distance2 = np.sum(constituents[..., 1:].astype(np.float64) ** 2, axis=-1)
    return np.asarray(distance2 if order == "delta_r" else pt**2 * distance2)


def _scrambled(constituents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pseudo-random numbers (jets, particles), fixed by the particle and its jet (SplitMix64)."""
    bits = np.ascontiguousarray(constituents, np.float32).view(np.uint32).astype(np.uint64)
    mixed = (bits * np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint64)).sum(axis=-1)
    mixed ^= mixed.sum(axis=1, keepdims=True)  # a jet's own shuffle; padding adds nothing
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.float64)


def select_particles(constituents: NDArray[np.float32], particles: int) -> NDArray[np.float32]:
    """The `particles` of highest pT of each jet, zero-padded: (jets, particles, 3)."""
    return first_particles(order_particles(constituents, "pt"), particles)


def first_particles(constituents: NDArray[np.float32], particles: int) -> NDArray[np.float32]:
    """The first `particles` of each jet, zero-padded: (jets, particles, 3)."""
    missing = max(particles - constituents.shape[1], 0)
    return np.pad(constituents[:, :particles], ((0, 0), (0, missing), (0, 0)))


def to_grid(particles: NDArray[np.float32], inputs: Inputs) -> NDArray[np.float32]:
    """Physical features on the input grid (float32 holds the grid exactly)."""
    columns = []
    for i, feature in enumerate(inputs.features):
        values = particles[..., i].astype(np.float64)
        if feature.curve == "log2":
            values = np.log2(1 + values)
        columns.append(feature.type.quantize(values * feature.scale))
    return np.asarray(np.stack(columns, axis=-1), np.float32)


def prepare(
    constituents: NDArray[np.float32], particles: int, inputs: Inputs
) -> NDArray[np.float32]:
    """Model input (jets, N, 3): select by pT, order, pad, put on the grid.

    The order "given" takes the first N as they come.
    """
    if inputs.order == "given":
        return to_grid(first_particles(constituents, particles), inputs)
    selected = select_particles(constituents, particles)
    return to_grid(order_particles(selected, inputs.order), inputs)
