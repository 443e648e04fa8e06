"""Built firmware, run on one's own arrays.

To load and to simulate what was built takes neither TensorFlow nor hls4ml.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from salt_hls.api.inputs import Inputs, inputs_of, require_on_grid
from salt_hls.config import find_model
from salt_hls.errors import UserError
from salt_hls.hls.csim import Csim, joined, run_csim
from salt_hls.report.budget import DEFAULT_BUDGET, load_budget
from salt_hls.report.folder import CACHE, INTERFACE, RTL, SIMULATED, build_folder
from salt_hls.system.extras import need
from salt_hls.system.processes import cores, process_pool
from salt_hls.system.progress import Progress, silent
from salt_hls.system.store import locked

if TYPE_CHECKING:
    import tensorflow as tf


class Firmware:
    """Checked firmware in its build folder, to be simulated on arrays: `build` or `load` it.

    folder: what `make firmware` writes, with the HLS project, report.html and, if made, the RTL.
    inputs: puts particles on the grid of the model's input; see `Inputs`. shape: of one event's
    input, (particles, features) or (features,).
    """

    def __init__(self, folder: Path, csim: Csim, inputs: Inputs) -> None:
        self.folder, self.inputs, self._csim = folder, inputs, csim
        self.shape = next(iter(csim.tensors.values())).shape

    def __repr__(self) -> str:
        return f"Firmware({str(self.folder)!r})"

    @staticmethod
    def build(
        model: str | Path | tf.keras.Model,
        folder: str | Path = "build",
        *,
        inputs: Inputs | None = None,
        backend: Literal["Vitis", "Vivado"] = "Vitis",
        rtl: bool = False,
        progress: Progress = silent,
    ) -> Firmware:
        """Builds firmware into `folder`/<name> and compares every bit, as `make firmware` does.

        What is there already is taken if it is of the same model, code and versions.

        model: a shipped model's name; a path to a YAML, its weights beside it, or to a saved Keras
        model, its YAML beside it; or a Keras model, built under its own name, then `inputs` says
        what grid it takes. rtl: make the Verilog as well, and simulate it. progress: `print` does.

        Raises `UserError` for what cannot be built, and when a single bit differs.
        """
        if rtl:
            need("Firmware.build: rtl=True", "rtl")
        if not isinstance(model, str | Path):
            with tempfile.TemporaryDirectory() as temporary:
                path = _saved(model, inputs, Path(temporary))
                return Firmware.build(path, folder, backend=backend, rtl=rtl, progress=progress)
        if inputs is not None:
            raise UserError("Firmware.build: inputs: only for a Keras model; a file has its YAML")
        place = build_folder(Path(folder), find_model(str(model)).stem)
        from salt_hls.firmware.build import checked_firmware

        budget = load_budget(DEFAULT_BUDGET)
        with locked(place):
            made = checked_firmware(str(model), backend, Path(folder), budget, cores(), progress)
            if rtl:
                from salt_hls.rtl.build import Options, build_rtl

                cache = place.with_name(CACHE)
                build_rtl(made, Options(), budget, cache, cores(), progress)
        return Firmware.load(place)

    @staticmethod
    def load(folder: str | Path) -> Firmware:
        """The firmware in a build folder, `build/<name>`. Raises `UserError` where there is none.

        Nothing is built or checked again; `build` sees whether the model has changed since.
        """
        folder = Path(folder).resolve()  # the user may go elsewhere meanwhile
        try:
            csim, grid = Csim.read(folder / INTERFACE)
            particles, *_ = next(iter(csim.tensors.values())).shape
        except (OSError, ValueError):
            raise UserError(
                f"{folder}: no firmware that this version of salt-hls has built; build it with "
                "salt_hls.Firmware.build or `make firmware`"
            ) from None
        return Firmware(folder, csim, Inputs(grid, particles))

    def csim(
        self, x: ArrayLike, progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float64]:
        """The output (events, *shape) of C-simulation, the HLS project compiled with g++.

        Several outputs come as (events, values), one after the other. x: (events, *shape) on the
        input grid. It runs on all cores; `progress` is told how many events have just been done.
        Raises `UserError` for another shape and for the first value that is not on the grid.
        """
        outputs = self._simulated(x, trace=False, progress=progress)
        return joined([outputs[name] for name in self._csim.outputs])

    def layers(self, x: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """The output (events, *shape) of every layer in C-simulation, by its name; see `csim`."""
        return self._simulated(x, trace=True, progress=lambda done: None)

    def rtl(self, x: ArrayLike, progress: Progress = silent) -> NDArray[np.float64]:
        """As `csim`, from the Verilog in Verilator: an event every clock, or as fast as it streams.

        The first call compiles the simulator, which takes minutes for large models; `progress` is
        told what is being done. Raises `UserError` as `csim`, and when there is no RTL.
        """
        need("Firmware.rtl", "rtl")
        values = self._on_grid(x, "Firmware.rtl")
        from salt_hls.rtl.project import existing
        from salt_hls.rtl.verilator import MARKERS, simulate, simulate_stream

        project = existing(self.folder / RTL)
        if project is None:
            raise UserError(
                f"{self.folder / RTL}: no RTL; make it with salt_hls.Firmware.build(..., rtl=True) "
                "or `make rtl`"
            )
        # Events of the checks in front: the latency can be seen from them.
        with np.load(self.folder / SIMULATED) as simulated:
            known = simulated["inputs"][: MARKERS + 1]
        events = np.concatenate([known, values])
        cache = self.folder.with_name(CACHE)
        if project.streaming:
            (simulation,) = simulate_stream(
                project, events, cache, gaps=(0,), jobs=cores(), progress=progress
            )
        else:
            simulation = simulate(project, events, cache, jobs=cores(), progress=progress)
        output = simulation.outputs[len(known) :]
        shapes = [self._csim.tensors[name].shape for name in self._csim.outputs]
        return output.reshape(-1, *shapes[0]) if len(shapes) == 1 else output

    def _on_grid(self, x: ArrayLike, what: str) -> NDArray[np.float32]:
        return require_on_grid(x, self.shape, self.inputs.types, what)

    def _simulated(
        self, x: ArrayLike, trace: bool, progress: Callable[[int], None]
    ) -> dict[str, NDArray[np.float64]]:
        values = self._on_grid(x, "Firmware.csim")
        if len(values) == 0:
            _, *layers = self._csim.tensors
            names = layers if trace else self._csim.outputs
            return {name: np.empty((0, *self._csim.tensors[name].shape)) for name in names}
        with process_pool(cores()) as pool:
            return run_csim(self._csim, values, pool, trace, progress)


def _saved(model: Any, inputs: Inputs | None, folder: Path) -> Path:
    """A Keras model and the YAML of its input grid, saved to `folder`."""
    grid = inputs_of(model, inputs, "Firmware.build").grid
    path = folder / f"{model.name}.keras"
    if path.parent != folder:
        raise UserError(f"model {model.name!r}: files get its name, so it has no '/'; rename it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras about QKeras' constraints
        model.save(path)
    section = {"inputs": grid.model_dump(mode="json")}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(section))
    return path
