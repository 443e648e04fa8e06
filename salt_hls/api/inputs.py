"""From physical quantities in numpy arrays to a model's input grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from salt_hls import config
from salt_hls.config import find_model, first_fault, load_saved_model, read_yaml
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.jets.dataset import FEATURES, POINTS
from salt_hls.jets.kinematics import MAX_AZIMUTH, wrap
from salt_hls.jets.ordering import prepare
from salt_hls.jets.readers.base import refuse, require_finite
from salt_hls.jets.readers.checks import MAX_JET_PT, MAX_OFFSET, MIN_JET_PT

NAME = Path("Inputs")
"""In front of messages."""


class Inputs:
    """Puts the particles of jets on the input grid of a model, as a trigger would deliver them.

    Called with particles (jets, M, 3) of any number M, it returns (jets, N, 3) float32: the N of
    highest pT, in the model's order (descending kT = pT * deltaR unless its YAML says otherwise;
    of equal ones the harder first, then as given), zeros after the last, every feature rounded to
    its type. This is the code that training and `make firmware` use, so the same particles give
    the same bits.

    model: a shipped model's name; a path to a YAML, or to a saved Keras model with its YAML beside
    it; or the section `inputs` of such a YAML as a dictionary: `order`, and `curve`, `scale` and
    `type` of `pt`, `deta`, `dphi`; or `{"type": "ap_fixed<W,I>"}` for values of one type, which are
    rounded and nothing else, in any shape. particles: N, where a full YAML does not say it.

    Raises `UserError` for a model or grid that is none.
    """

    def __init__(self, model: str | Path | Mapping[str, Any], particles: int | None = None) -> None:
        self.grid: config.Inputs | config.Grid
        known: Any = None
        if isinstance(model, Mapping):
            kind = config.Grid if "type" in model else config.Inputs
            try:
                self.grid = kind.model_validate(dict(model))
            except ValidationError as error:
                raise UserError(f"{NAME}: {first_fault(error)}") from None
        else:
            path = find_model(str(model))
            path = path if path.suffix in (".yaml", ".yml") else path.with_suffix(".yaml")
            self.grid, known = load_saved_model(path).inputs, read_yaml(path).get("particles")
        particles = known if particles is None else particles
        if isinstance(self.grid, config.Inputs):
            if particles is None:
                raise UserError(
                    f"{NAME}: particles: how many does the model take? Give particles=N"
                )
            whole = isinstance(particles, int | np.integer) and not isinstance(particles, bool)
            if not whole or not 1 <= particles <= config.MAX_COUNT:
                raise UserError(
                    f"{NAME}: particles: must be a whole number from 1 to {config.MAX_COUNT}, "
                    f"got {particles!r}"
                )
            self.particles: int | None = int(particles)
        else:
            self.particles = None

    def __repr__(self) -> str:
        grid = self.grid.model_dump(mode="json")
        return f"Inputs({grid}, particles={self.particles})"

    @property
    def types(self) -> tuple[FixedType, ...]:
        """Types of the features, along the last axis of the input; one where all have the same."""
        if isinstance(self.grid, config.Grid):
            return (self.grid.type,)
        return tuple(feature.type for feature in self.grid.features)

    @property
    def precision(self) -> str:
        """What hls4ml's configuration needs as the precision of the input: an `ap_fixed<...>`.

        The narrowest one type that holds the grids of all features.
        """
        return str(self.grid.container)

    def __call__(self, particles: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float32]:
        """The model's input, (jets, N, 3) float32, of particles (jets, M, 3).

        particles: pT in GeV, and deta and dphi in radians relative to the jet's axis. A particle
        of pT 0 is none, nor is one masked in a numpy masked array. mask: (jets, M), true where
        there is a particle; what is not one may hold anything. Values are taken as float32, as
        everywhere here. What is beyond the range of its type does what the type says: with SAT it
        becomes the type's greatest value. dphi is wrapped into [-pi, pi).

        Raises `UserError` for another shape, NaN, infinity, negative pT, MeV and degrees; warns of
        angles that seem not relative to an axis, and of pT that seems relative or in TeV.
        """
        values = _numbers(particles)
        if isinstance(self.grid, config.Grid):
            if mask is not None:
                raise UserError(f"{NAME}: mask: this model's input is no particles; leave it out")
            if not np.all(np.isfinite(values)):
                raise UserError(f"{NAME}: the values hold NaN or infinity; mend or remove them")
            return np.asarray(self.grid.type.quantize(values), np.float32)
        features = len(self.grid.features)
        if values.ndim != 3 or values.shape[2] != features:
            fix = "; one jet is x[None]" if values.shape[1:] == (features,) else ""
            raise UserError(
                f"{NAME}: particles must be (jets, particles, {features}) with "
                f"{', '.join(FEATURES)}, got {values.shape}{fix}"
            )
        if mask is not None:
            values[~_mask(mask, values.shape[:2])] = 0
        points = self.grid.order == "given"
        require_finite(NAME, 0, values, POINTS if points else FEATURES)
        if not points:
            values = _physical(values)
        logarithmic = [feature.curve == "log2" for feature in self.grid.features]
        refuse(NAME, 0, values, (values < 0) & logarithmic, FEATURES, "log2(1 + x) of a negative x")
        return prepare(values, cast(int, self.particles), self.grid)


def _numbers(values: ArrayLike) -> NDArray[np.float32]:
    """A copy in float32, zeros where numpy masks."""
    try:
        array = np.ma.filled(np.ma.asanyarray(values), 0)  # type: ignore[no-untyped-call]
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf":
        raise UserError(
            f"{NAME}: needs one array of numbers, got {array.dtype}; jets of different numbers of "
            "particles are padded with zeros to (jets, particles, 3)"
        )
    with np.errstate(over="ignore"):
        return np.array(array, np.float32)


def _mask(mask: ArrayLike, shape: Sequence[int]) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.shape != shape or array.dtype != bool:
        raise UserError(
            f"{NAME}: mask must be bool (jets, particles) = {shape}, true where there is a "
            f"particle, got {array.dtype} {array.shape}"
        )
    return array


def _physical(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Checked and mended as the readers of data sets do it: pT 0 is padding, dphi is wrapped."""
    negative = np.zeros(values.shape, bool)
    negative[..., 0] = values[..., 0] < 0
    refuse(NAME, 0, values, negative, FEATURES, "negative pT")
    pt, dphi = values[..., 0], values[..., 2]
    values[pt == 0] = 0
    if (largest := np.abs(dphi).max(initial=0)) > MAX_AZIMUTH:
        raise UserError(
            f"{NAME}: dphi reaches {largest:g}; it must be in radians, relative to the jet's axis"
        )
    outside = (dphi < -np.pi) | (dphi > np.pi)
    dphi[outside] = wrap(dphi[outside])
    total = pt.sum(axis=1, dtype=np.float64)
    if not total.any():
        return values
    full = total > 0
    typical = float(np.median(total[full]))
    if typical > MAX_JET_PT:
        raise UserError(
            f"{NAME}: pT must be in GeV, but a typical jet has {typical:.3g}; divide MeV by 1000"
        )
    if typical < MIN_JET_PT:
        warnings.warn(
            f"{NAME}: pT must be in GeV, but a typical jet has {typical:.3g}: is it relative to "
            "the jet's, or in TeV?",
            stacklevel=3,
        )
    weighted = np.einsum("jp,jpa->ja", pt[full], values[full, :, 1:], dtype=np.float64)
    offset = float(np.median(np.hypot(*(weighted / total[full, None]).T)))
    if offset > MAX_OFFSET:
        warnings.warn(
            f"{NAME}: angles must be relative to the jet's axis, but the middle of a typical jet "
            f"is {offset:.2g} away from it",
            stacklevel=3,
        )
    return values


