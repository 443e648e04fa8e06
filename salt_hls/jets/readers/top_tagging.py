"""The top-tagging reference set: QCD and top jets, 200 four-momenta (GeV) in descending pT.

A pandas table of the key `table`: a compound dataset `table/table`, whose fields `values_block_<n>`
hold the columns that the pickled attribute `values_block_<n>_kind` names.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JetSet
from salt_hls.jets.kinematics import relative_to_axis
from salt_hls.jets.readers.base import SLICE, Format, require_finite

CLASSES = ("QCD", "t")
LABEL = "is_signal_new"
COMPONENTS = ("E", "PX", "PY", "PZ")


def slices(path: Path, particles: int) -> Iterator[JetSet]:
    """All jets of a file; angles are relative to the sum of the momenta."""
    with h5py.File(path, "r") as file:
        table = file["table"].get("table")
        blocks = _blocks(path, table)
        where = {name: (b, i) for b, names in blocks.items() for i, name in enumerate(names)}
        count = sum(1 for name in where if re.fullmatch(r"E_\d+", name))
        wanted = [f"{c}_{i}" for i in range(count) for c in COMPONENTS]
        missing = [name for name in (LABEL, *wanted) if name not in where]
        if missing or not count:
            raise UserError(
                f"{path}: no column {(missing or ['E_0'])[0]!r} among {', '.join(list(where)[:8])}"
            )
        label_block, label = where[LABEL]
        momenta_block = where["E_0"][0]
        columns = [where[name][1] for name in wanted if where[name][0] == momenta_block]
        if len(columns) != len(wanted):
            raise UserError(f"{path}: the four-momenta must be columns of one type")
        _check_filters(path, table)
        for first in range(0, len(table), SLICE):
            rows = table[first : first + SLICE]
            momenta = rows[momenta_block][:, columns].reshape(len(rows), count, len(COMPONENTS))
            require_finite(path, first, momenta, COMPONENTS)
            _check_energy(path, momenta)
            constituents, jets = relative_to_axis(momenta)
            yield JetSet(constituents, rows[label_block][:, label], jets, CLASSES)


def _blocks(path: Path, table: Any) -> dict[str, list[str]]:
    """Column names of each block of the table."""
    fields = () if table is None else table.dtype.names or ()
    blocks = [field for field in fields if field.startswith("values_block_")]
    if not blocks or any(f"{block}_kind" not in table.attrs for block in blocks):
        found = ", ".join(fields) or "no compound dataset 'table/table'"
        raise UserError(f"{path}: not a pandas table (format='table'), found {found}")
    return {block: _strings(bytes(table.attrs[f"{block}_kind"])) for block in blocks}


def _strings(pickled: bytes) -> list[str]:
    """The strings in a pickled list of strings, without executing the pickle."""
    names = [argument for _, argument, _ in pickletools.genops(pickled)]
    return [name for name in names if isinstance(name, str)]


def _check_filters(path: Path, table: Any) -> None:
    settings = table.id.get_create_plist()
    for i in range(settings.get_nfilters()):
        number, _, _, name = settings.get_filter(i)
        if not h5py.h5z.filter_avail(number):
            raise UserError(
                f"{path}: compressed with {name.decode()}, which h5py alone cannot read; rewrite "
                f"it with PyTables: ptrepack --complevel=1 --complib=zlib {path.name}:/ plain.h5:/"
            )


def _check_energy(path: Path, momenta: Any) -> None:
    energy, momentum = momenta[..., 0], np.linalg.norm(momenta[..., 1:], axis=-1)
    if np.mean(energy < 0.99 * momentum) > 0.01:
        raise UserError(f"{path}: energies below momenta: the columns are not E, PX, PY, PZ")


FORMAT = Format("top-tagging reference set", "table", True, slices)
