"""What a layer's `cases.py` lists: configurations that the conformance tests run everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One layer configuration with its inputs.

    layer: arguments of the Keras class. inputs: (shape without the batch axis, `ap_fixed<...>`
    text) of each input. The tests also replace every type by random ones.
    """

    name: str
    layer: dict[str, Any]
    inputs: tuple[tuple[tuple[int, ...], str], ...]
