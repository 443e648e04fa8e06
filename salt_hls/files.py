"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salt_hls.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that replaces it when the block succeeds.

    Raises `UserError` when it cannot be written (full disk, permissions); what was at `path` stays,
    and nothing half-written is left.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # h5py reports a failed flush as RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: cannot be written ({reason}); free space on the disk or write elsewhere"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
