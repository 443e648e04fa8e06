"""From jets to the tensor that a trigger delivers: selection, order, padding, input grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from salt_hls.config import Inputs, Order
from salt_hls.errors import UserError

ORDERS: tuple[Order, ...] = ("kt", "pt", "delta_r")


def order_particles(constituents: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """Sorts the particles of each jet, descending; padding (pT 0) stays last, ties stay.

    constituents: (jets, particles, 3) with pT [GeV], deta, dphi. kT^2 = pT^2 deltaR^2 orders like
    kT = pT deltaR, so hardware needs no square root.
    """
    pt, deta, dphi = (constituents[..., i].astype(np.float64) for i in range(3))
    if order not in ORDERS:
        raise UserError(f"order {order!r}: must be one of {', '.join(ORDERS)}")
    distance2 = deta**2 + dphi**2
    key = {"kt": pt**2 * distance2, "pt": pt, "delta_r": distance2}[order]
    key = np.where(pt > 0, key, -1.0)
    rows = np.argsort(-key, axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(constituents, rows[..., None], axis=1), np.float32)


def select_particles(constituents: NDArray[np.float32], particles: int) -> NDArray[np.float32]:
    """The `particles` of highest pT of each jet, zero-padded: (jets, particles, 3)."""
    hardest = order_particles(constituents, "pt")[:, :particles]
    missing = particles - hardest.shape[1]
    return np.pad(hardest, ((0, 0), (0, max(missing, 0)), (0, 0)))


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
    """Model input (jets, N, 3): select by pT, order, pad, put on the grid."""
    selected = select_particles(constituents, particles)
    return to_grid(order_particles(selected, inputs.order), inputs)
