"""The runner's verbs, on toy operations with real barriers and a real database."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from taskflow.patterns import graph_flow, linear_flow, unordered_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Fail, Make, ToyRequest, World, registry, wait_until
from virtflow import faults
from virtflow.engine.runner import Runner
from virtflow.errors import Busy, Conflict, NotFound, OperationFailed, RevertIncomplete
from virtflow.flows.kind import FlowKind
from virtflow.persistence import operations as ops
from virtflow.tasks.accept import Accept
from virtflow.tasks.base import Task


def line(*tasks: Task) -> Any:
    return registry(lambda: linear_flow.Flow("toy").add(*tasks))


def run_and_fail(runner: Runner) -> None:
    with pytest.raises(OperationFailed):
        runner.run(ToyRequest())


def test_an_operation_that_succeeds_leaves_its_things_and_says_what_each_task_did(
    make_runner: MakeRunner, world: World
) -> None:
    operation = make_runner(line(Make("a"), Make("b"))).run(ToyRequest())
    assert (operation.state, operation.outcome, operation.error) == (ops.FINISHED, ops.SUCCESS, None)
    assert world.things == {"a", "b"}
    assert [(task.name, task.state, task.attempts) for task in operation.tasks] == [
        ("a", "SUCCESS", 1),
        ("b", "SUCCESS", 1),
    ]


def test_a_failure_takes_everything_back_in_reverse_order_and_names_its_cause(
    make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(line(Make("a"), Make("b"), Fail(message="the disk is full")))
    with pytest.raises(OperationFailed, match=r"^toy toy:thing failed: fail: the disk is full$") as error:
        runner.run(ToyRequest())
    operation = error.value.fields["operation"]
    assert (operation.outcome, operation.error) == (ops.REVERTED, "fail: the disk is full")
    assert world.diary == ["make a", "make b", "unmake b", "unmake a"]
    assert {row.state for row in runner.ledger.rows(operation=operation.id)} == {"CLEARED"}


def test_the_first_failure_is_the_one_that_is_told(make_runner: MakeRunner) -> None:
    def fail_too(_world: World) -> None:
        raise RuntimeError("and this is only what came of it")

    runner = make_runner(line(Call("a", revert=fail_too), Fail(message="the cause")))
    with pytest.raises(RevertIncomplete, match="failed: fail: the cause; 1 thing"):
        runner.run(ToyRequest())


def test_a_revert_that_fails_is_debt_the_rest_is_reverted_and_retry_revert_pays_it(
    make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(line(Make("a"), Make("b"), Make("c"), Fail()))
    with faults.injected("b.revert:before:raise:3"), pytest.raises(RevertIncomplete) as error:
        runner.run(ToyRequest())
    operation = error.value.fields["operation"]
    assert (operation.outcome, operation.debts) == (ops.REVERTED_WITH_DEBT, 1)
    assert world.things == {"b"}
    assert [(row.task, row.state) for row in runner.ledger.debts()] == [("b", "DEBT")] * len(runner.ledger.debts())

    with faults.injected("b.revert:before:raise:3"), pytest.raises(RevertIncomplete):
        runner.retry_revert(operation.id)
    assert world.things == {"b"}

    assert runner.retry_revert(operation.id).outcome == ops.REVERTED
    assert world.things == set()
    assert runner.ledger.debts() == []
    assert runner.retry_revert(operation.id).outcome == ops.REVERTED


def test_a_revert_that_fails_once_is_tried_again(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a"), Fail()))
    with faults.injected("a.revert:before:raise:2"), pytest.raises(OperationFailed):
        runner.run(ToyRequest())
    assert world.things == set()


def test_a_debt_whose_payer_died_before_the_outcome_was_written_is_paid_by_the_next(
    make_runner: MakeRunner, world: World
) -> None:
    """Its ledger is clear then, but the operation holds its target until somebody writes the end."""
    runner = make_runner(line(Make("a"), Fail()))
    with faults.injected("a.revert:before:raise:3"), pytest.raises(RevertIncomplete) as error:
        runner.run(ToyRequest())
    operation = error.value.fields["operation"]

    def die(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("virtflow.engine.runner.record_outcome", die)
        with pytest.raises(KeyboardInterrupt):
            runner.retry_revert(operation.id)
    assert runner.ledger.debts() == []

    assert runner.retry_revert(operation.id).outcome == ops.REVERTED
    with pytest.raises(OperationFailed):  # and not Busy
        runner.run(ToyRequest())
    assert world.things == set()


def test_undo_takes_back_a_finished_operation_and_a_second_one_is_refused(
    make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(line(Make("a"), Make("b")))
    operation = runner.run(ToyRequest())
    assert runner.undo(operation.id).outcome == ops.UNDONE
    assert world.things == set()
    with pytest.raises(Conflict, match="it is UNDONE"):
        runner.undo(operation.id)
    assert world.diary == ["make a", "make b", "unmake b", "unmake a"]


def test_undo_is_refused_when_the_target_has_moved_on(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a")))
    first = runner.run(ToyRequest())
    second = runner.run(ToyRequest())
    with pytest.raises(Conflict, match=rf"toy:thing has moved on: operation {second.number} \(toy\) came after it"):
        runner.undo(first.id)
    assert runner.undo(second.id).outcome == ops.UNDONE
    assert runner.undo(first.id).outcome == ops.UNDONE


def test_what_goes_with_the_target_keeps_nobody_from_undoing_what_has_made_it(
    make_runner: MakeRunner, world: World
) -> None:
    class Growth(ToyRequest):
        kind: ClassVar[str] = "growth"

    reached, go_on = threading.Event(), threading.Event()

    def linger(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(10)

    grow = FlowKind("growth", 1, lambda _shape: linear_flow.Flow("growth").add(Call("grow", linger)))
    flows = registry(lambda: linear_flow.Flow("toy").add(Make("a")), grow, undone_with_it=("growth",))
    runner = make_runner(flows)
    made = runner.run(ToyRequest())
    thread = threading.Thread(target=runner.run, args=(Growth(),))
    thread.start()
    assert reached.wait(10)
    with pytest.raises(Conflict, match=r"toy:thing has moved on: operation 2 \(growth\)"):
        runner.undo(made.id)
    go_on.set()
    thread.join(10)
    assert runner.undo(made.id).outcome == ops.UNDONE
    assert world.things == set()


def test_undo_is_refused_for_what_failed_for_what_is_unknown_and_for_what_only_goes_forward(
    make_runner: MakeRunner,
) -> None:
    failing = make_runner(line(Make("a"), Fail()))
    with pytest.raises(OperationFailed) as error:
        failing.run(ToyRequest())
    with pytest.raises(Conflict, match="it is REVERTED"):
        failing.undo(error.value.fields["operation"].id)
    with pytest.raises(NotFound):
        failing.undo("99")
    forward = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a")), forward_only=True))
    operation = forward.run(ToyRequest(name="other"))
    with pytest.raises(Conflict, match="past the point of no return"):
        forward.undo(operation.id)
    with pytest.raises(Conflict, match="past the point of no return"):
        forward.cancel(operation.id)


def test_a_finished_operation_is_never_run_again_by_resuming_it(make_runner: MakeRunner, world: World) -> None:
    """Stock TaskFlow executes a REVERTED flow from the start when it is loaded and run."""
    failing = make_runner(line(Make("a"), Fail()))
    with pytest.raises(OperationFailed) as error:
        failing.run(ToyRequest())
    diary = list(world.diary)
    assert failing.resume(error.value.fields["operation"].id).outcome == ops.REVERTED
    assert world.diary == diary


def test_what_only_goes_forward_is_not_reverted_and_resuming_finishes_it(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Make("b")), forward_only=True))
    with faults.injected("b:before:raise"), pytest.raises(OperationFailed) as error:
        runner.run(ToyRequest())
    operation = error.value.fields["operation"]
    assert operation.outcome == ops.FAILED_FORWARD
    assert world.things == {"a"}
    assert runner.resume(operation.id).outcome == ops.SUCCESS
    assert world.diary == ["make a", "make b"]


def test_a_submitted_operation_is_put_down_after_accepting_and_resume_does_the_rest(
    make_runner: MakeRunner, world: World
) -> None:
    runner = make_runner(line(Make("a"), Accept(), Make("b")))
    operation = runner.submit(ToyRequest())
    assert (operation.state, operation.outcome, operation.owner) == (ops.ACCEPTED, None, None)
    assert world.things == {"a"}
    assert runner.resume(operation.id).outcome == ops.SUCCESS
    assert world.diary == ["make a", "make b"]


def test_a_submitted_operation_that_is_refused_is_over(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a"), Fail(), Accept(), Make("b")))
    with pytest.raises(OperationFailed):
        runner.submit(ToyRequest())
    assert world.things == set()
    assert runner.operations.list()[0].state == ops.FINISHED


def test_a_submitted_operation_can_be_cancelled_before_anybody_does_it(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a"), Accept(), Make("b")))
    operation = runner.submit(ToyRequest())
    assert runner.cancel(operation.id).outcome == ops.CANCELLED
    assert world.diary == ["make a", "unmake b", "unmake a"]  # a revert of what never began does no harm


def test_a_second_operation_on_a_held_target_is_busy_at_once(make_runner: MakeRunner) -> None:
    runner = make_runner(line(Make("a"), Accept(), Make("b")))
    first = runner.submit(ToyRequest())
    with pytest.raises(Busy) as error:
        runner.run(ToyRequest())
    assert error.value.fields["operation"] == first.id
    assert error.value.exit_code == 7
    runner.run(ToyRequest(name="another"))
    runner.resume(first.id)
    runner.run(ToyRequest())


def test_cancel_stops_between_tasks_and_takes_back_what_was_made(make_runner: MakeRunner, world: World) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def linger(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(10)

    runner = make_runner(line(Make("a"), Call("linger", linger), Make("b")))
    thread = threading.Thread(target=run_and_fail, args=(runner,))
    thread.start()
    assert reached.wait(10)
    asked = runner.cancel("1")
    assert asked.state == ops.RUNNING
    go_on.set()
    thread.join(10)
    assert runner.operations.get("1").outcome == ops.CANCELLED
    assert world.diary == ["make a", "unmake b", "revert linger", "unmake a"]


def test_cancel_reaches_into_a_task_that_works(make_runner: MakeRunner, world: World) -> None:
    reached = threading.Event()

    def work(_world: World, activity: Any) -> None:
        reached.set()
        activity.sleep(30)

    runner = make_runner(line(Make("a"), Call("work", work)))
    thread = threading.Thread(target=run_and_fail, args=(runner,))
    thread.start()
    assert reached.wait(10)
    runner.cancel("1")
    thread.join(10)
    assert not thread.is_alive()
    assert runner.operations.get("1").outcome == ops.CANCELLED
    assert world.things == set()


def test_cancel_from_another_process_arrives_through_the_database(make_runner: MakeRunner, world: World) -> None:
    reached = threading.Event()

    def work(_world: World, activity: Any) -> None:
        reached.set()
        activity.sleep(30)

    flows = line(Make("a"), Call("work", work))
    runner, other = make_runner(flows), make_runner(flows)
    thread = threading.Thread(target=run_and_fail, args=(runner,))
    thread.start()
    assert reached.wait(10)
    other.operations.request_cancel(other.operations.get("1").id)
    thread.join(10)
    assert not thread.is_alive()
    assert runner.operations.get("1").outcome == ops.CANCELLED


def test_a_finished_operation_cannot_be_cancelled(make_runner: MakeRunner) -> None:
    runner = make_runner(line(Make("a")))
    operation = runner.run(ToyRequest())
    with pytest.raises(Conflict, match="it has finished: undo it instead"):
        runner.cancel(operation.id)


def test_a_task_that_takes_too_long_fails_and_is_reverted(make_runner: MakeRunner, world: World) -> None:
    slow = Call("slow", lambda _world, activity: activity.sleep(30))
    slow.timeout = 0.1
    runner = make_runner(line(Make("a"), slow))
    with pytest.raises(OperationFailed, match="slow took longer than it may"):
        runner.run(ToyRequest())
    assert world.diary == ["make a", "revert slow", "unmake a"]


def test_a_result_that_is_not_plain_data_fails_the_task_that_gave_it(make_runner: MakeRunner, world: World) -> None:
    for value in (object(), {1, 2}, float("nan"), b"bytes"):
        runner = make_runner(line(Make("a"), Call("odd", lambda _world, _activity, value=value: value)))
        with pytest.raises(OperationFailed, match="results must be plain JSON data"):
            runner.run(ToyRequest())
    assert world.things == set()


def test_a_result_reaches_the_next_task_as_it_will_come_back_from_the_database(make_runner: MakeRunner) -> None:
    class Give(Task):
        default_provides = "given"

        def execute(self) -> Any:
            return {"tuple": (1, 2), 3: "three"}

    class Take(Task):
        default_provides = "taken"

        def execute(self, given: Any) -> Any:
            assert given == {"tuple": [1, 2], "3": "three"}

    assert make_runner(line(Give(), Take())).run(ToyRequest()).outcome == ops.SUCCESS


def test_events_are_told_only_when_they_are_durable(make_runner: MakeRunner, world: World) -> None:
    seen: list[tuple[str, str]] = []

    def listen(event: Any) -> None:
        stored = {task.name: task.state for task in runner.operations.tasks(event.operation)}
        if event.progress is None and event.state in ("RUNNING", "SUCCESS"):
            assert stored[event.task] in (event.state, "SUCCESS"), (event, stored)
        seen.append((event.task, event.state))

    runner = make_runner(line(Make("a"), Make("b")), on_event=listen)
    runner.run(ToyRequest())
    assert [each for each in seen if each[1] == "SUCCESS"] == [("a", "SUCCESS"), ("b", "SUCCESS")]


def test_tasks_that_do_not_wait_for_each_other_run_at_the_same_time(make_runner: MakeRunner) -> None:
    together = threading.Barrier(3, timeout=10)
    tasks = [Call(name, lambda _world, _activity: together.wait() and None) for name in "abc"]
    runner = make_runner(registry(lambda: unordered_flow.Flow("toy").add(*tasks)))
    assert runner.run(ToyRequest()).outcome == ops.SUCCESS


def test_more_operations_than_threads_cannot_lock_each_other_out(make_runner: MakeRunner, world: World) -> None:
    """Eight operations of four parallel tasks share two threads: whoever waits works itself."""

    def build() -> Any:
        tasks = [Call(name, lambda _world, activity: activity.sleep(0.02)) for name in "abcd"]
        return unordered_flow.Flow("toy").add(*tasks)

    runner = make_runner(registry(build), **{"engine.threads": 2})
    threads = [threading.Thread(target=runner.run, args=(ToyRequest(name=f"n{n}"),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [operation.outcome for operation in runner.operations.list()] == [ops.SUCCESS] * 8


def test_when_one_of_parallel_tasks_fails_all_are_reverted_once(make_runner: MakeRunner, world: World) -> None:
    def build() -> Any:
        first, *branches, last = Make("first"), Make("b"), Make("c"), Fail(), Make("last")
        flow = graph_flow.Flow("toy").add(first, *branches, last)
        for branch in branches:
            flow.link(first, branch)
            flow.link(branch, last)
        return flow

    runner = make_runner(registry(build))
    with pytest.raises(OperationFailed):
        runner.run(ToyRequest())
    assert world.things == set()
    made = sorted(line[5:] for line in world.diary if line.startswith("make "))
    unmade = sorted(line[7:] for line in world.diary if line.startswith("unmake "))
    assert made == unmade
    wait_until(lambda: runner.operations.list()[0].outcome == ops.REVERTED)


@pytest.mark.parametrize("verb", ["resume", "undo", "retry_revert"])
def test_what_runs_in_this_process_is_not_run_by_a_second_thread_as_well(make_runner: MakeRunner, verb: str) -> None:
    """Both would claim it under the same owner's name, and the first would find itself fenced off."""
    reached, go_on = threading.Event(), threading.Event()

    def linger(_world: World, _activity: Any) -> None:
        reached.set()
        assert go_on.wait(10)

    flows = line(Make("a"), Call("linger", linger))
    runner, second = make_runner(flows), make_runner(flows)
    outcomes: list[str | None] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(ToyRequest()).outcome))
    thread.start()
    assert reached.wait(10)
    for each in (runner, second):
        with pytest.raises((Busy, Conflict)):
            getattr(each, verb)("1")
    go_on.set()
    thread.join(10)
    assert outcomes == [ops.SUCCESS]


def test_of_threads_that_resume_the_same_operation_one_does_it(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(line(Make("a"), Accept(), Make("b")))
    for number in range(20):
        world.diary.clear()
        operation = runner.submit(ToyRequest(name=f"n{number}"))
        together = threading.Barrier(4, timeout=10)
        outcomes: list[str | None] = []

        def resume(reference: str = operation.id, meet: Any = together, seen: list[Any] = outcomes) -> None:
            meet.wait()
            try:
                seen.append(runner.resume(reference).outcome)
            except Busy:
                seen.append("busy")

        threads = [threading.Thread(target=resume) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert set(outcomes) <= {ops.SUCCESS, "busy"}
        assert ops.SUCCESS in outcomes
        assert world.diary == ["make a", "make b"]
