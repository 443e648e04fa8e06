"""Other programs and worker processes: none outlives its job, this process, or an interruption."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar, cast

from salt_hls.errors import UserError
from salt_hls.system.quiet import quiet_tensorflow

GRACE_S = 5.0
"""Between the polite and the final signal to a program."""
WORKER_GRACE_S = 1.0
"""The same for a worker process: time to take back a half-written file."""

POLL_S = 0.2
"""Longest wait at a time: a signal that comes just before a wait does not end it."""

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


class TimedOut(Exception):
    """The program ran past its limit and was stopped."""


class Died(UserError):
    """The process that did a job was killed."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Ends the block with a `UserError` that names `what` when it takes longer. In the main
    thread only."""

    def late(*_: object) -> None:
        raise UserError(f"{what}: not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Stopped(Exception):
    """Another thread of `in_threads` has failed, or was interrupted."""


_stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


def in_threads(
    jobs: int,
    work: Callable[[T], R],
    items: Sequence[T],
    progress: Callable[[int], None] = lambda finished: None,
) -> list[R]:
    """The results of `work` of every item, in `jobs` threads, each of which may `run` programs.

    progress(finished so far) is called in this thread. What `work` or `progress` raises, Ctrl-C
    too, stops the programs of all threads.
    """
    stop = threading.Event()
    todo = enumerate(list(items))
    answers: SimpleQueue[tuple[int, R | None, BaseException | None]] = SimpleQueue()

    def loop() -> None:
        _stop.set(stop)
        for number, item in todo:
            if stop.is_set():
                return
            try:
                answers.put((number, work(item), None))
            except _Stopped:
                return
            except BaseException as error:
                stop.set()
                answers.put((number, None, error))

    # No executor: what a signal's handler raises inside of its locks would leave them locked.
    threads = [threading.Thread(target=loop, daemon=True) for _ in items[:jobs]]
    results: dict[int, Any] = {}
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(items):
            try:
                number, result, error = answers.get(timeout=POLL_S)
            except Empty:
                continue
            if error is not None:
                raise error
            results[number] = result
            progress(len(results))
    finally:
        stop.set()
        while any(thread in threads for thread in threading.enumerate()):
            time.sleep(0.01)
    return [results[number] for number in range(len(items))]


def run(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    timeout_s: float | None = None,
    on_line: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs `command` in `folder`; returns its exit status, negative for a signal.

    Standard output and error go to `log` together, and line by line to `on_line`. Whatever ends
    the wait (time limit, Ctrl-C, an error in `on_line`) ends the program and all it started.
    Raises `TimedOut`, and `UserError` when the program cannot be started or the log not written.
    """

    def work(_: None) -> int:
        return _run(command, folder, log, timeout_s, on_line, environment)

    if _stop.get() is not None:
        return work(None)
    # Python's signal handlers interrupt the main thread alone, so in another one no program can be
    # lost between its start and the note that it runs.
    (status,) = in_threads(1, work, [None])
    return status


