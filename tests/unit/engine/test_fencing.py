"""Who does not own an operation any more writes nothing, and stops; who cannot reach the database waits, or stops."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.errors import Busy, DatabaseError, StaleEpoch, VirtflowError
from virtflow.persistence import operations as ops
from virtflow.persistence.database import Database
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.models import metadata
from virtflow.persistence.models.engine import claims, journal
from virtflow.persistence.placement import PlacementRepository
from virtflow.persistence.quotas import QuotaRepository
from virtflow.tasks.accept import Accept

DEAD = json.dumps(["elsewhere", 1, 1, "boot"])


class Paused:
    """A runner in a thread of its own, held in the middle of its task ``pause``."""

    def __init__(self, make_runner: MakeRunner, *after: Any, **settings: Any) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.raised: BaseException | None = None

        def pause(_world: World, _activity: Any) -> None:
            self.reached.set()
            assert self.go_on.wait(20)

        self.flows = registry(lambda: linear_flow.Flow("toy").add(Make("a"), Call("pause", pause), *after))
        self.runner = make_runner(self.flows, **settings)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.reached.wait(10)

    def _run(self) -> None:
        try:
            self.runner.run(ToyRequest())
        except VirtflowError as error:
            self.raised = error

    def finish(self) -> None:
        self.go_on.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def take_over(runner: Runner) -> None:
    """As a worker does that was told that the owner is dead, though it is only slow."""
    operation = runner.operations.get("1")
    with runner.database.transaction() as connection:
        connection.execute(sa.update(claims).where(claims.c.subject == operation.id).values(owner=DEAD, touched_at=0))
    runner.operations.claim(runner.operations.get("1"), DEAD, state=ops.RUNNING)


def rows(runner: Runner, table: sa.Table) -> list[Any]:
    with runner.database.connect() as connection:
        return list(connection.execute(sa.select(table)).all())


def test_a_runner_that_was_taken_over_stops_without_writing_or_reverting_anything(
    make_runner: MakeRunner, world: World
) -> None:
    paused = Paused(make_runner, Make("b"))
    take_over(paused.runner)
    before = rows(paused.runner, journal)
    paused.finish()
    assert isinstance(paused.raised, StaleEpoch)
    assert rows(paused.runner, journal) == before
    assert world.diary == ["make a"]
    operation = paused.runner.operations.get("1")
    assert (operation.state, operation.outcome, operation.owner) == (ops.RUNNING, None, DEAD)


def test_a_runner_that_was_taken_over_does_not_write_the_end_either(make_runner: MakeRunner) -> None:
    paused = Paused(make_runner)
    take_over(paused.runner)
    paused.finish()
    assert isinstance(paused.raised, StaleEpoch)
    assert paused.runner.operations.get("1").state == ops.RUNNING


WRITES: dict[str, Callable[[Database, str], object]] = {
    "decisions": lambda database, operation: DecisionRepository(database).record(operation, 1, {"chosen": "host"}),
    "allocations": lambda database, operation: PlacementRepository(database).claim(
        "host", "instance", operation, vcpus=1, memory_mib=1, disk_gib=1
    ),
    "quota_charges": lambda database, operation: QuotaRepository(database, {}).reserve(
        "instance", operation, "default", {"vcpus": 1}
    ),
}


@pytest.mark.parametrize("table", WRITES)
def test_what_a_task_writes_into_the_books_is_refused_too(make_runner: MakeRunner, world: World, table: str) -> None:
    def pause(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(20)
        WRITES[table](runner.database, runner.operations.get("1").id)

    reached, go_on = threading.Event(), threading.Event()
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Call("pause", pause))))
    HostRepository(runner.database).register("host", 8, 1024, 100)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            runner.run(ToyRequest())
        except VirtflowError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(10)
    take_over(runner)
    go_on.set()
    thread.join(20)
    assert [type(error) for error in raised] == [StaleEpoch]
    assert rows(runner, metadata.tables[table]) == []
    assert world.diary == ["make a"]


def test_what_the_owner_writes_into_the_books_is_there(make_runner: MakeRunner) -> None:
    def write(_world: World, _activity: Any) -> None:
        for each in WRITES.values():
            each(runner.database, runner.operations.get("1").id)

    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Call("write", write))))
    HostRepository(runner.database).register("host", 8, 1024, 100)
    runner.run(ToyRequest())
    assert [len(rows(runner, metadata.tables[table])) for table in WRITES] == [1, 1, 1]


def test_an_operation_whose_owner_lives_is_not_taken_over(make_runner: MakeRunner) -> None:
    paused = Paused(make_runner)
    operation = paused.runner.operations.get("1")
    with pytest.raises(Busy):
        paused.runner.operations.claim(operation, DEAD, state=ops.RUNNING)
    paused.finish()
    assert paused.raised is None


def test_of_two_that_claim_the_same_dead_operation_one_gets_it(make_runner: MakeRunner) -> None:
    paused = Paused(make_runner)
    take_over(paused.runner)
    operations = paused.runner.operations
    with paused.runner.database.transaction() as connection:
        connection.execute(sa.update(claims).values(touched_at=0))
    seen = operations.get("1")
    first = operations.claim(seen, json.dumps(["one", 2, 2, "boot"]), state=ops.RUNNING)
    with pytest.raises(Busy):
        operations.claim(seen, json.dumps(["two", 3, 3, "boot"]), state=ops.RUNNING)
    assert first.epoch == 3
    paused.finish()


def test_what_was_claimed_and_finished_since_it_was_looked_at_is_not_claimed_again(make_runner: MakeRunner) -> None:
    """Nobody owns it any more, as nobody did then: only the epoch tells."""
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Accept(), Make("b"))))
    seen = runner.submit(ToyRequest())
    done = runner.resume(seen.id)
    assert (seen.owner, done.owner) == (None, None)
    with pytest.raises(Busy):
        runner.operations.claim(seen, DEAD, state=ops.RUNNING)
    assert runner.operations.get(seen.id).state == ops.FINISHED


def test_a_database_that_is_locked_for_a_moment_only_delays_a_flow(make_runner: MakeRunner, world: World) -> None:
    paused = Paused(make_runner, Make("b"))
    other = sqlite3.connect(paused.runner.database.path or "", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    paused.go_on.set()
    time.sleep(0.3)
    assert world.things == {"a"}
    other.execute("ROLLBACK")
    other.close()
    paused.finish()
    assert paused.raised is None
    assert world.things == {"a", "b"}


def test_a_database_that_stays_away_stops_the_flow_where_it_is_and_resume_goes_on(
    make_runner: MakeRunner, world: World
) -> None:
    paused = Paused(make_runner, Make("b"), **{"database.busy_timeout": "0.1"})
    paused.runner.core.writer.patience = 0.2
    other = sqlite3.connect(paused.runner.database.path or "", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    paused.finish()
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(paused.raised, DatabaseError)
    assert world.diary == ["make a"]  # neither gone on nor reverted
    assert paused.runner.resume("1").outcome == ops.SUCCESS
    assert world.diary == ["make a", "make b"]
