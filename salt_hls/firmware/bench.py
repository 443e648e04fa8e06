"""Speed and memory of C-simulation, measured and written to a file."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_hls.firmware.build import write_and_compile
from salt_hls.hls.csim import PART, Csim, run_csim
from salt_hls.models.tagger import load_tagger, sample_inputs
from salt_hls.system.processes import Pool, process_pool
from salt_hls.system.progress import Progress
from salt_hls.system.store import replacing

REPEATS = 3


def bench(reference: str, path: Path, progress: Progress) -> dict[str, Any]:
    """Jets/s of C-simulation on one core and on all, the best of three; writes JSON to `path`."""
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    inputs, _ = sample_inputs(tagger)
    cores = len(os.sched_getaffinity(0))
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        progress("write and compile", 0, 1)
        start = time.perf_counter()
        project = write_and_compile(tagger, Path(folder), "Vitis", path.with_suffix(".compile.log"))
        compile_s = time.perf_counter() - start
        for number, workers in enumerate(sorted({1, cores})):
            progress("simulate", number, 2)
            with process_pool(workers) as pool:
                run_csim(project.csim, inputs[: PART * workers * 2], pool)  # starts the processes
                seconds = min(_seconds(project.csim, inputs, pool) for _ in range(REPEATS))
            rates[str(workers)] = round(len(inputs) / seconds, 1)
    result = {
        "model": tagger.name,
        "jets": len(inputs),
        "cores": cores,
        "csim_jets_per_s": rates,
        "csim_jets_per_s_per_core": {w: round(r / int(w), 1) for w, r in rates.items()},
        "write_and_compile_s": round(compile_s, 2),
        "peak_memory_mb": round(
            max(
                resource.getrusage(who).ru_maxrss
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            )
            / 1024
        ),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _seconds(csim: Csim, inputs: NDArray[np.float32], pool: Pool) -> float:
    start = time.perf_counter()
    run_csim(csim, inputs, pool)
    return time.perf_counter() - start
