"""An operation run task by task: asked before each, held at a failure, gone on with in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from taskflow.patterns import linear_flow, unordered_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Fail, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.engine.stepping import Decision, KeepOnFailure, Stop, Verb, step
from virtflow.errors import Busy, Conflict
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost

GO, LEAVE, RETRY, REVERT = (Decision(verb) for verb in (Verb.GO, Verb.LEAVE, Verb.RETRY, Verb.REVERT))


class Script:
    """Decides as it is told by the name of the task; keeps what it was asked."""

    def __init__(self, *, before: dict[str, Decision] | None = None, failed: Iterable[Decision] = ()) -> None:
        self._before = before or {}
        self._failed = list(failed)
        self.asked: list[Stop] = []

    def before(self, stop: Stop) -> Decision:
        self.asked.append(stop)
        return GO if stop.reverting else self._before.get(stop.task, GO)

    def failed(self, stop: Stop) -> Decision:
        self.asked.append(stop)
        assert self._failed, stop
        return self._failed.pop(0)

    @property
    def story(self) -> list[str]:
        return [f"{'undo ' if s.reverting else ''}{s.task}{' failed' if s.failure else ''}" for s in self.asked]


class FailsWithout(Make):
    """Fails until the world has what it needs."""

    def execute(self, world: World) -> str:
        world.note(f"try {self.name}")
        if "repair" not in world.things:
            raise RuntimeError("not yet")
        return super().execute(world)


def line(*tasks: Any) -> Registry:
    return registry(lambda: linear_flow.Flow("toy").add(Accept(), *tasks))


def within_a_segment(*tasks: Any) -> Registry:
    parent = linear_flow.Flow("toy").add(
        Accept(),
        Call("where", lambda _world, _activity: "h0", provides="host"),
        OnHost("toy.host", name="There", requires=(), provides=()),
        Make("after"),
    )
    return registry(lambda: parent, FlowKind("toy.host", 1, lambda _shape: linear_flow.Flow("toy.host").add(*tasks)))


BOTH: list[Callable[..., Registry]] = [line, within_a_segment]


def submitted(runner: Runner) -> str:
    return runner.submit(ToyRequest()).id


def test_it_asks_before_each_task_and_runs_one_at_a_time(make_runner: MakeRunner, world: World) -> None:
    flow = unordered_flow.Flow("side by side").add(Make("b"), Make("c"))
    runner, script = make_runner(line(Make("a"), flow)), Script()
    operation = step(runner, submitted(runner), script)
    assert operation.outcome == ops.SUCCESS
    assert script.story == ["a", "b", "c"]
    assert script.asked[1].due == ("b", "c")
    assert world.diary == ["make a", "make b", "make c"]


@pytest.mark.parametrize("flow", BOTH)
def test_it_is_left_before_a_task_and_gone_on_with_later(
    flow: Callable[..., Registry], make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(flow(Make("a"), Make("b")))
    held = step(runner, submitted(runner), Script(before={"b": LEAVE}))
    assert (held.state, held.outcome, held.owner) == (ops.HELD, None, None)
    assert world.diary == ["make a"]
    with pytest.raises(Busy):
        runner.submit(ToyRequest())
    again = Script()
    assert step(make_runner(flow(Make("a"), Make("b"))), held.id, again).outcome == ops.SUCCESS
    assert world.diary[:2] == ["make a", "make b"]
    assert "a" not in again.story


@pytest.mark.parametrize("flow", BOTH)
def test_what_is_held_can_be_resumed_and_cancelled_like_any_other(
    flow: Callable[..., Registry], make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(flow(Make("a"), Make("b")))
    held = step(runner, submitted(runner), Script(before={"b": LEAVE}))
    assert runner.resume(held.id).outcome == ops.SUCCESS
    runner.undo(held.id)
    held = step(runner, submitted(runner), Script(before={"b": LEAVE}))
    assert runner.cancel(held.id).outcome == ops.CANCELLED
    assert world.things == set()


@pytest.mark.parametrize("flow", BOTH)
def test_a_failure_is_kept_and_tried_again_by_another_process_after_a_repair(
    flow: Callable[..., Registry], make_runner: MakeRunner, world: World
) -> None:
    tasks = Make("a"), FailsWithout("b"), Make("c")
    runner = make_runner(flow(*tasks))
    held = step(runner, submitted(runner), KeepOnFailure())
    assert held.state == ops.HELD
    assert world.diary == ["make a", "try b"]
    assert {task.name: task.state for task in runner.operations.get(held.id).tasks}["b"] == "FAILURE"

    still = step(make_runner(flow(*tasks)), held.id, KeepOnFailure())
    assert (still.state, world.diary[2:]) == (ops.HELD, [])

    world.things.add("repair")
    done = step(make_runner(flow(*tasks)), held.id, Script(failed=[RETRY]))
    assert done.outcome == ops.SUCCESS
    assert world.diary[2:5] == ["try b", "make b", "make c"]


def test_a_failing_task_is_tried_again_at_once_as_often_as_wanted(make_runner: MakeRunner, world: World) -> None:
    class Repairs(Script):
        def failed(self, stop: Stop) -> Decision:
            world.things |= {"repair"} if len(self.asked) > 3 else set()
            assert stop.failure == "not yet"
            return super().failed(stop)

    runner = make_runner(line(FailsWithout("b")))
    assert step(runner, submitted(runner), Repairs(failed=[RETRY] * 5)).outcome == ops.SUCCESS


@pytest.mark.parametrize("flow", BOTH)
def test_a_task_is_skipped_with_a_result_that_others_are_given(
    flow: Callable[..., Registry], make_runner: MakeRunner, world: World
) -> None:
    class Takes(Make):
        def execute(self, world: World, made_b: str) -> str:  # type: ignore[override]
            world.note(f"given {made_b}")
            return self.name

    runner = make_runner(flow(Fail("b", provides="made_b"), Takes("c")))
    given = Script(failed=[Decision(Verb.SKIP, "by hand")])
    assert step(runner, submitted(runner), given).outcome == ops.SUCCESS
    assert world.diary[0] == "given by hand"
    runner.undo("--last")
    given = Script(before={"b": Decision(Verb.SKIP, "before it ran")})
    assert step(runner, submitted(runner), given).outcome == ops.SUCCESS
    assert "given before it ran" in world.diary


@pytest.mark.parametrize("flow", BOTH)
def test_on_revert_everything_is_taken_back_one_by_one(
    flow: Callable[..., Registry], make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(flow(Make("a"), Fail("b")))
    script = Script(failed=[REVERT, REVERT])
    assert step(runner, submitted(runner), script).outcome == ops.REVERTED
    assert world.things == set()
    assert [each for each in script.story if "undo" in each][:2] == ["undo b", "undo a"]


def test_what_failed_is_reverted_by_the_next_process_when_that_is_decided(
    make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(line(Make("a"), Fail("b")))
    held = step(runner, submitted(runner), KeepOnFailure())
    assert step(runner, held.id, Script(failed=[REVERT])).outcome == ops.REVERTED
    assert world.things == set()


def test_a_finished_operation_is_not_stepped_through(make_runner: MakeRunner) -> None:
    runner = make_runner(line(Make("a")))
    operation = runner.run(ToyRequest())
    with pytest.raises(Conflict, match="cannot step operation 1: it is SUCCESS"):
        step(runner, operation.id, Script())


def test_a_cancel_is_heard_at_a_stop(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a"), Make("b"), Make("c")))

    class Cancels(Script):
        def before(self, stop: Stop) -> Decision:
            if stop.task == "b" and not stop.reverting:
                runner.cancel(stop.operation)
            return super().before(stop)

    assert step(runner, submitted(runner), Cancels()).outcome == ops.CANCELLED
    assert world.things == set()


def test_a_stop_shows_the_plain_arguments_and_where_every_task_is(make_runner: MakeRunner) -> None:
    class Takes(Make):
        def execute(self, world: World, made_a: str) -> str:  # type: ignore[override]
            return super().execute(world) + made_a

    runner, script = make_runner(line(Make("a"), Takes("b"))), Script()
    step(runner, submitted(runner), script)
    assert dict(script.asked[-1].arguments) == {"made_a": "a"}
    assert dict(script.asked[-1].states) == {"Accept": "SUCCESS", "a": "SUCCESS", "b": "PENDING"}
