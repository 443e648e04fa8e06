"""Files and folders: whole or not at all, one process at a time, nothing of others lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from salt_hls.errors import UserError
from salt_hls.system import store
from salt_hls.system.store import (
    fresh_folder,
    locked,
    put_folder,
    replacing,
    replacing_folder,
    restore,
)


def ours(folder: Path) -> bool:
    return (folder / "mark").exists()


def write(folder: Path, content: str) -> None:
    (folder / "mark").write_text(content)
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text(content)


def read(folder: Path) -> tuple[str, str]:
    return (folder / "mark").read_text(), (folder / "deep" / "file").read_text()


def there(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Python running `code`; it is killed in the end."""
    head = "import os, signal, sys, time\nfrom pathlib import Path\n"
    head += "from salt_hls.system import store\n"
    script = head + textwrap.dedent(code)
    started = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


# ---- locks


HOLD = """
with store.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_waited_for_and_dies_with_its_process(tmp_path: Path) -> None:
    path, told = tmp_path / "x", []
    with process(HOLD, path) as holder:
        assert line(holder) == "held"

        def waiting() -> None:
            told.append("waits")
            holder.send_signal(signal.SIGKILL)

        with locked(path, waiting):
            assert told == ["waits"]
    with locked(tmp_path / "other" / ".." / "x", waiting), locked(path, waiting):  # its own
        pass
    assert told == ["waits"]


def test_another_path_is_another_lock(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "x") as holder:
        assert line(holder) == "held"
        with locked(tmp_path / "x.y", lambda: pytest.fail("waits for x")):
            pass


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSYS, "its file system has no locks"),
        (errno.ENOLCK, "its file system has no locks"),
        (errno.EACCES, "cannot be written"),
    ],
)
def test_no_lock_is_one_line(
    number: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=f"{tmp_path}: {says}"), locked(tmp_path / "x"):
        pass


def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = pytest.raises(UserError, match=r"file: cannot be written")
    with wrong, locked(tmp_path / "file" / "x"):
        pass


# ---- files


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    for error in (OSError(errno.ENOSPC, "No space left on device"), ValueError("mine")):
        says = r"x: cannot be written \(No space|mine"
        with pytest.raises((UserError, ValueError), match=says), replacing(path) as partial:
            partial.write_text("new")
            raise error
    assert path.read_text() == "old" and there(tmp_path) == {"x"}


def test_only_the_disk_is_called_full(tmp_path: Path) -> None:
    """What a program raises on its own account is not the disk's."""
    with pytest.raises(RuntimeError, match="shapes"), replacing(tmp_path / "x"):
        raise RuntimeError("shapes do not fit")


def test_a_removed_folder_is_said(tmp_path: Path) -> None:
    gone = pytest.raises(UserError, match="y/x: not there, or removed while it was in use")
    with gone, replacing(tmp_path / "y" / "x") as partial:
        shutil.rmtree(tmp_path / "y")
        partial.write_text("")


def test_weights_on_a_full_disk(full_disk: Any, tmp_path: Path) -> None:
    """HDF5 would crash, at the latest when Python ends."""
    import tensorflow as tf

    from salt_hls.models.weights import load_weights, save_weights

    def model() -> Any:
        return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2, name="dense")])

    first, second = model(), model()
    path = tmp_path / "small.weights.h5"
    save_weights(first, path)
    load_weights(second, path)
    np.testing.assert_array_equal(second.get_weights()[0], first.get_weights()[0])
    before = path.read_bytes()
    with full_disk(1000), pytest.raises(UserError, match=r"small.weights.h5: cannot be written"):
        save_weights(model(), path)
    assert path.read_bytes() == before and there(tmp_path) == {path.name}


