"""Checksums of the shipped models' HLS projects: the same on every Python and TensorFlow.

`python tests/firmware_sums.py` renews the committed ones.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import salt_hls
from salt_hls.config import MODELS
from salt_hls.firmware.build import converted
from salt_hls.firmware.manifest import sums
from salt_hls.hls.convert import write_project
from salt_hls.models.tagger import load_tagger

GOLDEN = Path(__file__).with_name("golden")


def committed(model: str) -> dict[str, str]:
    """SHA-256 of each file, by its name; the file is one of `sha256sum`."""
    lines = (GOLDEN / f"{model}.sha256").read_text().splitlines()
    return {name: value for value, name in (line.split("  ", 1) for line in lines)}


def written(model: str, folder: Path) -> dict[str, str]:
    """Those of the project, written to `folder` as a build does."""
    return sums(write_project(converted(load_tagger(model), folder, "Vitis")))


if __name__ == "__main__":
    salt_hls.register()
    for name in sys.argv[1:] or sorted(path.stem for path in MODELS.glob("*.yaml")):
        with tempfile.TemporaryDirectory() as place:
            found = written(name, Path(place) / "firmware")
        lines = [f"{value}  {file}\n" for file, value in found.items()]
        (GOLDEN / f"{name}.sha256").write_text("".join(lines))
