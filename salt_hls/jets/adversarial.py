"""Inputs that are hard on arithmetic: ties, saturation, all least and all most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from salt_hls.fixed import FixedType


def adversarial_inputs(
    particles: int, types: tuple[FixedType, ...], seed: int = 0
) -> NDArray[np.float32]:
    """Inputs (jets, N, features) that real jets rarely give, on each feature's grid.

    All zero, all min, all max, alternating extremes, equal particles (ties), one particle alone,
    half-padded, and values drawn uniformly over the whole grid.
    """
    rng = np.random.default_rng(seed)
    low = np.array([t.min for t in types])
    high = np.array([t.max for t in types])
    lsb = np.array([t.lsb for t in types])

    def uniform(*shape: int) -> NDArray[np.float64]:
        steps = np.floor(rng.random((*shape, len(types))) * ((high - low) / lsb + 1))
        return np.asarray(low + steps * lsb)

    shape = (particles, len(types))
    alternating = np.where(np.arange(particles)[:, None] % 2 == 0, low, high)
    single = np.zeros(shape)
    single[0] = high
    fixed = [np.zeros(shape), np.tile(low, (particles, 1)), np.tile(high, (particles, 1))]
    fixed += [alternating, high + low - alternating, single]
    ties = np.repeat(uniform(20, 1), particles, axis=1)
    full = uniform(100, particles)
    padded = uniform(30, particles)
    padded[:, particles // 2 :] = 0
    steps = np.tile(lsb, (particles, 1))
    return np.asarray(np.concatenate([np.stack([*fixed, steps]), ties, full, padded]), np.float32)
