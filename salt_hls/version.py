"""The version of salt-hls, and of what its firmware depends on."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

_DISTRIBUTIONS = {
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "hls4ml": ("hls4ml",),
    "qkeras": ("qkeras",),
    "numpy": ("numpy",),
}
"""The distributions that each comes in."""


def versions() -> dict[str, str]:
    """Version by package, of those that are installed."""
    found = {"salt-hls": __version__}
    for package, names in _DISTRIBUTIONS.items():
        for name in names:
            with suppress(PackageNotFoundError):
                found[package] = version(name)
                break
    return found
