"""Jobs posted, claimed and finished a second by 1 to 8 workers, what a backlog costs, how soon a posting is heard."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.databases import databases
from benchmarks.table import Target, show, show_targets
from tests.lab import etcd, redis, zookeeper
from tests.lab.servers import running

_ROOT = Path(__file__).resolve().parent.parent
_WORKERS = (1, 2, 4, 8)
_WARM_UP = 60
_SECONDS = 0.8
"""How long one worker should have to do in a round."""
_MOST_JOBS = 1000
_FEWEST_JOBS = 64
_BACKLOGS = (100, 1_000, 10_000, 100_000)
_CLAIMS = 200
_HEARD = 30


@dataclass(frozen=True)
class Result:
    """Jobs a second: posted by one process, and claimed and finished by so many workers; CPU ms of a worker per job."""

    posted: float
    finished: Mapping[int, float]
    cpu_ms: float


class Process:
    """A worker that is told what to do."""

    def __init__(self, system: str, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.boards_worker", system, url],
            cwd=_ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.system = system

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.system} does not work (pip install -e '.[bench]'?)")
        return json.loads(line)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)

    def ask(self, command: str) -> Any:
        self.tell(command)
        return self.answer()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


def boards(rounds: int) -> list[Target]:
    """All boards and queues that this machine has servers for."""
    with surroundings() as contestants:
        ours = {label: one for label, one in contestants.items() if label.startswith("virtflow")}
        targets = _backlogs({label: one for label, one in ours.items() if "sql" in label})
        targets += _news(ours)
        targets += _throughput(contestants, max(1, rounds // 5))
    show_targets(targets)
    return targets


@contextmanager
def surroundings() -> Iterator[dict[str, tuple[str, Any]]]:
    """Contestants by label: the system, and a function that gives the URL of an empty place for it."""
    with ExitStack() as stack:
        available = stack.enter_context(databases())
        contestants: dict[str, tuple[str, Any]] = {}
        for kind in available.kinds:
            contestants[f"virtflow sql, {kind}"] = ("virtflow sql", lambda kind=kind: available.fresh(kind))
        if "PostgreSQL" in available.kinds:
            contestants["procrastinate, PostgreSQL"] = ("procrastinate", lambda: available.fresh("PostgreSQL"))
        servers: tuple[tuple[Any, Any, tuple[str, ...]], ...] = (
            (redis, redis.Redis, ("virtflow redis", "TaskFlow redis", "Celery")),
            (zookeeper, zookeeper.ZooKeeper, ("virtflow zookeeper", "TaskFlow zookeeper")),
            (etcd, etcd.Etcd, ("virtflow etcd",)),
        )
        for module, make, systems in servers:
            for system in () if module.missing() else systems:
                server = stack.enter_context(running(make))
                label = f"{system}, {server.name}" if system == "Celery" else system
                contestants[label] = (system, lambda server=server: server.url)
        yield contestants


@contextmanager
def processes(system: str, url: str, count: int) -> Iterator[list[Process]]:
    started: list[Process] = []
    try:
        started.append(Process(system, url))
        started[0].answer()  # before the others: it makes the tables
        started += [Process(system, url) for _ in range(count - 1)]
        for process in started[1:]:
            process.answer()
        yield started
    finally:
        for process in started:
            process.end()


def _throughput(contestants: Mapping[str, tuple[str, Any]], rounds: int) -> list[Target]:
    results = {}
    for label, (system, url) in contestants.items():
        with processes(system, url(), 1 + max(_WORKERS)) as (poster, *workers):
            results[label] = _measure(poster, workers, rounds)
    head = ("board", "posted/s", *(f"{workers} worker{'s'[: workers > 1]}" for workers in _WORKERS), "CPU ms/job")
    rows = [
        (label, f"{one.posted:,.0f}", *(f"{one.finished[w]:,.0f}" for w in _WORKERS), f"{one.cpu_ms:.2f}")
        for label, one in results.items()
    ]
    show("Jobs a second, posted by one process, then claimed and finished by some", head, rows)
    targets = []
    for mine, other in (
        ("virtflow sql, PostgreSQL", "procrastinate, PostgreSQL"),
        ("virtflow redis", "TaskFlow redis"),
        ("virtflow zookeeper", "TaskFlow zookeeper"),
    ):
        if mine in results and other in results:
            ratio = results[mine].finished[8] / results[other].finished[8]
            targets.append(Target(f"{mine} against {other}, 8 workers", ratio, 1.0))
    return targets


def _measure(poster: Process, workers: list[Process], rounds: int) -> Result:
    poster.ask(f"post {_WARM_UP}")
    _drain(poster, workers, _WARM_UP)  # warms up
    poster.ask(f"post {_WARM_UP}")
    rate, _cpu = _drain(poster, workers[:1], _WARM_UP)
    jobs = min(max(round(rate * _SECONDS), _FEWEST_JOBS), _MOST_JOBS)
    posted, cpu = [], []
    finished: dict[int, list[float]] = {count: [] for count in _WORKERS}
    for _ in range(rounds):
        for count in _WORKERS:
            posted.append(jobs / poster.ask(f"post {jobs}"))
            rate, seconds = _drain(poster, workers[:count], jobs)
            finished[count].append(rate)
            if count == 1:
                cpu.append(seconds / jobs * 1000)
    rates = {count: statistics.median(values) for count, values in finished.items()}
    return Result(statistics.median(posted), rates, statistics.median(cpu))


def _drain(poster: Process, workers: list[Process], jobs: int) -> tuple[float, float]:
    """Let workers finish what is there: jobs a second from the first's end to the last's, and CPU seconds."""
    for worker in workers:
        worker.ask("go")
    give_up = time.monotonic() + 60
    while poster.ask("left"):
        if time.monotonic() > give_up:
            raise SystemExit(f"{poster.system} does not finish its jobs")
        time.sleep(0.1)
    for worker in workers:
        worker.tell("stop")
    answers = [answer for worker in workers if (answer := worker.answer())[0]]
    if sum(count for count, *_others in answers) != jobs:
        raise SystemExit(f"{poster.system} finished {sum(count for count, *_others in answers)} of {jobs} jobs")
    seconds = max(last for _count, _first, last, _cpu in answers) - min(first for _count, first, _last, _cpu in answers)
    return (jobs - 1) / seconds, sum(cpu for *_others, cpu in answers)


def _backlogs(contestants: Mapping[str, tuple[str, Any]]) -> list[Target]:
    """One worker claims from the head of backlogs of all sizes."""
    medians: dict[str, list[float]] = {}
    for label, (system, url) in contestants.items():
        with processes(system, url(), 1) as (process,):
            medians[label], there = [], 0
            for backlog in _BACKLOGS:
                process.ask(f"fill {backlog + _CLAIMS + 50 - there}")
                process.ask("claims 50")
                medians[label].append(statistics.median(process.ask(f"claims {_CLAIMS}")) * 1000)
                there = backlog
    rows = [(label, *(f"{value:.2f}" for value in values)) for label, values in medians.items()]
    show("Milliseconds to claim one job, by how many wait", ("board", *(f"{n:,}" for n in _BACKLOGS)), rows)
    text = "claiming with 100,000 waiting against 100"
    return [Target(f"{label}: {text}", values[-1] / values[0], 1.5, most=True) for label, values in medians.items()]


def _news(contestants: Mapping[str, tuple[str, Any]]) -> list[Target]:
    """How long after it was posted a job is claimed by a process that sleeps."""
    delays: dict[str, list[float]] = {}
    for label, (system, url) in contestants.items():
        with processes(system, url(), 2) as (poster, listener):
            listener.tell(f"heard {_HEARD}")
            time.sleep(1)
            posted = poster.ask(f"notify {_HEARD}")
            heard = listener.answer()
            delays[label] = sorted((late - early) * 1000 for early, late in zip(posted, heard, strict=True))
    rows = [(label, f"{statistics.median(one):.1f}", f"{one[-1]:.1f}") for label, one in delays.items()]
    show("Milliseconds from posting to having claimed, idle worker", ("board", "median", "worst"), rows)
    label = "virtflow sql, PostgreSQL"
    if label not in delays:
        return []
    return [Target(f"{label}: from posting to claimed, ms", statistics.median(delays[label]), 10.0, most=True)]
