"""Segments on other hosts: asked for in the database, done by whoever holds the claim, and taken back there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Fail, Make, ToyRequest, World, registry, wait_until
from virtflow import faults
from virtflow.activity import Activity
from virtflow.engine.runner import Runner
from virtflow.errors import (
    Busy,
    HostElsewhere,
    OperationCancelled,
    OperationFailed,
    RevertIncomplete,
    StaleEpoch,
    VirtflowError,
)
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.persistence import segments
from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import claims
from virtflow.persistence.models.inventory import hosts
from virtflow.persistence.posting import Posting
from virtflow.persistence.writer import Batch
from virtflow.tasks.segments import OnHost


class Board:
    """Keeps the news; the test carries it."""

    def __init__(self) -> None:
        self.news: list[Posting] = []

    def joined(self, _posting: Posting) -> Batch:
        return []

    def posted(self, posting: Posting) -> None:
        self.news.append(posting)

    def segment(self) -> str:
        """The segment of the newest posting for a host."""
        wait_until(lambda: any(posting.segment for posting in self.news))
        return str([posting.segment for posting in self.news if posting.segment][-1])


def flows(*host_tasks: Any, end: Any = None, guards: tuple[str, ...] | None = None) -> Registry:
    """A parent whose segment runs on h1."""

    def build() -> Any:
        on_host = OnHost("segment", name="OnHost", requires=("operation",), provides=(), guards=guards)
        return linear_flow.Flow("toy").add(Make("h1", provides="host"), on_host, end or Make("end"))

    return registry(build, FlowKind("segment", 1, lambda _shape: linear_flow.Flow("segment").add(*host_tasks)))


class Parent(threading.Thread):
    """Runs an operation; how that ended."""

    def __init__(self, body: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._body = body
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._body()
        except VirtflowError as error:
            self.raised = error

    def end(self) -> None:
        self.join(20)
        assert not self.is_alive()


@pytest.fixture
def board() -> Board:
    return Board()


Pair = Callable[..., tuple[Runner, Runner]]


@pytest.fixture
def pair(make_runner: MakeRunner, board: Board) -> Pair:
    """A runner where the operations are run, and the one of host h1."""

    def make(flows: Registry, **settings: Any) -> tuple[Runner, Runner]:
        front = make_runner(flows, dispatch=board, host="h0", **settings)
        register(front, "h0", "h1")
        return front, make_runner(flows, dispatch=board, host="h1", **settings)

    return make


def register(runner: Runner, *names: str) -> None:
    row: dict[str, Any] = dict.fromkeys(("vcpus", "memory_mib", "disk_gib", "vcpus_used", "memory_mib_used"), 0)
    row |= dict.fromkeys(("cpu_ratio", "memory_ratio", "disk_ratio"), 1.0)
    row |= {"disk_gib_used": 0, "generation": 1, "state": "UP", "zone": "z", "enabled": True, "draining": False}
    row |= {"labels": {}, "capabilities": {}, "updated_at": 0, "heartbeat_at": now()}
    with runner.database.transaction() as connection:
        for name in names:
            connection.execute(sa.insert(hosts).values(name=name, **row))


def host_state(runner: Runner, name: str, state: str) -> None:
    with runner.database.transaction() as connection:
        connection.execute(sa.update(hosts).where(hosts.c.name == name).values(state=state))


def test_a_segment_is_run_by_its_host_and_the_parent_goes_on(pair: Pair, board: Board, world: World) -> None:
    front, host = pair(flows(Make("disk")))
    parent = Parent(lambda: front.run(ToyRequest()))
    segment = host.run_segment(board.segment())
    parent.end()
    assert parent.raised is None
    assert (segment.state, segment.verb) == (segments.DONE, segments.RUN)
    assert world.things == {"h1", "disk", "end"}
    assert board.news[-1].topic == "host.h1"


def test_the_same_news_twice_does_nothing_twice(pair: Pair, board: Board, world: World) -> None:
    front, host = pair(flows(Make("disk")))
    parent = Parent(lambda: front.run(ToyRequest()))
    host.run_segment(board.segment())
    host.run_segment(board.segment())
    parent.end()
    assert world.diary.count("make disk") == 1


def test_what_fails_on_the_host_is_taken_back_there_and_told_here(pair: Pair, board: Board, world: World) -> None:
    front, host = pair(flows(Make("disk"), Fail("domain", "no memory")))
    parent = Parent(lambda: front.run(ToyRequest()))
    segment = host.run_segment(board.segment())
    parent.end()
    assert (segment.state, segment.debts) == (segments.FAILED, 0)
    assert isinstance(parent.raised, OperationFailed)
    assert front.operations.get("1").error == "domain: no memory"
    assert world.things == set()
    assert [posting.segment for posting in board.news if posting.segment] == [segment.id]  # nothing was left to undo


def test_a_cancel_that_only_the_host_has_seen_yet_is_what_ended_the_operation(
    pair: Pair, board: Board, world: World
) -> None:
    def cancelled(_world: World, _activity: Activity) -> None:
        front.operations.request_cancel(front.operations.get("1").id)
        raise OperationCancelled(step="domain")

    front, host = pair(flows(Make("disk"), Call("domain", cancelled)))
    parent = Parent(lambda: front.run(ToyRequest()))
    host.run_segment(board.segment())
    parent.end()
    assert front.operations.get("1").outcome == ops.CANCELLED
    assert world.things == set()


def test_what_fails_later_has_the_host_take_back_its_part(pair: Pair, board: Board, world: World) -> None:
    front, host = pair(flows(Make("disk"), end=Fail("end")))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    host.run_segment(identity)
    wait_until(lambda: host.core.segments.get(identity).verb == segments.UNDO)
    assert "disk" in world.things
    host.run_segment(identity)
    parent.end()
    assert front.operations.get("1").outcome == ops.REVERTED
    assert world.things == set()


def test_a_finished_operation_is_undone_on_the_host(pair: Pair, board: Board, world: World) -> None:
    front, host = pair(flows(Make("disk")))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    host.run_segment(identity)
    parent.end()
    undo = Parent(lambda: front.undo("1"))
    wait_until(lambda: host.core.segments.get(identity).verb == segments.UNDO)
    host.run_segment(identity)
    undo.end()
    assert front.operations.get("1").outcome == ops.UNDONE
    assert world.things == set()


def test_a_worker_that_drains_puts_the_segment_down_and_another_goes_on(
    pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def pause(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(20)

    front, host = pair(registry_ := flows(Make("disk"), Call("pause", pause), Make("domain")))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    worker = Parent(lambda: host.run_segment(identity))
    assert reached.wait(10)
    host.drain()
    go_on.set()
    worker.end()
    put_down = front.core.segments.get(identity)
    assert (put_down.state, put_down.owner) == (segments.REQUESTED, None)
    make_runner(registry_, dispatch=board, host="h1").run_segment(identity)
    parent.end()
    assert parent.raised is None
    assert world.diary == ["make h1", "make disk", "make domain", "make end"]


def test_a_parent_that_drains_waits_no_longer_and_another_takes_up_the_waiting(
    pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    front, host = pair(registry_ := flows(Make("disk")))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    front.drain()
    parent.end()
    operation = front.operations.get("1")
    assert (operation.state, operation.owner, operation.outcome) == (ops.RUNNING, None, None)
    host.run_segment(identity)
    assert make_runner(registry_, dispatch=board, host="h2").carry_on("1").outcome == ops.SUCCESS
    assert world.diary == ["make h1", "make disk", "make end"]


def test_a_worker_that_lost_its_segment_while_it_slept_changes_nothing_when_it_wakes(
    pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    """Until then nobody else of its process works on the segment."""
    reached, go_on = threading.Event(), threading.Event()

    def pause(world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(20)
        world.things.add("late")

    registry_ = flows(Make("disk"), Call("pause", pause, lambda world: world.things.discard("late")), Make("domain"))
    front, host = pair(registry_)
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    zombie = Parent(lambda: host.run_segment(identity))
    assert reached.wait(10)
    front.cancel("1")
    wait_until(lambda: front.core.segments.get(identity).verb == segments.UNDO)
    successor = make_runner(registry_, dispatch=board, host="h1")
    with pytest.raises(Busy):
        successor.run_segment(identity)
    go_on.set()
    zombie.end()
    successor.run_segment(identity)
    parent.end()
    assert isinstance(zombie.raised, StaleEpoch)
    assert front.operations.get("1").outcome == ops.CANCELLED
    assert world.things == set()
    assert "make domain" not in world.diary


def expire(runner: Runner, identity: str) -> None:
    with runner.database.transaction() as connection:
        connection.execute(sa.update(claims).where(claims.c.subject == identity).values(touched_at=now() - 10**9))


def test_a_host_that_goes_down_before_its_guest_could_run_is_given_up_and_owes_what_it_made(
    pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def pause(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(20)

    front, host = pair(registry_ := flows(Make("disk"), Call("pause", pause), Make("start"), guards=("start",)))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    zombie = Parent(lambda: host.run_segment(identity))
    assert reached.wait(10)
    host.core.watcher.close()  # a process that was stopped gives no sign of life
    expire(front, identity)
    host_state(front, "h1", "DOWN")
    parent.end()
    operation = front.operations.get("1")
    assert (operation.outcome, operation.debts) == (ops.REVERTED_WITH_DEBT, 1)
    assert "segment failed on host h1: no heartbeat of host h1 since" in str(operation.error)
    (debt,) = front.ledger.debts(operation.id)
    assert (debt.kind, debt.host, debt.identity) == ("segment", "h1", identity)
    go_on.set()
    zombie.end()
    assert isinstance(zombie.raised, StaleEpoch)
    assert world.things == {"disk"}
    # It returns: what it was asked for meanwhile comes first.
    host_state(front, "h1", "UP")
    returned = make_runner(registry_, dispatch=board, host="h1")
    assert [segment.id for segment in returned.core.segments.waiting("h1")] == [identity]
    returned.run_segment(identity)
    assert returned.carry_on("1").outcome == ops.REVERTED
    assert front.ledger.debts(operation.id) == []
    assert world.things == set()


@pytest.mark.parametrize("known", [True, False], ids=["down", "unknown"])
def test_a_host_that_had_never_begun_owes_nothing(
    known: bool, pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    front, _host = pair(registry_ := flows(Make("disk"), Make("start"), guards=("start",)))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    if known:
        host_state(front, "h1", "DOWN")
    else:
        with front.database.transaction() as connection:
            connection.execute(sa.delete(hosts).where(hosts.c.name == "h1"))
    parent.end()
    operation = front.operations.get("1")
    assert (operation.outcome, operation.debts) == (ops.REVERTED, 0)
    assert front.core.segments.waiting("h1") == []
    late = make_runner(registry_, dispatch=board, host="h1").run_segment(identity)
    assert late.state == segments.UNDONE
    assert world.things == set()


def test_a_host_that_goes_down_when_its_guest_may_run_is_waited_for(
    pair: Pair, make_runner: MakeRunner, board: Board, world: World
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def start(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(20)

    front, host = pair(registry_ := flows(Make("disk"), Call("start", start), guards=("start",)))
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    zombie = Parent(lambda: host.run_segment(identity))
    assert reached.wait(10)
    host.core.watcher.close()  # a process that was stopped gives no sign of life
    expire(front, identity)
    host_state(front, "h1", "DOWN")
    parent.end()
    operation = front.operations.get("1")
    assert (operation.state, operation.owner) == (ops.RUNNING, None)
    go_on.set()
    zombie.end()
    assert isinstance(zombie.raised, StaleEpoch)
    host_state(front, "h1", "UP")
    again = Parent(lambda: make_runner(registry_, dispatch=board, host="h0").carry_on("1"))
    make_runner(registry_, dispatch=board, host="h1").run_segment(identity)
    again.end()
    assert front.operations.get("1").outcome == ops.SUCCESS
    assert world.things == {"h1", "disk", "end"}


def owing_inline(host: Runner, world: World) -> ops.Operation:
    """An operation that h1 has run whole, its own part inline, and whose disk it could not take back."""
    with faults.injected("disk.revert:before:raise:3"), pytest.raises(RevertIncomplete):
        host.run(ToyRequest())
    assert world.things == {"disk"}
    return host.operations.get("1")


def test_what_a_host_has_run_inline_and_owes_is_paid_by_that_host_whoever_is_asked(
    pair: Pair, board: Board, world: World
) -> None:
    front, host = pair(flows(Make("disk"), end=Fail("end")))
    operation = owing_inline(host, world)
    payer = Parent(lambda: front.carry_on("1"))
    identity = board.segment()
    assert world.things == {"disk"}, "not by who stands elsewhere"
    returned = host.run_segment(identity)
    payer.end()
    assert (returned.verb, returned.host, returned.debts) == (segments.UNDO, "h1", 0)
    assert world.things == set()
    assert front.operations.get("1").outcome == ops.REVERTED
    assert front.ledger.debts(operation.id) == []


def test_without_workers_a_debt_of_another_host_stays_and_says_where_it_can_be_paid(
    make_runner: MakeRunner, world: World
) -> None:
    owing = owing_inline(make_runner(registry_ := flows(Make("disk"), end=Fail("end")), host="h1"), world)
    elsewhere = make_runner(registry_, host="h0")
    with pytest.raises(RevertIncomplete):
        elsewhere.retry_revert(owing.id)
    assert world.things == {"disk"}
    assert {row.error for row in elsewhere.ledger.debts(owing.id)} == {str(HostElsewhere(host="h1", here="h0"))}
    assert make_runner(registry_, host="h1").retry_revert(owing.id).outcome == ops.REVERTED
    assert world.things == set()


def test_without_workers_another_host_cannot_be_reached(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(flows(Make("disk")), host="h0")
    with pytest.raises(OperationFailed, match="cannot reach host h1 from h0"):
        runner.run(ToyRequest())
    assert world.things == set()
