"""Jobs: done once, wherever they are done; what dies is named; nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import some_jobs
import yaml
from test_processes import PATIENCE_S, Session, eventually, runs
from typer.testing import CliRunner

from salt_hls.cli.commands import app
from salt_hls.errors import UserError
from salt_hls.jets import generator
from salt_hls.system import clusters, jobs
from salt_hls.system.jobs import Batch, Job, Runner
from salt_hls.system.paths import SYNTH

HERE = Path(__file__).parent


def squares(folder: Path, count: int, name: str = "") -> list[Job]:
    traces = folder / "traces"
    traces.mkdir(exist_ok=True)
    return [
        Job(f"square {n}", some_jobs.square, (n, traces), folder / f"{name}{n}")
        for n in range(count)
    ]


def calls(folder: Path) -> list[int]:
    return sorted(int(path.name.split(".")[0]) for path in (folder / "traces").iterdir())


# ---- on this machine


def test_jobs_are_done_once_in_a_few_processes(tmp_path: Path) -> None:
    done: list[Job] = []
    told: list[str] = []
    given = squares(tmp_path, 7)
    with Runner(2) as runner:
        given[3].output.write_text("9")  # by somebody before
        runner.do([*given, given[5]], done.append, told.append)
        assert sorted(job.name for job in done) == sorted(job.name for job in [*given, given[5]])
        assert [job.output.read_text() for job in given] == [str(n**2) for n in range(7)]
        assert calls(tmp_path) == [0, 1, 2, 4, 5, 6]
        runner.do(iter(given), told=told.append)
        assert calls(tmp_path) == [0, 1, 2, 4, 5, 6]
        runner.do([])
    assert sorted(told) == [f"at {n}" for n in (0, 1, 2, 4, 5, 6)]
    pids = {int(path.name.split(".")[1]) for path in (tmp_path / "traces").iterdir()}
    assert 1 <= len(pids) <= 2 and not any(map(runs, pids))


def test_a_job_may_have_followers_which_come_first(tmp_path: Path) -> None:
    first, second, *others = squares(tmp_path, 5)
    order: list[str] = []

    def done(job: Job) -> list[Job]:
        order.append(job.name)
        return [second] if job == first else []

    with Runner(1) as runner:
        runner.do([first, *others], done)
    assert order == [first.name, second.name, *(job.name for job in others)]


def test_no_port_is_opened(tmp_path: Path) -> None:
    listening: list[Any] = []

    def look(_: Job) -> None:
        found = psutil.Process().net_connections("inet")
        listening.extend(c for c in found if c.status == psutil.CONN_LISTEN)

    before = len([c for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"])
    with Runner(2) as runner:
        runner.do(squares(tmp_path, 1), look)
    assert len(listening) == before


def test_what_a_job_raises_is_raised(tmp_path: Path) -> None:
    bad = Job("bad", some_jobs.square, (-3, tmp_path), tmp_path / "bad")
    gate = tmp_path / "gate"
    waits = Job("waits", some_jobs.wait_for, (gate,), tmp_path / "waits")
    with Runner(2) as runner, pytest.raises(UserError, match=r"^-3 is negative$"):
        runner.do([waits, bad])
    assert eventually(lambda: not any(runs(pid) for pid in begun(gate)))
    with Runner(1) as runner:
        with pytest.raises(RuntimeError, match=r"in defect(.|\n)*TypeError: a defect in x"):
            runner.do([Job("defect", some_jobs.defect, (), tmp_path / "x")])
        with pytest.raises(FileNotFoundError, match="nowhere"):
            runner.do([Job("reads", some_jobs.reads, (tmp_path / "nowhere",), tmp_path / "x")])


def test_a_job_whose_process_dies_is_tried_three_times(tmp_path: Path) -> None:
    tries = [tmp_path / "twice", tmp_path / "always"]
    given = [
        Job(path.name, some_jobs.deadly, (count, path), tmp_path / f"{path.name}.out")
        for path, count in zip(tries, (2, 99), strict=True)
    ]
    others = squares(tmp_path, 4)
    with Runner(2) as runner, pytest.raises(UserError) as caught:
        runner.do([given[1], given[0], *others])
    assert str(caught.value) == (
        "always: its process was killed (signal 9; out of memory?), 3 times; all other jobs are "
        "done"
    )
    assert [len(path.read_text()) for path in tries] == [3, 3]
    assert given[0].output.exists() and all(job.output.exists() for job in others)


def test_a_job_gets_its_share_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "MEMORY_LIMIT", 1_000_000_000)
    given = Job("large", some_jobs.large, (700_000_000,), tmp_path / "x")
    with Runner(2) as runner, pytest.raises(UserError) as caught:
        runner.do([given, *squares(tmp_path, 3)])
    assert re.fullmatch(
        r"large: took 0\.\d GB of memory, its share is 0\.5 GB; let fewer run at a time; all other "
        "jobs are done",
        str(caught.value),
    )


def test_what_is_not_needed_is_not_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, salt_hls.cli.main, salt_hls; from salt_hls.system.jobs import Runner\n"
        "with Runner() as runner: runner.do([])\n"
        "print({'dask', 'distributed', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- scheduler and workers in processes of their own


class Cluster:
    """A scheduler over TCP and its workers, processes that carry a mark."""

    def __init__(self, folder: Path) -> None:
        self.mark, self.file = uuid.uuid4().hex, folder / "scheduler"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0",
            "--scheduler-file", str(self.file),
        )  # fmt: skip
        assert eventually(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, what: str, *arguments: str, before: str = "") -> subprocess.Popen[bytes]:
        code = f"{before}\nfrom distributed.cli.dask_{what} import main\nmain()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "MARK": self.mark, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.file.parent,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def worker(self, before: str = "") -> subprocess.Popen[bytes]:
        arguments = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        return self.start("worker", self.address, *arguments, before=before)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster")
    yield made
    made.end()


def begun(gate: Path) -> list[int]:
    note = gate.with_suffix(".begun")
    return [int(pid) for pid in note.read_text().split()] if note.exists() else []


def test_a_worker_that_is_killed_costs_its_own_job(tmp_path: Path, cluster: Cluster) -> None:
    """Two workers; one dies in mid-job and a third comes: all is done, and nothing twice."""
    cluster.worker()
    cluster.worker()
    gate = tmp_path / "gate"
    given = [Job(f"g{n}", some_jobs.wait_for, (gate,), tmp_path / f"g{n}") for n in range(2)]
    others = squares(tmp_path, 6)
    killed: list[int] = []

    def kill_one() -> None:
        if eventually(lambda: len(begun(gate)) == 2):
            killed.append(begun(gate)[0])
            os.kill(psutil.Process(killed[0]).ppid(), signal.SIGKILL)
            cluster.worker()
            eventually(lambda: len(begun(gate)) == 3)
        gate.write_text("open")

    killer = threading.Thread(target=kill_one)
    with Runner(scheduler=cluster.address) as runner:
        killer.start()
        runner.do([*given, *others])
    killer.join()
    assert killed and eventually(lambda: not runs(killed[0]))
    assert [job.output.read_text() for job in given] == ["open"] * 2
    assert [job.output.read_text() for job in others] == [str(n**2) for n in range(6)]
    assert len(begun(gate)) == 3 and calls(tmp_path) == list(range(6))


SLEEPING = """
import sys
from pathlib import Path
import some_jobs
from salt_hls.cli import commands, main
from salt_hls.system.jobs import Job, Runner

