"""manifest.json of a build: what its firmware was made from, and what may replace it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from salt_hls.errors import UserError
from salt_hls.graph.graph import Graph
from salt_hls.graph.key import FIRMWARE_CODE, graph_digest
from salt_hls.hls.convert import Backend
from salt_hls.models.tagger import SAMPLE, Tagger
from salt_hls.report.folder import (
    CSIM,
    DIAGNOSIS,
    EARLIER,
    JSON,
    MANIFEST,
    PAGE,
    PROJECT,
    RTL,
)
from salt_hls.report.records import Report
from salt_hls.system.digest import digest
from salt_hls.version import versions


def write_manifest(folder: Path, tagger: Tagger, backend: Backend, graph: Graph) -> None:
    """Hashes of what went in and of every firmware file that came out."""
    manifest = {
        "model": tagger.name,
        "backend": backend,
        "key": key_of(tagger, graph, backend),
        "versions": versions(),
        "compiler": compiler(),
        "inputs": {p.name: sha256(p) for p in (*tagger.files, SAMPLE)},
        "firmware": sums(folder / PROJECT),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a build; empty when there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def is_build(folder: Path) -> bool:
    """Whether `build_firmware` wrote the folder, or nothing but `diagnose` has."""
    return {"key", "firmware"} <= set(read_manifest(folder)) or {
        p.name for p in folder.iterdir()
    } == {DIAGNOSIS}


def known_report(new: Path, old: Path, report: Report) -> Report | None:
    """The report of the folder `old` if its firmware is that of `new`, checked on the same jets."""
    if read_manifest(new)["firmware"] != read_manifest(old).get("firmware"):
        return None
    try:
        known = Report.read(old / JSON)
    except UserError:  # of another version of salt-hls, or damaged
        return None
    return known if known.inputs_sha256 == report.inputs_sha256 else None


def kept(folder: Path, same: bool) -> list[str]:
    """What stays of a folder that is replaced: what no build writes; all of the same firmware."""
    written = {PROJECT, CSIM, MANIFEST, JSON, PAGE, *(() if same else (RTL, EARLIER))}
    there = folder.iterdir() if folder.is_dir() else ()
    return [p.name for p in there if p.name not in written and not p.name.startswith(".")]


def key_of(tagger: Tagger, graph: Graph, backend: Backend) -> str:
    """Digest of all that firmware and its report depend on."""
    config = tagger.config.model_dump_json()
    files = [*tagger.files, SAMPLE, *FIRMWARE_CODE]
    return digest(graph_digest(graph), backend, config, files, versions(), compiler())


def compiler() -> str | None:
    """What g++ says it is; `None` where there is none."""
    program = shutil.which("g++")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.partition("\n")[0]


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path there."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): sha256(p) for p in files}


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