# ---- folders


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "build" / "x"
    for content in ("one", "two"):
        with replacing_folder(target, ours) as work:
            write(work, content)
        assert read(target) == (content, content)
    with pytest.raises(ValueError, match="mine"), replacing_folder(target, ours) as work:
        (work / "mark").write_text("half")
        raise ValueError("mine")
    assert read(target) == ("two", "two") and there(target.parent) == {"x"}


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link"])
def test_what_is_not_ours_stays(kind: str, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "x", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, "precious")
    if kind == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("precious")
        says = "a folder that salt-hls has not written"
    elif kind == "file":
        target.write_text("precious")
        says = "a file"
    else:
        target.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
        says = "a symbolic link"
    before = sorted(tmp_path.rglob("*"))
    refused = pytest.raises(UserError, match=f"{target}: is {says} and stays")
    with refused, replacing_folder(target, ours):
        pytest.fail("work is done in vain")
    assert sorted(tmp_path.rglob("*")) == before
    with fresh_folder(target) as work:  # what comes there meanwhile
        write(work, "new")
        with pytest.raises(UserError, match=says):
            put_folder(work, target, ours)
    left = {p for p in tmp_path.rglob("*") if not p.name.endswith(".lock")}
    assert left == set(before) and read(elsewhere) == ("precious", "precious")


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with replacing_folder(tmp_path / "x", ours) as work:
        write(work, "new")
    assert read(tmp_path / "x") == ("new", "new")


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_is_in_the_new_folder(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    with replacing_folder(target, ours) as work:
        write(work, "old")
        (work / "notes").write_text("kept")
        (work / "shortcut").symlink_to("notes")
    if not links:

        def no_links(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
    with fresh_folder(target) as work:
        (work / "mark").write_text("new")
        put_folder(work, target, ours, keep=["deep", "notes", "shortcut", "nothing"])
    assert read(target) == ("new", "old")
    assert (target / "shortcut").is_symlink() and (target / "shortcut").read_text() == "kept"
    assert there(tmp_path) == {"x"}


KILLED = """
rename, kill = Path.rename, int(sys.argv[2])
count = 0
def counted(path, to):
    global count
    if count == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return rename(path, to)
Path.rename = counted
with store.fresh_folder(Path(sys.argv[1])) as work:
    count = 0
    (work / "mark").write_text("new")
    (work / "deep").mkdir()
    (work / "deep" / "file").write_text("new")
    store.put_folder(work, Path(sys.argv[1]), lambda _: True)
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_at_any_rename_loses_nothing(renames: int, tmp_path: Path) -> None:
    target = tmp_path / "x"
    with replacing_folder(target, ours) as work:
        write(work, "old")
    with process(KILLED, target, renames) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert target.exists() == (renames != 1) and store.exists(target)
    with fresh_folder(target):
        expected = "old" if renames < 2 else "new"
        assert read(target) == (expected, expected)
    with replacing_folder(target, ours) as work:
        write(work, "next")
    assert read(target) == ("next", "next") and there(tmp_path) == {"x"}


def test_an_interrupt_between_the_renames_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    with replacing_folder(target, ours) as work:
        write(work, "old")
    rename = Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(target, ours) as work:
        write(work, "new")
    assert read(target) == ("old", "old") and there(tmp_path) == {"x"}


def test_a_folder_that_is_there_is_not_restored_over(tmp_path: Path) -> None:
    for name in ("x", ".x.old"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, name)
    restore(tmp_path / "x")
    assert read(tmp_path / "x") == ("x", "x")


ADD = """
import json
path = Path(sys.argv[1])
print("ready", flush=True)
while not path.with_name("go").exists():
    pass
for number in range(20):
    with store.replacing_folder(path, lambda _: True) as work:
        before = json.loads((path / "list").read_text()) if path.exists() else []
        (work / "list").write_text(json.dumps([*before, [sys.argv[2], number]]))
"""


def test_processes_that_meet_take_turns(tmp_path: Path) -> None:
    """Read, change, replace: nothing that another has written is lost."""
    target = tmp_path / "x"
    with process(ADD, target, "a") as a, process(ADD, target, "b") as b:
        assert line(a) == line(b) == "ready"
        (tmp_path / "go").touch()
        assert a.wait(120) == 0 and b.wait(120) == 0
    rows = json.loads((target / "list").read_text())
    assert sorted(rows) == [[name, i] for name in "ab" for i in range(20)]
    assert there(tmp_path) == {"x", "go"}


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "x"), ValueError("no bits")])
def test_a_folder_removed_in_the_middle_is_one_line(error: Exception, tmp_path: Path) -> None:
    build = tmp_path / "build"
    gone = pytest.raises(UserError, match=f"{build}/x: not there, or removed while it was in use")
    with gone, replacing_folder(build / "x", ours):
        shutil.rmtree(build)
        raise error  # of g++, hls4ml or numpy, which miss their files
    assert not build.exists()