def do(
    failure: str,
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """`run` of a program that has to succeed; the log stays only where it does not.

    Raises `UserError`: `failure`, how the program ended, its first error, and the log; `TimedOut`.
    """
    keep = False
    try:
        status = run(command, folder, log, timeout_s=timeout_s, environment=environment)
        keep = status != 0
    except TimedOut:
        keep = True
        raise
    finally:
        if not keep:
            log.unlink(missing_ok=True)
    if status != 0:
        name = Path(command[0]).name
        raise UserError(f"{failure}: {name} {ended(status)}{_first_error(log)}; see {log}")


def ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    cause = "out of memory?" if -status == signal.SIGKILL else signal.strsignal(-status)
    return f"was killed (signal {-status}; {cause})"


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """A temporary folder in `cache`. Raises `UserError` where it was deleted during the block."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".scratch.") as temporary:
        try:
            yield Path(temporary)
        except (OSError, UserError):
            if os.path.isdir(temporary):
                raise
            raise UserError(
                f"{cache}: was deleted, wholly or in part, while it was in use; run again"
            ) from None


def _first_error(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    lines = [line for line in lines if line]
    wrong = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    found = [*wrong, *lines[-1:]]
    return f" ({found[0][:160]})" if found else ""


def _run(
    command: Sequence[str],
    folder: Path,
    log: Path,
    timeout_s: float | None,
    on_line: Callable[[str], None] | None,
    environment: Mapping[str, str] | None,
) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    _start_watcher()
    with log.open("wb", buffering=0) as sink:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be stopped with it
            )
        except OSError as error:
            raise UserError(
                f"{command[0]}: cannot be started ({error.filename}: {error.strerror})"
            ) from None
        _watch("add", -process.pid)
        try:
            for line in _lines(process, deadline):
                try:
                    sink.write(line)
                except OSError as error:
                    raise UserError(
                        f"{log}: cannot be written ({error.strerror}); free space on the disk"
                    ) from None
                if on_line is not None:
                    on_line(line.decode(errors="replace").rstrip())
            return process.wait()
        finally:
            _end(process)
            _watch("discard", -process.pid)


def _lines(process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[bytes]:
    """Output lines as they come, until the program ends; what it started may live on, silent."""
    stream = process.stdout
    if stream is None:
        return
    pending = b""
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            _check(deadline)
            has_ended = process.poll() is not None
            if not selector.select(timeout=0.0 if has_ended else 0.1):
                if has_ended:
                    break
                continue
            data = os.read(stream.fileno(), 65536)
            if not data:
                break
            *whole, pending = (pending + data).split(b"\n")
            yield from (line + b"\n" for line in whole)
    if pending:
        yield pending
    # The stream may close before the program ends.
    while process.poll() is None:
        _check(deadline)
        time.sleep(0.05)


def _check(deadline: float | None) -> None:
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise _Stopped
    if deadline is not None and time.monotonic() > deadline:
        raise TimedOut


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the program's whole process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            if number == signal.SIGTERM and not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True


class Pool:
    """Processes that do jobs, each one at a time; they start when there are jobs for them.

    New ones, because TensorFlow's threads do not survive a fork; and not `multiprocessing`'s, each
    of which would run the user's script once more. `stop` ends them, and so does the end of this
    process, whatever its cause.
    """

    def __init__(self, workers: int) -> None:
        self._most = workers
        self._workers: dict[Connection, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._workers.values()]

    def map(
        self,
        function: Callable[..., R],
        jobs: Mapping[str, tuple[Any, ...]],
        done: Callable[[R], None] = lambda result: None,
        told: Callable[[str], None] = lambda text: None,
        check: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """`function` of the arguments of every job, in order.

        done: called with results as they come. told: called with what a job tells by `tell`.
        check: called every `POLL_S` or more often. Raises what a job raises (`UserError`,
        `OSError`, `ImportError`; else `RuntimeError` with the traceback), `Died` with its name when
        its process is killed, and what `check` raises. Then all processes are stopped.
        """
        names, waiting = list(jobs), iter(enumerate(jobs.values()))
        results: dict[int, R] = {}
        busy: dict[Connection, int] = {}

        def give(connection: Connection) -> None:
            number, arguments = next(waiting, (None, ()))
            if number is not None:
                busy[connection] = number
                with suppress(BrokenPipeError):  # a dead worker is found when its answer is read
                    connection.send((function, arguments))

        try:
            # In a thread, where no handler of a signal can cut it short.
            in_threads(1, self._add_worker, range(len(self._workers), min(self._most, len(jobs))))
            for connection in self._workers:
                give(connection)
            while busy:
                check()
                for connection in cast(list[Connection], wait(list(busy), POLL_S)):
                    kind, value = self._answer(connection, names[busy[connection]])
                    if kind == "told":
                        told(value)
                        continue
                    number = busy.pop(connection)
                    if kind == "failed":
                        raise value
                    give(connection)
                    results[number] = value
                    done(value)
        except BaseException:
            self.stop()
            raise
        return [results[number] for number in range(len(jobs))]

    def stop(self) -> None:
        """Ends the processes, with what they are doing."""
        for process in self._workers.values():
            process.terminate()
        deadline = time.monotonic() + WORKER_GRACE_S
        for process in self._workers.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
            _watch("discard", process.pid)
        for connection in self._workers:
            connection.close()
        self._workers.clear()

    def _add_worker(self, _: int) -> None:
        ours, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from salt_hls.system.processes import spawn_main; spawn_main({theirs.fileno()})"
        )
        # Ctrl-C reaches every process of the terminal; this one alone answers it. Blocked signals
        # are inherited.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, which ends soon
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        self._workers[ours] = process
        _watch("add", process.pid)
        theirs.close()

    def _answer(self, connection: Connection, job: str) -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError):
            status = self._workers[connection].wait()
            raise Died(f"{job}: its process {ended(status)}") from None


@contextmanager
def process_pool(workers: int) -> Iterator[Pool]:
    """A `Pool` of at most so many processes for the block."""
    pool = Pool(workers)
    try:
        yield pool
    finally:
        pool.stop()


_parent: Connection | None = None


def tell(text: str) -> None:
    """Sends a line to the `told` of the `Pool.map` whose job this is."""
    if _parent is not None:
        _parent.send(("told", text))


def spawn_main(end: int) -> None:
    """A worker process: jobs until the other end of its connection is closed."""
    global _parent
    _parent = connection = Connection(end)
    signal.signal(signal.SIGTERM, _leave)
    quiet_tensorflow()
    with suppress(EOFError, ConnectionError, SystemExit):
        while True:
            function, arguments = connection.recv()
            try:
                answer = ("done", function(*arguments))
            except (UserError, OSError, ImportError) as error:
                answer = ("failed", error)
            except Exception:
                answer = ("failed", RuntimeError(traceback.format_exc()))
            connection.send(answer)
    os._exit(1)  # TensorFlow takes its time to unload


def _leave(*_: object) -> None:
    raise SystemExit


_WATCHER = """
import os, signal, sys, time
targets = set()
for line in sys.stdin:
    change, target = line.split()
    getattr(targets, change)(int(target))
for number in (signal.SIGTERM, signal.SIGKILL):
    for target in targets:
        try:
            os.kill(target, number)
        except OSError:
            pass
    time.sleep(1 if targets else 0)
"""
"""Ends what is still running when its standard input ends, which is when this process does."""

_watcher: int | None = None
_watcher_lock = threading.Lock()


def _watch(change: Literal["add", "discard"], target: int | None) -> None:
    """Of what is killed when this process ends: a process, or a group by its negative number."""
    with suppress(OSError):
        os.write(_start_watcher(), f"{change} {target}\n".encode())


def _start_watcher() -> int:
    """Where it is written to; it starts once."""
    global _watcher
    with _watcher_lock:
        if _watcher is None:
            orders, ours = os.pipe()
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHER],
                stdin=orders,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what is sent to our group does not reach it
            )
            process.returncode = 0  # it outlives this process: nobody waits for it
            os.close(orders)
            _watcher = ours
        return _watcher
