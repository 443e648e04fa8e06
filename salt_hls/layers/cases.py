"""What a layer's `cases.py` lists: configurations that the conformance tests run everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """One layer configuration with its inputs.

    layer: arguments of the Keras class. inputs: (shape without the batch axis, `ap_fixed<...>`
    text) of each input. The tests also replace every type by random ones. weights: those that are
    not drawn at random, by name. streams: whether it has an io_stream form, at any number of
    particles a clock.
    """

    name: str
    layer: dict[str, Any]
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    streams: bool = True