@commands.app.command()
def sleeping(scheduler: str, folder: Path):
    with Runner(2, None if scheduler == "none" else scheduler) as runner:
        pids = folder / "pids"
        runner.do(Job(str(n), some_jobs.program, (pids,), folder / str(n)) for n in range(9))

main.main()
"""


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("here", signal.SIGINT),
        pytest.param("here", signal.SIGTERM, marks=pytest.mark.slow),
        ("here", signal.SIGKILL),
        ("there", signal.SIGINT),
        pytest.param("there", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("there", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_the_end_of_the_command_ends_its_jobs(
    where: str,
    number: signal.Signals,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = "none"
    if where == "there":
        cluster = request.getfixturevalue("cluster")
        cluster.worker()
        cluster.worker()
        scheduler = cluster.address
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}")
    session = Session(tmp_path, "-c", SLEEPING, "sleeping", scheduler, tmp_path)
    pids = tmp_path / "pids"
    assert eventually(lambda: pids.exists() and len(pids.read_text().split()) == 4)
    session.signal(number, group=number == signal.SIGINT)
    if number == signal.SIGKILL:
        session.process.communicate(timeout=PATIENCE_S)
    else:
        session.ends_with_its_line()
    assert eventually(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))
    assert len(pids.read_text().split()) == 4 and not list(tmp_path.glob("[0-9]"))
    if where == "there":  # they go on for others
        with Runner(scheduler=scheduler) as runner:
            runner.do(squares(tmp_path, 3))


def test_what_is_wrong_with_a_worker_is_named(tmp_path: Path, cluster: Cluster) -> None:
    cluster.worker("import salt_hls.version; salt_hls.version.__version__ = '9.9'")
    with Runner(scheduler=cluster.address) as runner, pytest.raises(UserError) as caught:
        runner.do(squares(tmp_path, 1))
    assert f"square 0: the worker {cluster.address[:15]}" in str(caught.value)
    assert "has salt-hls 9.9, not 0.1.0; install the same there and here" in str(caught.value)


def test_files_that_are_not_there_or_here_are_named(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.worker()
    monkeypatch.setattr(jobs, "SHARED_S", 0.5)
    nowhere = tmp_path / "nowhere.h5"
    with Runner(scheduler=cluster.address) as runner:
        with pytest.raises(UserError, match=r"^reads: .*nowhere.h5.* \(on the worker tcp://127.0"):
            runner.do([Job("reads", some_jobs.reads, (nowhere,), tmp_path / "x")])
        with pytest.raises(UserError, match=r"other: was done, but .*/y is not here; workers need"):
            runner.do([Job("other", some_jobs.writes_nothing, (), tmp_path / "y")])
        cluster.scheduler.kill()
        with pytest.raises(
            UserError,
            match="scheduler is gone; run again|was cancelled at the scheduler; run again",
        ):
            runner.do([Job("w", some_jobs.wait_for, (tmp_path / "g",), tmp_path / "w")])


# ---- schedulers and clusters that are not there


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ANSWER_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for listens in (False, True):
            if listens:
                silent.listen()
            done = CliRunner().invoke(app, ["data", "--scheduler", f"tcp://127.0.0.1:{port}"])
            assert isinstance(done.exception, UserError)
            text = str(done.exception)
            assert text.startswith(f"--scheduler tcp://127.0.0.1:{port}: no Dask scheduler answers")
            assert "\n" not in text
    for wrong in ("nowhere", "8786", "tcp://host"):
        with pytest.raises(UserError, match=r"--scheduler .*: must be tcp://host:port"):
            Runner(scheduler=wrong)


SLURM: dict[str, Any] = {"cores": 1, "memory": "2GB"}
"""Of a cluster in a file."""


def cluster_file(folder: Path, jobqueue: Any, **others: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"workers": 2, "jobqueue": jobqueue, **others}))
    return path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that do what those of Slurm do, on this machine; returns a note of their calls."""
    folder, note = tmp_path / "bin", tmp_path / "slurm.log"
    folder.mkdir()
    scripts = {
        "sbatch": f'cp "$1" {tmp_path}/job.$$; setsid sh {tmp_path}/job.$$ > {tmp_path}/job.$$.log '
        f"2>&1 & echo Submitted batch job $!; echo sbatch >> {note}",
        "scancel": f"kill -9 -$1; echo scancel $1 >> {note}",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}")
    return note


