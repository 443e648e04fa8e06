"""Where jobs run: on this machine, at a running Dask scheduler, or in jobs of a batch system."""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import dask
from distributed import Client, Scheduler, Worker
from distributed.system import MEMORY_LIMIT

from salt_hls.errors import UserError
from salt_hls.system.jobs import DEATHS, Batch
from salt_hls.system.wording import option
from salt_hls.system.worker import end_idle

ANSWER_S = 5.0
"""A scheduler that does not answer in this time is not there."""


@lru_cache(maxsize=1)
def _systems() -> dict[str, Any]:
    """The batch systems of dask-jobqueue, by the name of their section."""
    answers = signal.getsignal(signal.SIGINT)
    import dask_jobqueue  # takes Ctrl-C over

    signal.signal(signal.SIGINT, answers)
    classes = [found for found in vars(dask_jobqueue).values() if getattr(found, "job_cls", None)]
    return {found.job_cls.config_name: found for found in classes}


def require_known(batch: Batch) -> None:
    """Raises `UserError` unless it names one batch system, with options that it takes."""
    system, known_systems = next(iter(batch.jobqueue), "none"), sorted(_systems())
    if len(batch.jobqueue) != 1 or system not in known_systems:
        raise UserError(
            f"{batch.path}: jobqueue: must have one of {', '.join(known_systems)}, got "
            f"{', '.join(batch.jobqueue) or 'none'}"
        )
    known = {key.replace("_", "-") for key in dask.config.get(f"jobqueue.{system}")}
    for key in batch.jobqueue[system]:
        if key.replace("_", "-") not in known:
            near = get_close_matches(key.replace("_", "-"), known, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise UserError(f"{batch.path}: unknown key 'jobqueue.{system}.{key}'; {fix}")
    options = _options(batch.jobqueue[system])
    for of_cluster in ("scheduler_options", "shared_temp_directory"):
        options.pop(of_cluster, None)
    try:
        _systems()[system].job_cls("tcp://host:port", name=system, **options)
    except (ValueError, TypeError) as error:
        raise _fault(batch, error) from None


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in settings.items()}


def _fault(batch: Batch, error: Exception) -> UserError:
    return UserError(f"{batch.path}: {' '.join(str(error).split())[:300]}")


_LIGHT: dict[str, Any] = {
    **{f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""Dask watches the memory of its own process and what it spends time on; ours does nothing."""


class _NoServer:
    """Opens no port for a dashboard."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        pass


class _Scheduler(_NoServer, Scheduler):
    pass


class _Worker(_NoServer, Worker):
    pass


Connected = tuple[Client, Callable[[], Awaitable[None]]]
"""A client, and what to call every second: it replaces workers that are lost."""


async def _nothing() -> None:
    pass


def quiet() -> None:
    """Dask logs what it does to standard error; what is wrong is ours to say."""
    for name in ("distributed", "dask_jobqueue", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@asynccontextmanager
async def local(threads: int) -> AsyncIterator[Connected]:
    """Scheduler and worker in this process, so many jobs at a time; no port is opened."""
    with dask.config.set(_LIGHT):
        try:
            async with (
                _Scheduler(protocol="inproc://", dashboard=False) as scheduler,
                _Worker(scheduler.address, nthreads=threads, memory_limit=MEMORY_LIMIT),
                Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
            ):
                yield client, _nothing
        finally:
            while end_idle():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(address: str) -> AsyncIterator[Connected]:
    """A scheduler that somebody has started. Raises `UserError` when it does not answer."""
    given = option("scheduler", address)
    try:
        client = Client(address, asynchronous=True, timeout=ANSWER_S, set_as_default=False)
    except ValueError as error:  # e.g. of a protocol that is none
        raise UserError(f"{given}: {error}") from None
    try:
        await asyncio.wait_for(client, ANSWER_S + 1)
    except (OSError, asyncio.TimeoutError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        await client.close(timeout=1)
        raise UserError(
            f"{given}: no Dask scheduler answers there ({reason or 'timed out'}); start one with "
            "`dask scheduler`, and workers with `dask worker`"
        ) from None
    async with client:
        ours, theirs = await _dask_versions(client)
        if ours != theirs:
            raise UserError(f"{given}: the scheduler has distributed {theirs}, here is {ours}")
        yield client, _nothing


async def _dask_versions(client: Client) -> tuple[str, str]:
    found: Any = client.get_versions(check=False)
    found = await found
    ours, theirs = (found[who]["packages"]["distributed"] for who in ("client", "scheduler"))
    return ours, theirs


@asynccontextmanager
async def batch(given: Batch) -> AsyncIterator[Connected]:
    """A scheduler in this process, with workers in jobs of a batch system.

    Those that are lost, or at their time limit, are replaced. Raises `UserError` when the system
    is not there or refuses the jobs.
    """
    ((system, settings),) = given.jobqueue.items()
    cls = _systems()[system]
    command, *_ = shlex.split(getattr(cls.job_cls, "submit_command", None) or "sh")
    if shutil.which(command) is None:
        raise UserError(
            f"{option('cluster', given.path)}: {command} is not on this machine; run this where "
            f"jobs for {system} are submitted"
        )
    options = _options(settings)
    scheduler = dict(options.pop("scheduler_options", {}))
    asked = "dashboard_address" in scheduler
    with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}):
        cluster = cls(
            asynchronous=True,
            scheduler_cls=Scheduler if asked else _Scheduler,
            scheduler_options={"dashboard": asked, **scheduler},
            **options,
        )

        async def renew() -> None:
            cluster.scale(jobs=given.workers)
            try:
                await cluster._correct_state()
            except (RuntimeError, ValueError, OSError) as error:
                raise _fault(given, error) from None

        async with cluster, Client(cluster, asynchronous=True, set_as_default=False) as client:
            yield client, renew
