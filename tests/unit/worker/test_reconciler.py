"""What lost its job, its worker or its host is posted again, what is due is purged, what is old is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Make, ToyRequest, registry
from virtflow.engine.runner import Runner
from virtflow.errors import NotFound
from virtflow.persistence.models.engine import claims, journal, ledger, operations
from virtflow.persistence.models.inventory import hosts
from virtflow.persistence.operations import Operation
from virtflow.persistence.posting import OPERATIONS, Posting
from virtflow.persistence.retention import forget_finished
from virtflow.persistence.writer import Batch
from virtflow.tasks.accept import Accept
from virtflow.worker.metrics import Metrics
from virtflow.worker.reconciler import Reconciler

DAY = 86_400_000_000


class Board:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.news: list[Posting] = []

    def joined(self, _posting: Posting) -> Batch:
        return []

    def posted(self, posting: Posting) -> None:
        self.news.append(posting)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def runner(make_runner: MakeRunner, board: Board) -> Runner:
    flow = registry(lambda: linear_flow.Flow("toy").add(Make("first"), Accept(), Make("second")))
    return make_runner(flow, dispatch=board)


@pytest.fixture
def look(runner: Runner, board: Board) -> Callable[[], list[Posting]]:
    """One round of the reconciler; what it has posted."""
    reconciler = Reconciler(runner, Metrics())

    def one() -> list[Posting]:
        board.news.clear()
        reconciler.look()
        return list(board.news)

    return one


def change(runner: Runner, table: Any, **values: Any) -> None:
    with runner.database.transaction() as connection:
        connection.execute(sa.update(table).values(**values))


def ended(runner: Runner, name: str = "thing") -> Operation:
    operation = runner.submit(ToyRequest(name=name))
    return runner.resume(operation.id)


def test_what_was_just_accepted_has_its_job_and_is_posted_again_only_when_nobody_comes_for_it(
    runner: Runner, look: Callable[[], list[Posting]]
) -> None:
    operation = runner.submit(ToyRequest())
    assert look() == []
    change(runner, claims, touched_at=claims.c.touched_at - 20_000_000)
    assert [(each.topic, each.operation) for each in look()] == [(OPERATIONS, operation.id)]
    assert look() == [], "it was posted a moment ago"


def test_what_a_dead_process_was_at_is_posted_at_once(runner: Runner, look: Callable[[], list[Posting]]) -> None:
    operation = runner.submit(ToyRequest())
    change(runner, operations, state="RUNNING")
    change(runner, claims, owner='["h9", 1, 1, "another boot"]', touched_at=claims.c.touched_at - 20_000_000)
    assert [each.operation for each in look()] == [operation.id]


def test_what_a_living_process_is_at_is_left_alone(runner: Runner, look: Callable[[], list[Posting]]) -> None:
    runner.submit(ToyRequest())
    change(runner, operations, state="RUNNING")
    change(runner, claims, owner='["h9", 1, 1, "another boot"]')
    assert look() == []


def test_debts_are_posted_unless_their_host_is_down(runner: Runner, look: Callable[[], list[Posting]]) -> None:
    operation = ended(runner)
    change(runner, ledger, state="DEBT", host="h1", flow="00000000-0000-0000-0000-000000000001")
    assert look() == [], "nobody has ever heard of h1"
    runner.core.hosts.register("h1", 1, 1, 1, worker="somebody")
    assert [each.operation for each in look()] == [operation.id]


def test_a_host_that_is_silent_is_marked_down(runner: Runner, look: Callable[[], list[Posting]]) -> None:
    runner.core.hosts.register("h1", 1, 1, 1, worker="somebody")
    look()
    assert runner.core.hosts.get("h1").state == "UP"
    change(runner, hosts, heartbeat_at=hosts.c.heartbeat_at - 61_000_000)
    look()
    assert runner.core.hosts.get("h1").state == "DOWN"


def test_what_ended_long_ago_is_forgotten_with_all_that_was_recorded_of_it(runner: Runner) -> None:
    old, new = ended(runner, "old"), ended(runner, "new")
    with runner.database.transaction() as connection:
        aged = sa.update(operations).where(operations.c.id == old.id)
        connection.execute(aged.values(finished_at=operations.c.finished_at - 8 * DAY))
    assert forget_finished(runner.database, 7 * 86400.0) == 1
    with pytest.raises(NotFound):
        runner.operations.get(old.id)
    assert runner.operations.get(new.id).tasks
    with runner.database.connect() as connection:
        assert old.id not in set(connection.execute(sa.select(journal.c.flow)).scalars())
    assert forget_finished(runner.database, 7 * 86400.0) == 0


def test_what_owes_something_is_never_forgotten(runner: Runner) -> None:
    old = ended(runner)
    change(runner, ledger, state="DEBT")
    change(runner, operations, finished_at=operations.c.finished_at - 8 * DAY)
    assert forget_finished(runner.database, 7 * 86400.0) == 0
    assert runner.operations.get(old.id).state == "FINISHED"