def inputs_of(model: Any, inputs: Inputs | None, what: str) -> Inputs:
    """The inputs of a Keras model, as given. what: in front of messages.

    Raises `UserError` when there are none, or of another shape.
    """
    shapes = [tuple(tensor.shape[1:]) for tensor in getattr(model, "inputs", None) or []]
    if not shapes:
        raise UserError(
            f"{what}: model: must be a name, a path or a Keras model that is built, "
            f"got {type(model).__name__}"
        )
    if inputs is None:
        raise UserError(
            f"{what}: inputs: a Keras model does not say what grid its input is on; give "
            "inputs=salt_hls.Inputs(...)"
        )
    wanted = (inputs.particles, len(inputs.types))
    if inputs.particles is not None and shapes != [wanted]:
        raise UserError(
            f"{what}: inputs: are {wanted}, the model's {', '.join(map(str, shapes))}; give "
            "salt_hls.Inputs(..., particles=N) of the model's N"
        )
    return inputs


def require_on_grid(
    values: ArrayLike, shape: Sequence[int], types: Sequence[FixedType], what: str
) -> NDArray[np.float32]:
    """An array (events, *shape) whose values are those of the types along its last axis.

    types: one for each feature, or one for all. what: in front of messages. Raises `UserError`
    with the first value that is not on its grid.
    """
    x, shape = np.asarray(values), tuple(shape)
    if x.dtype.kind not in "iuf":
        raise UserError(f"{what}: needs an array of numbers, got {x.dtype}")
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape:
        fix = "; one event is x[None]" if x.shape == shape else ""
        raise UserError(
            f"{what}: needs an array ({', '.join(map(str, ('events', *shape)))}), "
            f"got {x.shape}{fix}"
        )
    by_feature = [*types] * (shape[-1] if len(types) == 1 else 1)
    with np.errstate(invalid="ignore"):
        columns = [t.quantize(x[..., k]) for k, t in enumerate(by_feature)]
    wrong = np.stack(columns, axis=-1) != x
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"{what}: {np.count_nonzero(wrong):,} of {x.size:,} values are not on the input grid, "
            f"the first {x[place]:g} at {list(place)}, which must be {by_feature[place[-1]]}; "
            "salt_hls.Inputs puts pT in GeV and angles in radians on it"
        )
    return np.asarray(x, np.float32)
