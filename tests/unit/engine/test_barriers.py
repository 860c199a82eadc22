"""What a flow costs: one commit per barrier, no reading in between, and nothing told or started before it is stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Fail, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.errors import OperationFailed
from virtflow.tasks.base import Task


class Idle(Task):
    """Does nothing."""

    def execute(self) -> None:
        """It is the engine that is measured."""

    def revert(self, **_arguments: Any) -> None:
        """Nothing was made."""


@contextmanager
def traced(runner: Runner) -> Iterator[list[str]]:
    """Every statement that SQLite is given on the engine's own connection while the block runs."""
    statements: list[str] = []
    connection = runner.core.writer._connected()
    connection.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        connection.set_trace_callback(None)


def reads(statements: list[str]) -> list[str]:
    return [text for text in statements if text.lstrip().upper().startswith("SELECT")]


@pytest.mark.parametrize("tasks", [1, 12, 60])
def test_a_flow_of_n_tasks_takes_at_most_n_plus_2_commits(make_runner: MakeRunner, tasks: int) -> None:
    names = [f"t{number}" for number in range(tasks)]
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(*(Idle(name) for name in names))))
    runner.run(ToyRequest())
    before = runner.core.writer.commits
    runner.run(ToyRequest())
    assert runner.core.writer.commits - before <= tasks + 2


@pytest.mark.parametrize("tasks", [1, 12])
def test_a_full_revert_of_n_tasks_takes_at_most_2n_plus_2_commits(make_runner: MakeRunner, tasks: int) -> None:
    names = [f"t{number}" for number in range(tasks)]
    runner = make_runner(
        registry(lambda: linear_flow.Flow("toy").add(*(Idle(name) for name in names[:-1]), Fail(names[-1])))
    )
    before = runner.core.writer.commits
    with pytest.raises(OperationFailed):
        runner.run(ToyRequest())
    assert runner.core.writer.commits - before <= 2 * tasks + 2


def test_nothing_is_read_before_a_write_while_a_flow_runs(make_runner: MakeRunner) -> None:
    pooled: list[str] = []

    def listen(task: str) -> Any:
        return lambda _world, _activity: pooled.append(task)

    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(*(Call(n, listen(n)) for n in "abcdef"))))
    runner.run(ToyRequest())
    seen: list[str] = []
    import sqlalchemy as sa

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if len(pooled) not in (6, 12):  # between the first task and the last
            seen.append(statement)

    with traced(runner) as statements:
        sa.event.listen(runner.database.engine, "before_cursor_execute", note)
        try:
            runner.run(ToyRequest())
        finally:
            sa.event.remove(runner.database.engine, "before_cursor_execute", note)
    assert len(pooled) == 12
    assert any(text.startswith("INSERT INTO journal") for text in statements)
    assert reads(statements) == []
    assert [text for text in seen if "cancel_requested" not in text] == []  # the watcher asks twice a second


def test_a_task_begins_only_when_its_start_its_intents_and_its_predecessors_results_are_stored(
    make_runner: MakeRunner, world: World
) -> None:
    seen: list[tuple[dict[str, str], list[str]]] = []

    def look(_world: World, _activity: Any) -> None:
        operation = runner.operations.list()[0]
        states = {task.name: task.state for task in runner.operations.tasks(operation.id)}
        seen.append((states, [row.state for row in runner.ledger.rows()]))

    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Call("look", look))))
    runner.run(ToyRequest())
    assert seen == [({"a": "SUCCESS", "look": "RUNNING"}, ["PRESENT"])]


def test_intents_are_there_before_the_thing_is(make_runner: MakeRunner) -> None:
    seen: list[list[tuple[str, str, str]]] = []

    class Look(Make):
        def execute(self, world: World) -> str:
            seen.append([(row.kind, row.identity, row.state) for row in runner.ledger.rows()])
            return super().execute(world)

    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Look("a"))))
    runner.run(ToyRequest())
    assert seen == [[("thing", "a", "INTENDED")]]


def test_flows_that_commit_at_the_same_time_share_their_commits(make_runner: MakeRunner) -> None:
    """Eight at once: fewer commits than eight alone would need, and each has all of its own rows."""
    names = [f"t{number}" for number in range(12)]
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(*(Idle(name) for name in names))))
    runner.run(ToyRequest(name="warm"))
    started = threading.Barrier(8)
    outcomes: list[str | None] = []

    def run(number: int) -> None:
        started.wait(10)
        outcomes.append(runner.run(ToyRequest(name=f"n{number}")).outcome)

    before = runner.core.writer.commits
    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == ["SUCCESS"] * 8
    assert runner.core.writer.commits - before < 8 * 14
    for operation in runner.operations.list(limit=8):
        assert [task.state for task in runner.operations.tasks(operation.id)] == ["SUCCESS"] * 12