@pytest.mark.slow
def test_a_batch_system_does_the_jobs(tmp_path: Path, slurm: Path) -> None:
    options = {**SLURM, "interface": "lo"}
    with Runner(batch=Batch(tmp_path / "c.yaml", 2, {"slurm": options})) as runner:
        runner.do(squares(tmp_path, 4))
        lines = slurm.read_text().split("\n")
        assert lines.count("sbatch") == 2
    assert [(tmp_path / str(n)).read_text() for n in range(4)] == ["0", "1", "4", "9"]
    assert slurm.read_text().count("scancel") == 2
    script = next(p for p in tmp_path.glob("job.*") if p.suffix != ".log").read_text()
    assert "--nthreads 1" in script and "--memory-limit 1.86GiB" in script


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"slurm": {**SLURM, "walltme": "1"}}, r"slurm.walltme'; did you mean 'walltime'"),
        ({"slurm": SLURM, "pbs": SLURM}, r"must have one of htcondor, .*, got pbs, slurm"),
        ({"slrm": SLURM}, r"must have one of .*slurm.*, got slrm"),
        ({}, "must have one of .*, got none"),
        ({"slurm": {"cores": 1}}, r"cluster.yaml: .*cores and memory"),
        ({"slurm": SLURM}, r"sbatch is not on this machine; run this where jobs for slurm"),
    ],
)  # fmt: skip
def test_clusters_that_are_not_there(content: Any, says: str, tmp_path: Path) -> None:
    path = cluster_file(tmp_path, content)
    done = CliRunner().invoke(
        app, ["data", "--jets", "100", "--data", str(tmp_path / "d"), "--cluster", str(path)]
    )
    assert isinstance(done.exception, UserError), done.output
    text = str(done.exception)
    assert "\n" not in text and "cluster.yaml" in text
    assert re.search(says, text), text


