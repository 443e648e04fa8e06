"""Interruption and programs that fail: one line at once, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import without_progress

from salt_hls.errors import UserError
from salt_hls.hls.csim import Csim, compile_csim, run_csim
from salt_hls.system.processes import (
    TimedOut,
    do,
    ended,
    in_threads,
    process_pool,
    run,
    scratch,
    tell,
)

PATIENCE_S = 60.0


def runs(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# ---- the pool of processes


def job(number: int, folder: Path | None = None) -> int:
    if folder is not None:
        (folder / str(os.getpid())).touch()
    if number < 0:
        raise UserError(f"{number} is negative")
    tell(f"at {number}")
    return number**2


def fatal(number: int, kill: signal.Signals) -> int:
    if number == 1:
        os.kill(os.getpid(), kill)
    time.sleep(1000)
    return 0


def test_pool_gives_results_in_order_and_passes_on_what_jobs_tell(tmp_path: Path) -> None:
    done: list[int] = []
    told: list[str] = []
    with process_pool(2) as pool:
        for _ in range(2):
            jobs = {str(n): (n, tmp_path) for n in range(7)}
            assert pool.map(job, jobs, done.append, told.append) == [n**2 for n in range(7)]
        assert pool.map(job, {}) == []
    assert sorted(done) == sorted([n**2 for n in range(7)] * 2)
    assert sorted(told) == sorted([f"at {n}" for n in range(7)] * 2)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert 1 <= len(workers) <= 2 and not any(map(runs, workers))


def test_what_a_job_raises_is_raised(tmp_path: Path) -> None:
    with process_pool(2) as pool:
        with pytest.raises(UserError, match="-3 is negative"):
            pool.map(job, {"good": (2,), "bad": (-3,)})
        with pytest.raises(RuntimeError, match=r"in job(.|\n)*TypeError"):
            pool.map(job, {"defect": (1, 2)})
        assert pool.map(job, {"good": (2,)}) == [4]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_one_line_with_its_job(kill: signal.Signals) -> None:
    with process_pool(2) as pool, pytest.raises(UserError) as caught:
        pool.map(fatal, {f"chunk {n}": (n, kill) for n in range(3)})
    assert str(caught.value) == f"chunk 1: its process {ended(-kill)}"


def test_a_lost_library_is_one_line(tmp_path: Path) -> None:
    csim = Csim(tmp_path / "gone.so", "gone", {}, ())
    with process_pool(1) as pool, pytest.raises(UserError, match=r"cannot be loaded .*gone\.so"):
        run_csim(csim, [0.0], pool)  # type: ignore[arg-type]


# ---- programs


def test_ends_in_words() -> None:
    assert ended(3) == "ended with status 3"
    assert ended(-9) == "was killed (signal 9; out of memory?)"
    assert ended(-11) == "was killed (signal 11; Segmentation fault)"


def test_log_of_a_program_stays_only_when_it_fails(tmp_path: Path) -> None:
    log = tmp_path / "logs/x.log"
    do("work", ["sh", "-c", "echo fine"], tmp_path, log)
    assert not log.exists()
    for script, says in (
        ("echo one; echo an Error: here; echo two; exit 3", "ended with status 3 (an Error: here)"),
        ("echo one; echo two; exit 1", "ended with status 1 (two)"),
        ("kill -9 $$", "was killed (signal 9; out of memory?)"),
    ):
        with pytest.raises(UserError) as caught:
            do("work", ["sh", "-c", script], tmp_path, log)
        assert str(caught.value) == f"work: sh {says}; see {log}" and log.exists()
    with pytest.raises(TimedOut):
        do("work", ["sh", "-c", "echo begun; sleep 1000"], tmp_path, log, timeout_s=1)
    assert log.read_text() == "begun\n"


def test_programs_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    (tmp_path / "garbage").write_bytes(b"\x7fELF garbage")
    (tmp_path / "garbage").chmod(0o755)
    for name, folder, says in (
        ("nowhere", tmp_path, "nowhere: No such file"),
        ("data", tmp_path, "data: Permission denied"),
        ("garbage", tmp_path, "garbage: Exec format error"),
        ("garbage", tmp_path / "deleted", "deleted: No such file"),
    ):
        with pytest.raises(UserError, match=f"{name}: cannot be started .*{says}") as caught:
            run([str(tmp_path / name)], folder, tmp_path / "log")
        assert "\n" not in str(caught.value)


def test_a_folder_deleted_in_use_is_one_line(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for script in (f"rm -rf {cache}", f"rm -rf {cache}; exit 1"):
        with pytest.raises(UserError, match="cache: was deleted"), scratch(cache) as work:
            do("work", ["sh", "-c", script], work, cache / "log")
            (work / "result").read_text()
    with pytest.raises(FileNotFoundError), scratch(cache) as work:
        (work / "result").read_text()
    assert not list(cache.iterdir())


class Interrupted(BaseException):
    pass


@pytest.fixture
def interrupt_when(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Raises in the main thread, as a signal does, once the file is there."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGUSR1, interrupt)
    watcher: list[subprocess.Popen[bytes]] = []

    def arm(path: Path) -> None:
        script = f"while [ ! -s {path} ]; do sleep 0.1; done; kill -USR1 {os.getpid()}"
        watcher.append(subprocess.Popen(["sh", "-c", script]))

    yield arm
    for process in watcher:
        process.kill()  # a test that never came so far must not hang here
        process.wait()
    signal.signal(signal.SIGUSR1, old)


SLEEPER = "sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait"


def gone(pids: Path) -> bool:
    return eventually(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))


@pytest.mark.parametrize("jobs", [1, 3])
def test_interruption_stops_all_programs(
    jobs: int, tmp_path: Path, interrupt_when: Callable[[Path], None]
) -> None:
    pids = tmp_path / "pids"

    def work(number: int) -> int:
        return run(["sh", "-c", SLEEPER.format(pids)], tmp_path, tmp_path / f"{number}.log")

    interrupt_when(pids)
    with pytest.raises(Interrupted):
        in_threads(jobs, work, range(jobs + 1)) if jobs > 1 else work(0)
    assert len(pids.read_text().split()) <= 2 * jobs and gone(pids)


def test_a_failing_program_stops_the_others(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    scripts = [
        SLEEPER.format(pids),
        f"while [ ! -s {pids} ]; do sleep 0.1; done; exit 7",
        SLEEPER.format(pids),
    ]

    def work(script: str) -> None:
        do("work", ["sh", "-c", script], tmp_path, tmp_path / f"{hash(script)}.log")

    with pytest.raises(UserError, match="ended with status 7"):
        in_threads(2, work, scripts)
    assert gone(pids)


def test_threads_give_results_in_order() -> None:
    finished: list[int] = []
    assert in_threads(2, lambda n: n**2, range(5), finished.append) == [0, 1, 4, 9, 16]
    assert finished == [1, 2, 3, 4, 5]


# ---- the C++ compiler


def stand_in(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that comes first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("kill -9 $$", r"was killed \(signal 9; out of memory\?\)"),
        ("echo x.cpp:3: error: no; exit 1", r"ended with status 1 \(x.cpp:3: error: no\)"),
    ],
)
def test_a_failing_compiler_leaves_its_log(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "bin", "g++", script, monkeypatch)
    log = tmp_path / "build/small.compile.log"
    with pytest.raises(UserError, match=f"does not compile: g\\+\\+ {says}; see {log}"):
        compile_csim(tmp_path, "small", {}, [], tmp_path / "csim", log)
    assert log.exists()


def test_an_interrupted_compiler_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt_when: Callable[[Path], None]
) -> None:
    pids = tmp_path / "pids"
    stand_in(tmp_path / "bin", "g++", SLEEPER.format(pids), monkeypatch)
    interrupt_when(pids)
    with pytest.raises(Interrupted):
        compile_csim(tmp_path, "small", {}, [], tmp_path / "csim", tmp_path / "log")
    assert gone(pids) and not (tmp_path / "log").exists()


# ---- the command: signals as a terminal, a batch system and the kernel send them


class Session:
    """A command in a process group of its own; all that it starts carries a mark."""

    def __init__(self, logs: Path, *command: object) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, "MARK": self.mark, "LOGS": str(logs)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Under nohup, which the tests may run in, a hang-up is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def marked(self) -> list[str]:
        """Command lines of the processes that run."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def wait_for(self, text: str, count: int) -> None:
        assert eventually(lambda: sum(text in line for line in self.marked()) >= count)
        assert self.process.poll() is None

    def signal(self, number: signal.Signals, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def ends_with_its_line(self) -> None:
        _, stderr = self.process.communicate(timeout=PATIENCE_S)
        lines = without_progress(stderr)
        assert len(lines) == 1 and lines[0].startswith("salt-hls: interrupted"), stderr
        assert self.process.returncode == 1
        assert eventually(lambda: not self.marked()), self.marked()


MAIN = """
import os, time
from pathlib import Path
from salt_hls.cli import commands, main
from salt_hls.system import processes

@commands.app.command()
def pool():
    with processes.process_pool(2) as pool:
        pool.map(time.sleep, {str(n): (1000,) for n in range(9)})

@commands.app.command()
def program():
    def work(number):
        command = ["sh", "-c", "sleep 1000 & sleep 1000"]
        processes.run(command, Path(), Path(os.environ["LOGS"]) / str(number))
    processes.in_threads(2, work, range(9))

@commands.app.command()
def deaf():
    main.GRACE_S = 1.0
    with processes.process_pool(2) as pool:
        def never(_):
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
        pool.map(time.sleep, {"short": (0,), "long": (1000,)}, never)

main.main()
"""

KILLS = {
    "Ctrl-C": ([signal.SIGINT], True),
    "Ctrl-C twice": ([signal.SIGINT, signal.SIGINT], True),
    "terminated": ([signal.SIGTERM], False),
    "group terminated": ([signal.SIGTERM, signal.SIGTERM], True),
    "hang-up": ([signal.SIGHUP], False),
}


@pytest.mark.parametrize(("numbers", "group"), KILLS.values(), ids=KILLS.keys())
@pytest.mark.parametrize("work", ["pool", "program"])
def test_signals_end_everything(
    work: str, numbers: list[signal.Signals], group: bool, tmp_path: Path
) -> None:
    session = Session(tmp_path, "-c", MAIN, work)
    session.wait_for("sleep 1000" if work == "program" else "spawn_main", 2)
    for number in numbers:
        session.signal(number, group)
        time.sleep(0.2)
    session.ends_with_its_line()


@pytest.mark.parametrize("work", ["pool", "program"])
def test_a_killed_command_leaves_nothing(work: str, tmp_path: Path) -> None:
    session = Session(tmp_path, "-c", MAIN, work)
    session.wait_for(*(("spawn_main", 2) if work == "pool" else ("sleep 1000 ", 6)))
    time.sleep(0.5)
    session.signal(signal.SIGKILL)
    session.process.communicate(timeout=PATIENCE_S)
    assert eventually(lambda: not session.marked()), session.marked()


def test_what_does_not_heed_the_interruption_is_ended(tmp_path: Path) -> None:
    session = Session(tmp_path, "-c", MAIN, "deaf")
    session.wait_for("spawn_main", 1)
    session.signal(signal.SIGINT)
    time.sleep(0.2)
    session.signal(signal.SIGINT)
    session.ends_with_its_line()


@pytest.mark.parametrize("group", [True, False])
def test_interrupted_generation_drops_its_chunks(group: bool, tmp_path: Path) -> None:
    """A chunk is a minute inside of Pythia, which hears no signal."""
    program = Path(sys.executable).with_name("salt-hls")
    session = Session(tmp_path, program, "data", "--data", tmp_path)
    session.wait_for("spawn_main", 2)
    time.sleep(2)
    session.signal(signal.SIGINT, group)
    session.ends_with_its_line()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
