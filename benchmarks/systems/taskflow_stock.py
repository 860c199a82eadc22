"""TaskFlow as it is, without persistence and with its own SQLAlchemy backend."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import taskflow.engines
from taskflow import task
from taskflow.patterns import linear_flow
from taskflow.persistence import backends

from benchmarks.systems import RunFlows


class Step(task.Task):
    def execute(self, x: int) -> int:
        return x


def linear(step: type[task.Task], tasks: int) -> linear_flow.Flow:
    """A line of ``tasks`` steps, each of which takes what the one before it has made."""
    flow = linear_flow.Flow("line")
    for i in range(tasks):
        flow.add(step(name=f"step{i}", provides=f"r{i}", rebind={"x": f"r{i - 1}" if i else "x"}))
    return flow


def prepare_in_memory(url: str, tasks: int) -> RunFlows:  # noqa: ARG001 - nothing is stored
    return _runner(tasks, None)


def prepare(url: str, tasks: int) -> RunFlows:
    backend = backends.fetch({"connection": url})
    with contextlib.closing(backend.get_connection()) as connection:
        connection.upgrade()
    return _runner(tasks, backend)


def _runner(tasks: int, backend: Any) -> RunFlows:
    def run_one(_number: int) -> None:
        results = taskflow.engines.run(linear(Step, tasks), store={"x": 1}, backend=backend)
        assert results[f"r{tasks - 1}"] == 1

    def run(flows: int, in_flight: int) -> None:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(run_one, range(flows)))

    return run
