"""What an operation may cost, in numbers that a busy machine does not change."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Fail, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.errors import OperationFailed

_WATCHER = "cancel_requested ="
"""What the thread that looks for requests to cancel asks for: twice a second, whoever runs."""


def line(length: int, *, failing: bool = False) -> Any:
    """``length`` tasks in a row, each announcing what it makes; the last one fails if it is to."""
    tasks = [Make(f"task{i}") for i in range(length - failing)]
    return registry(lambda: linear_flow.Flow("toy").add(*tasks, *([Fail()] if failing else [])))


class Traced:
    """The statements of each transaction that was committed, and every reading one."""

    def __init__(self, runner: Runner) -> None:
        self.commits: list[list[str]] = []
        self.reads: list[str] = []
        self.read_before_last_commit = 0
        runner.database.engine.dispose()  # connections that exist are not traced
        sa.event.listen(runner.database.engine, "connect", self._trace)

    def _trace(self, connection: Any, _record: Any) -> None:
        current: list[str] = []

        def note(statement: str) -> None:
            if statement.startswith("BEGIN"):
                current.clear()
            elif statement == "COMMIT":
                self.commits.append(list(current))
                self.read_before_last_commit = len(self.reads)
            elif statement.startswith("SELECT") and _WATCHER not in statement:
                self.reads.append(statement)
            elif statement.startswith(("INSERT", "UPDATE", "DELETE")):
                current.append(statement)

        connection.set_trace_callback(note)


def run(runner: Runner, *, fails: bool = False) -> None:
    if fails:
        with pytest.raises(OperationFailed):
            runner.run(ToyRequest())
    else:
        runner.run(ToyRequest())


@pytest.mark.parametrize("length", [1, 12, 100])
def test_an_operation_of_n_tasks_commits_at_most_n_plus_two_times(make_runner: MakeRunner, length: int) -> None:
    runner = make_runner(line(length))
    traced = Traced(runner)
    run(runner)
    assert length <= len(traced.commits) <= length + 2


@pytest.mark.parametrize("length", [1, 12, 100])
def test_an_operation_that_reverts_all_its_tasks_commits_at_most_two_n_plus_two_times(
    make_runner: MakeRunner, length: int
) -> None:
    runner = make_runner(line(length, failing=True))
    traced = Traced(runner)
    run(runner, fails=True)
    assert 2 * length - 1 <= len(traced.commits) <= 2 * length + 2


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_is_read_before_the_last_write_of_an_operation(make_runner: MakeRunner, failing: bool) -> None:
    runner = make_runner(line(12, failing=failing))
    traced = Traced(runner)
    run(runner, fails=failing)
    assert traced.reads[: traced.read_before_last_commit] == []


def test_a_barrier_writes_two_tasks_and_not_the_flow(make_runner: MakeRunner) -> None:
    """The fence; row, event and ledger of the task that has ended, and row, event and intent of the one that begins."""
    runner = make_runner(line(100))
    traced = Traced(runner)
    run(runner)
    creation, first, *barriers, last = map(len, traced.commits)
    assert creation <= 5
    assert first <= 100 + 6
    assert max(barriers) <= 8
    assert last <= 12


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_flows_leave_no_memory_behind(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(1))
    for _ in range(100):
        runner.run(ToyRequest())
    world.diary.clear()
    before = _resident()
    for _ in range(1000):
        runner.run(ToyRequest())
        world.diary.clear()
    assert _resident() - before < 4 << 20


def _cpu_per_step(runner: Runner, length: int, *, fails: bool) -> float:
    """CPU seconds; each operation's own making and ending are in it, as they are in real ones."""
    operations = max(1, 100 // length)
    start = time.process_time()
    for _ in range(operations):
        run(runner, fails=fails)
    return (time.process_time() - start) / (operations * length)


@pytest.mark.parametrize("failing", [False, True])
def test_a_step_costs_the_same_in_a_long_flow(make_runner: MakeRunner, failing: bool) -> None:
    """The least of several turns: what else the machine does only ever adds."""
    short = make_runner(line(12, failing=failing))
    long = make_runner(line(100, failing=failing))
    run(short, fails=failing)
    run(long, fails=failing)
    turns = [(_cpu_per_step(short, 12, fails=failing), _cpu_per_step(long, 100, fails=failing)) for _ in range(5)]
    assert min(its for _, its in turns) <= 1.3 * min(its for its, _ in turns)
