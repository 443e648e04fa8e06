"""Files and folders that appear whole or not at all, and are changed by one process at a time."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from salt_hls.errors import UserError

GONE = {errno.ENOENT, errno.ESTALE}
DISK = GONE | {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
}  # fmt: skip
"""Failures of the disk, or of the folder a user gave, not of the program."""

_LOCKLESS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


def disk_error(path: Path | str, error: OSError) -> UserError:
    """The line for a user whose file or folder at `path` failed."""
    if error.errno in GONE:
        return UserError(f"{path}: not there, or removed while it was in use; run again")
    fix = "free space on the disk"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        fix = "a file is where a folder should be: move it away"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "make it writable"
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}); {fix}, or write elsewhere"
    )


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keeps all other processes, of any host, that lock the same path out of the block.

    The lock is that of the file .<name>.lock beside `path` and dies with its process; who has it
    may take it again. `waiting` is called when another process has it. Raises `UserError` when the
    file cannot be made or its file system has no locks.
    """
    parent = path.parent.resolve()
    lock = FileLock(parent / f".{path.name}.lock", is_singleton=True, fallback_to_soft=False)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        if error.errno in _LOCKLESS:
            raise UserError(
                f"{path.parent}: its file system has no locks ({error.strerror}); use another"
            ) from None
        raise disk_error(path.parent, error) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that replaces it when the block succeeds.

    Raises `UserError` when it cannot be written (full disk, permissions); what was at `path` stays,
    and nothing half-written is left.
    """
    partial = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, which is locked; removed in the end if still there.

    What killed processes left half-written is removed, and what they took away is put back. Raises
    `UserError` when the disk fails, or the folder is removed by others.
    """
    with locked(target):
        restore(target)
        stale = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]+\.tmp")
        for path in target.parent.iterdir():
            if stale.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            work.mkdir()
            yield work
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise disk_error(target, error) from None
            if not work.exists():  # whatever failed, failed because of that
                raise disk_error(target, FileNotFoundError(errno.ENOENT, "")) from error
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def replacing_folder(target: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """As `fresh_folder`; it replaces `target` when the block succeeds (see `put_folder`)."""
    require_replaceable(target, ours)
    with fresh_folder(target) as work:
        yield work
        put_folder(work, target, ours)


def require_replaceable(target: Path, ours: Callable[[Path], bool]) -> None:
    """Raises `UserError` when something is at `target` that is neither `ours` nor empty."""
    if not os.path.lexists(target):
        return
    if target.is_symlink():
        found = "a symbolic link"
    elif not target.is_dir():
        found = "a file"
    elif any(target.iterdir()) and not ours(target):
        found = "a folder that salt-hls has not written"
    else:
        return
    raise UserError(f"{target}: is {found} and stays; move it away, or write elsewhere")


def put_folder(
    work: Path, target: Path, ours: Callable[[Path], bool], keep: Sequence[str] = ()
) -> None:
    """Moves the folder `work` (of `fresh_folder`) to `target`, with what is in `keep` there now.

    Killed at any point, it leaves the old or the new folder whole, which `restore` finds. Raises
    `UserError` as `require_replaceable`.
    """
    require_replaceable(target, ours)
    old = _old(target)
    shutil.rmtree(old, ignore_errors=True)
    for name in keep:
        source, copy = target / name, work / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, copy, symlinks=True, copy_function=_link)
        elif os.path.lexists(source):
            _link(source, copy)
    try:
        if target.exists():
            target.rename(old)
        work.rename(target)
    except BaseException:
        restore(target)
        raise
    if old.exists():
        old.rename(work)  # half-removed, it must not be taken for what to restore
        shutil.rmtree(work, ignore_errors=True)


def restore(target: Path) -> None:
    """Puts back the folder that a `put_folder` took away and was killed; `target` is locked."""
    with suppress(OSError):  # there is none, or `target` is there already
        _old(target).rename(target)


def exists(target: Path) -> bool:
    """Whether a folder is at `target`, or one that `restore` puts back."""
    return target.exists() or _old(target).exists()


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _link(source: str | Path, copy: str | Path) -> None:
    """A second name for a file; a copy where a file system has one name only."""
    try:
        os.link(source, copy, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, copy, follow_symlinks=False)
