"""C-simulation of a written HLS project: compiled with g++ and run over all cores.

This module imports neither TensorFlow nor hls4ml: the worker processes start in no time.
"""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.system.processes import Pool, do

PART = 250
"""Jets a process simulates at a time."""

COMPILE_FLAGS = ("-std=c++11", "-O3", "-fPIC", "-shared", "-w")


class Layout(NamedTuple):
    """A tensor's shape and its values in memory: more where the last transfer is partly filled."""

    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Csim:
    """A compiled project.

    library: the shared object. top: name of the top function. tensors: the input, then the output
    of every traced layer in graph order. outputs: the layers whose outputs are the model's, in
    order.
    """

    library: Path
    top: str
    tensors: Mapping[str, Layout]
    outputs: tuple[str, ...]

    def write(self, path: Path, inputs: Mapping[str, Any]) -> None:
        """Writes what `read` reads. inputs: the model's input grid, as in its YAML."""
        content = {
            "top": self.top,
            "library": self.library.name,
            "tensors": self.tensors,
            "outputs": self.outputs,
            "inputs": inputs,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> tuple[Csim, dict[str, Any]]:
        """The compiled project in the folder of `path`, and its input grid.

        Raises `OSError` or `ValueError` where there is none.
        """
        content = json.loads(path.read_text())
        try:
            tensors = {n: Layout(tuple(s), size) for n, (s, size) in content["tensors"].items()}
            library = path.resolve().with_name(content["library"])
            csim = Csim(library, content["top"], tensors, tuple(content["outputs"]))
            return csim, content["inputs"]
        except (KeyError, TypeError, AttributeError):
            raise ValueError("not what Csim.write wrote") from None


def compile_csim(
    project: Path,
    top: str,
    tensors: Mapping[str, Layout],
    outputs: Sequence[str],
    folder: Path,
    log: Path,
) -> Csim:
    """Compiles the project of top function `top` to a shared object in `folder`.

    Raises `UserError` when there is no compiler or it fails; its messages are left in `log`.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise UserError("g++: no C++ compiler found; install one (Debian: apt-get install g++)")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{top}.so"
    command = [
        compiler,
        *COMPILE_FLAGS,
        f"-I{project / 'firmware' / 'ap_types'}",
        str(project / "firmware" / f"{top}.cpp"),
        str(project / f"{top}_bridge.cpp"),
        "-o",
        str(library),
    ]
    do("C-simulation does not compile", command, Path(), log)
    return Csim(library, top, dict(tensors), tuple(outputs))


def run_csim(
    csim: Csim,
    inputs: NDArray[np.float32],
    pool: Pool,
    trace: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, NDArray[np.float64]]:
    """Outputs (jets, *shape) by layer name: of the model, or of every layer with `trace`.

    inputs: (jets, ...) grid floats. `progress` receives the number of jets just finished.
    """
    jobs = {
        f"C-simulation of {csim.top} from jet {i}": (csim, inputs[i : i + PART], trace)
        for i in range(0, len(inputs), PART)
    }
    results = pool.map(_run_part, jobs, lambda part: progress(len(next(iter(part.values())))))
    return {name: np.concatenate([r[name] for r in results]) for name in results[0]}


def joined(outputs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """A model's one output (events, *shape); several as (events, values), one after the other."""
    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


class _Trace(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p))


@lru_cache(maxsize=4)
def _load(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise UserError(f"C-simulation cannot be loaded ({error}); build it again") from None


def _run_part(
    csim: Csim, inputs: NDArray[np.float32], trace: bool
) -> dict[str, NDArray[np.float64]]:
    library = _load(csim.library)
    pointer = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
    function = library[f"{csim.top}_double"]
    function.restype = None
    function.argtypes = [pointer] * (1 + len(csim.outputs))
    given, *layers = csim.tensors
    results = {
        name: np.empty((len(inputs), *csim.tensors[name].shape))
        for name in (layers if trace else csim.outputs)
    }
    data = np.zeros((len(inputs), csim.tensors[given].size))
    data[:, : inputs[0].size] = inputs.reshape(len(inputs), -1)
    scratch = {name: np.empty(csim.tensors[name].size) for name in csim.outputs}
    traced = (_Trace * len(layers))()
    if trace:
        library.allocate_trace_storage(ctypes.c_size_t(8))
    for event in range(len(data)):
        function(data[event], *scratch.values())
        if not trace:
            for name, output in scratch.items():
                results[name][event].flat[:] = output[: results[name][event].size]
            continue
        library.collect_trace_output(traced)
        for row in traced:
            name = row.name.decode()
            size = csim.tensors[name].size
            values = ctypes.cast(row.data, ctypes.POINTER(ctypes.c_double * size)).contents
            results[name][event].flat[:] = values[: results[name][event].size]
    if trace:
        library.free_trace_storage()
    return results
