"""Independent jobs, on the cores of this machine or on those of others, through Dask.

A job is a plain function of files and parameters that writes a file whole, and that file is its
result. So it is never done twice, and where, in what order and beside how many others it is done
makes no difference.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from salt_hls.errors import UserError
from salt_hls.system.digest import digest
from salt_hls.system.processes import POLL_S, Died, cores
from salt_hls.system.wording import option

if TYPE_CHECKING:
    from distributed import Client

    from salt_hls.system.clusters import Connected

DEATHS = 2
"""How often a job whose process or worker was killed is tried again."""

PULSE_S = 1.0
"""Between two looks at how many workers there are."""

SHARED_S = 10.0
"""A file that was written on another machine is seen here after so long, if ever."""

STOP_S = 8.0
"""Longest wait for jobs to be cancelled."""


@dataclass(frozen=True)
class Job:
    """`function(*arguments, output)`, in a process of its own, on any machine.

    output: a file that the function writes whole; where it is, the job is done. Its name is the
    key to its content. Paths are absolute. name: what messages call the job.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    output: Path


@dataclass(frozen=True)
class Batch:
    """A batch system, and how many of its jobs run workers for ours.

    jobqueue: options of dask-jobqueue by the name of the one system. path: the file that says so.
    """

    path: Path
    workers: int
    jobqueue: dict[str, dict[str, Any]]


class Lost(UserError):
    """A job that took too much memory, or whose workers were killed again and again."""


