"""Operations that are a step of another one: they end well, or are taken back, together with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.test_handed_over import Board, Parent, register
from tests.unit.engine.toys import Call, Make, ToyRequest, World, registry, wait_until
from virtflow.activity import Activity
from virtflow.engine.child_operations import child_id
from virtflow.engine.runner import Runner
from virtflow.errors import OperationFailed
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.persistence import segments
from virtflow.persistence.operations import Operation
from virtflow.tasks.base import Task
from virtflow.tasks.segments import OnHost


class RunChild(Task):
    """Runs the operation ``child``, after it has called ``before``. Reverts: takes it back."""

    timeout = 0.0

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self._before = before

    def execute(self, project: str, child_operations: Any) -> None:
        self._before()
        child_operations.run("made", "child", "toy:child", {}, project, activity=self.activity)

    def revert(self, child_operations: Any, **_kwargs: Any) -> None:
        child_operations.take_back("made", activity=self.activity)


def flows(*child_tasks: Any, before: Callable[[], None] = lambda: None, **kinds: Any) -> Registry:
    """A parent that makes a thing, runs a child of these tasks, and makes another thing."""

    def build() -> Any:
        return linear_flow.Flow("toy").add(Make("first"), RunChild(before), Make("last"))

    child = FlowKind("child", 1, lambda _shape: linear_flow.Flow("child").add(*child_tasks))
    others = (FlowKind(name, 1, lambda _shape, flow=flow: flow) for name, flow in kinds.items())
    return registry(build, child, *others)


class Work:
    """A task of the child that would take long; it is a test of its own to end it earlier."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.task = Call("work", self._work)

    def _work(self, _world: World, activity: Activity) -> None:
        self.reached.set()
        activity.sleep(30)


def both(runner: Runner) -> tuple[Operation, Operation]:
    parent = runner.operations.get("1")
    return parent, runner.operations.get(child_id(parent.id, "made"))


def assert_cancelled_together(runner: Runner, world: World) -> None:
    parent, child = both(runner)
    assert (parent.outcome, child.outcome) == (ops.CANCELLED, ops.CANCELLED)
    assert (parent.error, child.error) == ("RunChild: cancelled during RunChild", "work: cancelled during work")
    assert (child.parent, child.cancel_requested) == (parent.id, 1)
    assert world.things == set()
    assert world.diary[-3:] == ["revert work", "unmake made", "unmake first"]


def test_a_child_that_ends_well_is_a_step_like_any_other(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(flows(Make("made")))
    assert runner.run(ToyRequest()).outcome == ops.SUCCESS
    assert world.things == {"first", "made", "last"}
    runner.undo("1")
    assert [each.outcome for each in both(runner)] == [ops.UNDONE, ops.UNDONE]
    assert world.things == set()


def test_a_cancel_is_passed_on_to_the_child_at_once(make_runner: MakeRunner, world: World) -> None:
    work = Work()
    runner = make_runner(flows(Make("made"), work.task))
    parent = Parent(lambda: runner.run(ToyRequest()))
    assert work.reached.wait(10)
    runner.cancel("1")
    parent.end()
    assert isinstance(parent.raised, OperationFailed)
    assert_cancelled_together(runner, world)


def test_a_cancel_from_another_process_reaches_the_child_through_the_database(
    make_runner: MakeRunner, world: World
) -> None:
    work = Work()
    runner = make_runner(registry_ := flows(Make("made"), work.task))
    parent = Parent(lambda: runner.run(ToyRequest()))
    assert work.reached.wait(10)
    make_runner(registry_).operations.request_cancel(runner.operations.get("1").id)
    parent.end()
    assert_cancelled_together(runner, world)


def test_a_cancel_that_came_just_before_the_child_began_reaches_it_too(make_runner: MakeRunner, world: World) -> None:
    def ask() -> None:
        runner.operations.request_cancel(runner.operations.get("1").id)

    runner = make_runner(flows(Make("made"), Work().task, before=ask))
    with pytest.raises(OperationFailed):
        runner.run(ToyRequest())
    parent, child = both(runner)
    assert (parent.outcome, child.outcome) == (ops.CANCELLED, ops.CANCELLED)
    assert world.things == set()


def test_a_cancel_reaches_what_another_host_does_for_the_child(make_runner: MakeRunner, world: World) -> None:
    board, work = Board(), Work()
    on_host = OnHost("segment", name="OnHost", requires=("operation",), provides=())
    registry_ = flows(
        Make("h1", provides="host"), on_host, segment=linear_flow.Flow("segment").add(Make("disk"), work.task)
    )
    front = make_runner(registry_, dispatch=board, host="h0")
    register(front, "h0", "h1")
    host = make_runner(registry_, dispatch=board, host="h1")
    parent = Parent(lambda: front.run(ToyRequest()))
    identity = board.segment()
    worker = Parent(lambda: host.run_segment(identity))
    assert work.reached.wait(10)
    assert front.cancel("1").state == ops.RUNNING
    worker.end()
    wait_until(lambda: host.core.segments.get(identity).verb == segments.UNDO or not parent.is_alive())
    if parent.is_alive():
        host.run_segment(identity)
    parent.end()
    assert [each.outcome for each in both(front)] == [ops.CANCELLED, ops.CANCELLED]
    assert world.things == set()


def test_a_child_that_is_cancelled_by_itself_is_a_failure_of_its_parent(make_runner: MakeRunner, world: World) -> None:
    work = Work()
    runner = make_runner(flows(Make("made"), work.task))
    parent = Parent(lambda: runner.run(ToyRequest()))
    assert work.reached.wait(10)
    runner.cancel(both(runner)[1].id)
    parent.end()
    failed, child = both(runner)
    assert (failed.outcome, child.outcome) == (ops.REVERTED, ops.CANCELLED)
    assert "child toy:child failed: work: cancelled" in str(failed.error)
    assert world.things == set()


def test_an_undo_that_is_asked_to_stop_undoes_the_child_all_the_same(make_runner: MakeRunner, world: World) -> None:
    def ask(_world: World) -> None:
        runner.operations.request_cancel(runner.operations.get("1").id)

    runner = make_runner(flows(Make("made"), Call("ask", revert=ask)))
    runner.run(ToyRequest())
    runner.undo("1")
    assert [each.outcome for each in both(runner)] == [ops.UNDONE, ops.UNDONE]
    assert world.things == set()
