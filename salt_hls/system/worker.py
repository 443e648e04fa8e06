"""What runs on a worker of Dask: jobs, each in a process of its own that is ended with it.

A job inside of Pythia or TensorFlow hears nothing for minutes. So the worker does not run it, but
waits for a process that does, and kills it when the job is cancelled, its client is gone, or it
takes more memory than its share.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import psutil
from distributed import get_worker
from distributed.core import Status

from salt_hls.errors import UserError
from salt_hls.system.digest import digest
from salt_hls.system.jobs import Job, Lost
from salt_hls.system.paths import PACKAGE
from salt_hls.system.processes import Died, Pool
from salt_hls.version import versions

IDLE_S = 10.0
"""A process without a job ends after so long."""

MEMORY_EVERY = 10
"""Of how many looks at a job one is at its memory."""


_ENDED = (Status.closing, Status.closed, Status.stopping, Status.stopped, Status.failed)


class _Dropped(Exception):
    """Nobody waits for the job any more."""


@lru_cache(maxsize=1)
def code() -> dict[str, str]:
    """Versions of all that the result of a job may depend on."""
    sources = sorted(PACKAGE.rglob("*.py"))
    names = [str(path.relative_to(PACKAGE)) for path in sources]
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), **versions()}
    return {**found, "the code of salt-hls": digest(names, sources)[:8]}


def perform(job: Job, wanted: dict[str, str], topic: str) -> None:
    """Does a job that is not done yet. wanted: `code` of the client. topic: gets what is told.

    Raises what the job raises, `Died` when its process is killed, `Lost`, and `UserError` when
    the worker has another version of anything.
    """
    worker = get_worker()
    where = "" if worker.address.startswith("inproc:") else f" (on the worker {worker.address})"
    different = [f"{k} {code().get(k)}, not {v}" for k, v in wanted.items() if code().get(k) != v]
    if different:
        raise UserError(
            f"{job.name}: the worker {worker.address} has {'; '.join(different)}; install the same "
            "there and here, and start the worker again"
        )
    if job.output.exists():
        return
    share = (worker.memory_manager.memory_limit or 0) / worker.state.nthreads
    key, looks = worker.get_current_task(), 0

    def check() -> None:
        nonlocal looks
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled" or worker.status in _ENDED:
            raise _Dropped
        looks += 1
        if share and looks % MEMORY_EVERY == 0 and (taken := sum(map(_memory, pool.pids))) > share:
            raise Lost(
                f"{job.name}: took {taken / 1e9:.1f} GB of memory, its share is {share / 1e9:.1f} "
                "GB; let fewer run at a time"
            )

    with _pool() as pool:
        try:
            pool.map(
                job.function,
                {job.name: (*job.arguments, job.output)},
                told=lambda text: worker.log_event(topic, text),
                check=check,
            )
        except (Died, Lost) as error:
            raise type(error)(f"{error}{where}") from None
        except (UserError, OSError) as error:
            if not where:
                raise
            text = str(error) if isinstance(error, UserError) else f"{job.name}: {error}"
            raise UserError(f"{text}{where}") from None


_idle: list[Pool] = []
_busy: set[Pool] = set()
_lock = threading.Lock()


@contextmanager
def _pool() -> Iterator[Pool]:
    """One process, an idle one if there is any."""
    with _lock:
        pool = _idle.pop() if _idle else Pool(1)
        _busy.add(pool)
    try:
        yield pool
    except BaseException:
        pool.stop()
        raise
    else:
        with _lock:
            _idle.append(pool)
        timer = threading.Timer(IDLE_S, _end_if_idle, [pool])
        timer.daemon = True
        timer.start()
    finally:
        with _lock:
            _busy.discard(pool)


def _end_if_idle(pool: Pool) -> None:
    with _lock:
        if pool not in _idle:
            return
        _idle.remove(pool)
    pool.stop()


def end_idle() -> bool:
    """Ends the processes of this worker that have no job; whether there are others."""
    with _lock:
        pools, others = list(_idle), bool(_busy)
        _idle.clear()
    for pool in pools:
        pool.stop()
    return others


def _memory(pid: int) -> int:
    """Bytes that a process and all that it started have for themselves."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        try:
            usage = member.memory_info()
        except psutil.Error:
            continue
        total += usage.rss - usage.shared
    return total