class Runner:
    """Does jobs; a context, at whose end none is left running.

    at_a_time: most jobs at a time, else as many as there are cores, or threads of workers.
    scheduler: address of a Dask scheduler whose workers do them; it has to answer at once. batch:
    a batch system where workers are started. With neither, this machine does them.
    """

    def __init__(
        self,
        at_a_time: int | None = None,
        scheduler: str | None = None,
        batch: Batch | None = None,
    ) -> None:
        if scheduler is not None and not re.fullmatch(r"\w+://\S+:\d+", scheduler):
            raise UserError(f"{option('scheduler', scheduler)}: must be tcp://host:port")
        self._most, self._scheduler, self._batch = at_a_time, scheduler, batch
        self._dask: _Dask | None = None

    def __enter__(self) -> Runner:
        if self._scheduler is not None:
            self._connected()
        if self._batch is not None:
            from salt_hls.system.clusters import require_known

            require_known(self._batch)
        return self

    def __exit__(self, *_: object) -> None:
        if self._dask is not None:
            self._dask.stop()

    def do(
        self,
        jobs: Iterable[Job],
        done: Callable[[Job], Iterable[Job] | None] = lambda job: None,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Does the jobs, in about this order; each is taken when there is room for it.

        done: called with every job that is done, now or before; what it returns is done next. told:
        called with what a job tells by `processes.tell`, and with what is waited for. Raises what a
        job raises (`UserError`, `OSError`, `RuntimeError` with the traceback), dropping the others.
        When the process of a job is killed three times, or takes too much memory, the others go on,
        and in the end `UserError` names it.
        """
        todo, following = iter(jobs), deque[Job]()
        under_way: dict[Path, list[Job]] = {}  # several that have the same output are done once
        deaths: Counter[Path] = Counter()
        lost: list[UserError] = []

        def next_job() -> Job | None:
            while (job := following.popleft() if following else next(todo, None)) is not None:
                if job.output in under_way:
                    under_way[job.output].append(job)
                elif job.output.exists():
                    following.extend(done(job) or ())
                else:
                    return job
            return None

        while True:
            while len(under_way) < self._room() and (job := next_job()) is not None:
                under_way[job.output] = [job]
                self._connected().submit(job, 0)
            if not under_way and self._room():
                break
            event = self._connected().event()
            if event is None and not self._room():
                told("waiting for workers")
            if isinstance(event, str):
                told(event)
            if not isinstance(event, _Ended):
                continue
            job, error = event.job, event.error
            if isinstance(error, Died) and deaths[job.output] < DEATHS:
                deaths[job.output] += 1
                self._connected().submit(job, deaths[job.output])
                continue
            jobs_of_it = under_way.pop(job.output)
            if isinstance(error, Died):
                error = Lost(f"{error}, {DEATHS + 1} times")
            if isinstance(error, Lost):
                lost.append(error)
            elif error is not None:
                raise error
            else:
                _await_file(job)
                for same in jobs_of_it:
                    following.extend(done(same) or ())
        if lost:
            others = f" (and {len(lost) - 1} more like it)" if len(lost) > 1 else ""
            raise UserError(f"{lost[0]}{others}; all other jobs are done")

    def _room(self) -> int:
        """How many jobs may be under way: one, before anybody has been asked."""
        workers = self._dask.workers if self._dask else 1
        return workers if self._most is None else min(self._most, workers)

    def _connected(self) -> _Dask:
        if self._dask is None:
            from salt_hls.system import clusters

            clusters.quiet()
            if self._scheduler is not None:
                where = clusters.running(self._scheduler)
            elif self._batch is not None:
                where = clusters.batch(self._batch)
            else:
                where = clusters.local(self._most or cores())
            self._dask = _Dask(where)
            while not self._dask.connected:
                self._dask.event()
        return self._dask


def _await_file(job: Job) -> None:
    """Raises `UserError` when what another machine has written is not seen here."""
    deadline = time.monotonic() + SHARED_S
    while not job.output.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"{job.name}: was done, but {job.output} is not here; workers need the same "
                "folders at the same paths"
            )
        time.sleep(POLL_S)


@dataclass(frozen=True)
class _Ended:
    job: Job
    error: BaseException | None


class _Dask:
    """Dask, in a thread of its own, where no handler of a signal cuts anything short.

    connected: whether somebody has answered. workers: how many jobs they do at a time.
    """

    def __init__(self, where: AbstractAsyncContextManager[Connected]) -> None:
        self.connected, self.workers = False, 0
        self._where = where
        self._session = secrets.token_hex(8)
        self._events: SimpleQueue[_Ended | str | Exception] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._serving: asyncio.Task[None] = self._loop.create_task(self._serve())
        self._doing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def event(self) -> _Ended | str | None:
        """A job that has ended, or what one tells, or nothing after a while.

        Raises what was wrong with Dask itself.
        """
        try:
            event = self._events.get(timeout=POLL_S)
        except Empty:
            return None
        if isinstance(event, Exception):
            raise event
        return event

    def submit(self, job: Job, deaths: int) -> None:
        """Has a job done; deaths: how often it was tried."""

        def begin() -> None:
            task = self._loop.create_task(self._do(job, deaths))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)

        self._loop.call_soon_threadsafe(begin)

    def stop(self) -> None:
        """Cancels what is under way, there too."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._serving.cancel)
        deadline = time.monotonic() + STOP_S
        while self._thread in threading.enumerate() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serving)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._events.put(error)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        async with self._where as (client, renew):
            self._client: Client = client
            client.subscribe_topic(self._session, lambda event: self._events.put(event[1]))
            try:
                while True:
                    await renew()
                    self.workers = sum((await client.nthreads()).values())
                    self.connected = True
                    await asyncio.sleep(PULSE_S)
            except OSError:
                raise UserError(
                    "the Dask scheduler is gone; run again, what is done is kept"
                ) from None
            finally:
                for task in self._doing:
                    task.cancel()

    async def _do(self, job: Job, deaths: int) -> None:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        from salt_hls.system.worker import code, perform

        error: Exception | None = None
        key = digest(self._session, str(job.output), deaths)[:16]
        try:
            await self._client.submit(
                perform, job, code(), self._session, key=f"{job.function.__name__}-{key}"
            )
        except KilledWorker as killed:
            times = killed.allowed_failures + 1
            error = Lost(f"{job.name}: the workers that did it were killed, {times} times")
        except FutureCancelledError:
            error = UserError(f"{job.name}: was cancelled at the scheduler; run again")
        except ImportError as missing:
            error = UserError(
                f"{job.name}: a worker has no {missing.name}; install salt-hls there as it is here"
            )
        except Exception as raised:
            error = raised
        self._events.put(_Ended(job, error))