def test_a_batch_system_that_refuses(tmp_path: Path, slurm: Path) -> None:
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho sbatch: no such partition >&2; exit 1\n")
    given = Batch(tmp_path / "c.yaml", 2, {"slurm": SLURM})
    with Runner(batch=given) as runner, pytest.raises(UserError) as caught:
        runner.do(squares(tmp_path, 1))
    assert re.search(r"c.yaml: .*no such partition", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((SYNTH / "clusters").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_clusters_are_whole(path: Path) -> None:
    from salt_hls.config import Cluster as File
    from salt_hls.config import load_yaml

    given = load_yaml(path, File)
    clusters.require_known(Batch(path, given.workers, given.jobqueue))
    ((system, options),) = given.jobqueue.items()
    job = clusters._systems()[system].job_cls(
        "tcp://host:1", name="name", **{key.replace("-", "_"): v for key, v in options.items()}
    )
    assert "tcp://host:1" in job.job_script()


# ---- the same jets everywhere


def jets_of(folder: Path, runner: Runner) -> dict[str, bytes]:
    list(generator.generate(None, folder, runner, lambda *_: None))
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            found.update({f"{path.name} {name}": np.asarray(file[name]).tobytes() for name in file})
    return found


@pytest.mark.slow
def test_jets_are_the_same_with_any_workers_in_any_order(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = [
        generator.Chunk(split, jet_class, index, collisions=3 + index)
        for split in generator.SPLITS
        for index in range(2)
        for jet_class in ("g", "W")
    ]
    found = []
    for most in (1, 2, 8):
        shuffled = np.random.default_rng(most).permutation(len(plan))
        monkeypatch.setattr(generator, "_make", made_in_order(shuffled))
        monkeypatch.setattr(generator, "plan", lambda _: plan)
        with Runner(most) as runner:
            found.append(jets_of(tmp_path / str(most), runner))
    cluster.worker()
    cluster.worker()
    with Runner(scheduler=cluster.address) as runner:
        found.append(jets_of(tmp_path / "there", runner))
    assert len(found[0]) == 12 and all(len(values) > 0 for values in found[0].values())
    assert all(other == found[0] for other in found[1:])


def made_in_order(order: Any, make: Any = generator._make) -> Any:
    return lambda wanted, *others: make([wanted[i] for i in order], *others)
