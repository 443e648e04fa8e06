"""Checks of what a file holds: shapes, numbers, units, angles, order, labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import FEATURES, JetSet
from salt_hls.jets.kinematics import MAX_AZIMUTH, wrap
from salt_hls.jets.ordering import first_particles, select_particles
from salt_hls.jets.readers.base import refuse, require_finite

MAX_JET_PT = 7000.0
"""GeV; no LHC jet has more, so a typical jet above it is in MeV."""

MIN_JET_PT = 2.0
"""GeV; a typical jet below it has relative pT, or TeV."""

MAX_OFFSET = 0.2
"""A typical jet whose pT-weighted mean angle is farther from 0 is not relative to its axis."""


class Collector:
    """Takes slices of one split, checks them and keeps the hardest particles of every jet.

    What can be mended is mended and told in `notes`; everything else raises `UserError`.
    """

    def __init__(self, source: Path, particles: int, ordered: bool) -> None:
        self.source, self.particles, self.ordered = source, particles, ordered
        self.notes: list[str] = []
        self._parts: list[JetSet] = []
        self._pt: list[NDArray[np.float64]] = []
        self._offset: list[NDArray[np.float64]] = []
        self._seen = self._empty = self._unsorted = self._wrapped = 0
        self._file, self._row = source, 0

    def begin(self, file: Path) -> None:
        """What `add` gets next is of `file`."""
        self._file, self._row = file, 0

    def add(self, part: JetSet) -> None:
        """The next slice: (jets, any number of particles, 3), labels of any integer type."""
        self._check_values(part)
        count = len(part)
        if part.features == FEATURES:
            part = self._mended(part)
        self._seen += count
        self._row += count
        self._parts.append(replace(part, labels=part.labels.astype(np.int8)))

    def finish(self) -> JetSet:
        """All jets, (jets, `particles`, 3); raises `UserError` for units and angles gone wrong."""
        if not sum(len(part) for part in self._parts):
            raise UserError(f"{self.source}: no jets in it ({self._empty} are empty)")
        jets = JetSet.concatenate(self._parts)
        self._parts.clear()
        if jets.features == FEATURES:
            jets = self._physical(jets)
        if self._empty:
            self._note(f"{self._empty} of {self._seen} jets have no particle: left out")
        if self._unsorted and self.ordered:
            self._note(f"{self._unsorted} of {self._seen} jets are not in descending pT: sorted")
        if self._wrapped:
            self._note(f"{self._wrapped} dphi are outside of [-pi, pi): wrapped")
        return jets

    def _note(self, text: str) -> None:
        self.notes.append(f"{self.source}: {text}")

    def _check_values(self, part: JetSet) -> None:
        shape = part.constituents.shape
        if len(shape) != 3 or shape[2] != 3 or part.labels.shape != shape[:1]:
            raise UserError(
                f"{self._file}: constituents must be (jets, particles, 3) with as many labels, "
                f"got {shape} and {part.labels.shape}"
            )
        if self._parts and part.classes != self._parts[0].classes:
            raise UserError(
                f"{self._file}: files of different classes: {', '.join(self._parts[0].classes)} "
                f"and {', '.join(part.classes)}"
            )
        require_finite(self._file, self._row, part.constituents, part.features)
        wrong = ~np.isin(part.labels, np.arange(len(part.classes)))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"{self._file}: jet {self._row + row} has label {part.labels[row]}; labels are "
                f"0 ... {len(part.classes) - 1} ({', '.join(part.classes)})"
            )

    def _mended(self, part: JetSet) -> JetSet:
        particles = part.constituents.copy()
        pt, dphi = particles[..., 0], particles[..., 2]
        negative = np.zeros(particles.shape, bool)
        negative[..., 0] = pt < 0
        refuse(self._file, self._row, part.constituents, negative, part.features, "negative pT")
        particles[pt == 0] = 0
        self._check_angles(particles)
        outside = (dphi < -np.pi) | (dphi > np.pi)
        self._wrapped += int(outside.sum())
        dphi[outside] = wrap(dphi[outside])
        total = pt.sum(axis=1, dtype=np.float64)
        full = total > 0
        self._empty += int((~full).sum())
        unsorted = np.any(np.diff(pt, axis=1) > 0, axis=1)
        self._unsorted += int(unsorted.sum())
        weighted = np.einsum("np,npa->na", pt[full], particles[full, :, 1:], dtype=np.float64)
        self._pt.append(total[full])
        self._offset.append(np.hypot(*(weighted / total[full, None]).T))
        hardest = select_particles if unsorted.any() else first_particles
        part = replace(part, constituents=hardest(particles, self.particles))
        return part if full.all() else part[np.flatnonzero(full)]

    def _check_angles(self, particles: NDArray[np.float32]) -> None:
        largest = float(np.abs(particles[..., 2]).max(initial=0))
        if largest > MAX_AZIMUTH:
            raise UserError(
                f"{self._file}: dphi reaches {largest:g}; it must be in radians and relative to "
                "the jet axis"
            )

    def _physical(self, jets: JetSet) -> JetSet:
        offset, pt = (float(np.median(np.concatenate(v))) for v in (self._offset, self._pt))
        if offset > MAX_OFFSET:
            raise UserError(
                f"{self.source}: angles must be relative to the jet axis, but the middle of a "
                f"typical jet is {offset:.2g} away from it"
            )
        if pt < MIN_JET_PT:
            raise UserError(
                f"{self.source}: pT must be in GeV, but a typical jet has {pt:.3g}; it looks "
                "relative to the jet, or in TeV"
            )
        if pt <= MAX_JET_PT:
            return jets
        self._note(f"a typical jet has pT {pt:.3g}: taken as MeV and divided by 1000")
        jets.constituents[..., 0] /= 1000
        jets.jets[:, [0, 3]] /= 1000
        return jets
