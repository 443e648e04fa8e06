"""docs/add-a-layer.md: its blocks are a layer that passes the conformance tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from salt_hls.system.paths import CHECKOUT

DOCUMENT = CHECKOUT / "docs" / "add-a-layer.md"
BLOCK = re.compile(r"(?ms)^```(?:python|cpp)\n(.*?)^```")
FILES = ("operation.py", "keras.py", "nnet_scale_shift.h", "cases.py")


@pytest.mark.slow
def test_the_layer_of_the_document_passes(tmp_path: Path) -> None:
    for name in ("salt_hls", "hls_templates", "keras_models", "tests"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    folder = tmp_path / "salt_hls" / "layers" / "scale_shift"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A scaling by a power of two."""\n')
    blocks = BLOCK.findall(DOCUMENT.read_text())
    for name, text in zip(FILES, blocks, strict=True):
        place = tmp_path / "hls_templates" if name.endswith(".h") else folder
        (place / name).write_text(text)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*tests, "tests/test_conformance.py", "-k", "scale_shift"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
    lint = [sys.executable, "-m", "ruff", "check", "--config", str(CHECKOUT / "pyproject.toml")]
    checked = subprocess.run([*lint, folder], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
