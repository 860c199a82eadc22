"""Crashed at each write of a flow, before or after it, and resumed: it ends as if nothing had happened.

The crash is in the process (a write that never returns to the engine), so that hundreds of them take seconds; real
SIGKILLs at every write of real operations are in tests/faults.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from taskflow import retry
from taskflow.patterns import graph_flow, linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Fail, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.errors import FlowChanged, OperationFailed, VirtflowError
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.segments import OnHost

SEED = 4


class Crash(BaseException):
    """The process ends here."""


class MakeOnHost(Task):
    """Makes a thing on a host; ``only`` is the host on which the next task does not fail."""

    def intents(self, place: str, **_arguments: Any) -> Iterator[Intent]:
        yield Intent("thing", f"{place}/{self.name}")

    def execute(self, world: World, place: str) -> str:
        assert isinstance(place, str), place
        world.note(f"make {place}")
        world.things.add(f"{place}/{self.name}")
        return place

    def revert(self, world: World, place: Any, **_arguments: Any) -> None:
        assert isinstance(place, str), place
        world.note(f"unmake {place}")
        world.things.discard(f"{place}/{self.name}")


class FailElsewhere(Task):
    """Works on one host only."""

    def __init__(self, only: str) -> None:
        super().__init__()
        self.only = only

    def execute(self, place: str) -> None:
        if place != self.only:
            raise RuntimeError(f"{place} is full")


def reschedule(only: str) -> Registry:
    """Like a spawn that tries one host after the other."""

    def build() -> Any:
        attempts = retry.ForEach(["h1", "h2", "h3"], name="next-host", provides="place")
        on_host = linear_flow.Flow("on-host", retry=attempts).add(MakeOnHost("disk"), FailElsewhere(only))
        return linear_flow.Flow("toy").add(Make("quota"), on_host, Make("end"))

    return registry(build)


def segments(*, failing: bool) -> Registry:
    """A parent with a segment, which has branches."""

    def build_segment(_shape: Any) -> Any:
        first, *branches, last = Make("dir"), Make("disk"), Make("tap"), Make("domain")
        flow = graph_flow.Flow("segment").add(first, *branches, last)
        for branch in branches:
            flow.link(first, branch)
            flow.link(branch, last)
        return flow

    def build() -> Any:
        end = [Fail("end")] if failing else [Make("end")]
        on_host = OnHost("segment", name="OnHost", requires=("operation",), provides=())
        return linear_flow.Flow("toy").add(Make("h0", provides="host"), on_host, *end)

    return registry(build, FlowKind("segment", 1, build_segment))


@contextmanager
def crash_at(runner: Runner, number: int, when: str) -> Iterator[None]:
    """Let the write with this number (from now on, counted from 1) be the last thing that the process does.

    What the next run of the same runner gets from it is what a new process would get: its database.
    """
    write, count = runner.core.writer.write, 0

    def counted(batch: Any) -> None:
        nonlocal count
        count += 1
        if count == number and when == "before":
            raise Crash
        write(batch)
        if count == number:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.core.writer, "write", counted)
        yield


def run_until_over(runner: Runner, crashes: list[tuple[int, str]]) -> tuple[Any, int]:
    """Run, and resume after each crash; the operation, and how many crashes there really were."""
    known = {operation.id for operation in runner.operations.list(limit=1)}
    met = 0
    for crash in (*crashes, (0, "never")):
        newest = [operation.id for operation in runner.operations.list(limit=1) if operation.id not in known]
        with crash_at(runner, *crash), suppress(VirtflowError):
            try:
                runner.resume(newest[0]) if newest else runner.run(ToyRequest())
            except Crash:
                met += 1
                continue
        return runner.operations.list(limit=1)[0], met
    raise AssertionError("unreachable")


def every_crash(runner: Runner, world: World) -> Iterator[tuple[Any, Counter[str], set[str]]]:
    """Run once per write and side; what became of it each time."""
    for number in range(1, 200):
        for when in ("before", "after"):
            world.diary.clear()
            world.things.clear()
            operation, met = run_until_over(runner, [(number, when)])
            if not met:
                assert number > 5, "it hardly wrote anything"
                return
            yield operation, Counter(world.diary), set(world.things)


def test_a_resumed_reschedule_remembers_which_hosts_it_has_tried(make_runner: MakeRunner, world: World) -> None:
    """TaskFlow's own backend loads the failure in place of the host: it starts again at the first."""
    for operation, diary, things in every_crash(make_runner(reschedule(only="h3")), world):
        assert operation.outcome == ops.SUCCESS
        assert things == {"quota", "h3/disk", "end"}
        # A task that runs when the process dies is executed again; a host that failed is not tried again.
        assert sum(diary[f"make {host}"] for host in ("h1", "h2", "h3")) <= 4, diary
        assert diary["make h1"] <= 2


def test_when_every_host_fails_nothing_is_left_on_any_of_them(make_runner: MakeRunner, world: World) -> None:
    for operation, diary, things in every_crash(make_runner(reschedule(only="none")), world):
        assert operation.outcome == ops.REVERTED
        assert things == set(), diary
        assert operation.error == "FailElsewhere: h1 is full"


def test_a_crash_in_a_segment_is_recovered_from(make_runner: MakeRunner, world: World) -> None:
    for operation, diary, things in every_crash(make_runner(segments(failing=False)), world):
        assert operation.outcome == ops.SUCCESS
        assert things == {"h0", "dir", "disk", "tap", "domain", "end"}
        assert sum(diary.values()) <= 6 + 2, diary  # at most what ran at that moment runs again


def test_a_crash_while_a_segment_is_reverted_is_recovered_from(make_runner: MakeRunner, world: World) -> None:
    for operation, diary, things in every_crash(make_runner(segments(failing=True)), world):
        assert operation.outcome == ops.REVERTED
        assert operation.error == "end: on purpose"
        assert things == set(), diary
        made = Counter({name: n for name, n in diary.items() if name.startswith("make")})
        assert max(made.values()) <= 2, diary


@pytest.mark.parametrize("flows", [reschedule("h3"), reschedule("none"), segments(failing=True)])
def test_recoveries_that_crash_too_are_recovered_from(make_runner: MakeRunner, world: World, flows: Registry) -> None:
    choice = random.Random(SEED)
    runner = make_runner(flows)
    for _ in range(12):
        world.things.clear()
        crashes = [(choice.randint(1, 12), choice.choice(("before", "after"))) for _ in range(3)]
        operation, _met = run_until_over(runner, crashes)
        expected = {"quota", "h3/disk", "end"} if operation.outcome == ops.SUCCESS else set()
        assert operation.state == ops.FINISHED, crashes
        assert world.things == expected, crashes


def crashed_in_b(make_runner: MakeRunner, flows: Registry) -> Runner:
    """A runner that died when it had just stored that ``b`` is running; the next one resumes."""
    runner = make_runner(flows)
    with crash_at(runner, 3, "after"), pytest.raises(Crash):
        runner.run(ToyRequest())
    states = {task.name: task.state for task in runner.operations.tasks(runner.operations.get("1").id)}
    assert states["b"] == "RUNNING"
    return runner


def line(*names: str) -> Registry:
    return registry(lambda: linear_flow.Flow("toy").add(*(Make(name) for name in names)))


def test_an_undo_that_crashes_is_finished_by_resuming(make_runner: MakeRunner, world: World) -> None:
    runner = make_runner(segments(failing=False))
    for number in range(1, 6):
        operation = runner.run(ToyRequest())
        with crash_at(runner, number, "after"), pytest.raises(Crash):
            runner.undo(operation.id)
        assert runner.resume(operation.id).outcome == ops.UNDONE
        assert world.things == set()


def test_the_attempts_before_a_crash_count(make_runner: MakeRunner) -> None:
    crashed_in_b(make_runner, line("a", "b"))
    operation = make_runner(line("a", "b")).resume("1")
    assert [(task.name, task.attempts) for task in operation.tasks] == [("a", 1), ("b", 2)]


def test_an_operation_of_another_graph_is_left_as_it_is(make_runner: MakeRunner, world: World) -> None:
    """A renamed task: its thing would be forgotten if the flow were run."""
    crashed_in_b(make_runner, line("a", "b"))
    with pytest.raises(FlowChanged, match="tasks a are not in the flow any more"):
        make_runner(line("other", "b")).resume("1")
    assert world.things == {"a"}
    assert make_runner(line("a", "b")).resume("1").outcome == ops.SUCCESS


def test_a_flow_that_gained_a_task_is_resumed_with_it(make_runner: MakeRunner, world: World) -> None:
    crashed_in_b(make_runner, line("a", "b"))
    assert make_runner(line("a", "b", "c")).resume("1").outcome == ops.SUCCESS
    assert world.things == {"a", "b", "c"}


def test_a_cancel_asked_for_before_the_crash_is_remembered(make_runner: MakeRunner, world: World) -> None:
    runner = crashed_in_b(make_runner, line("a", "b"))
    runner.operations.request_cancel(runner.operations.get("1").id)
    resumed = make_runner(line("a", "b"))
    with pytest.raises(OperationFailed):
        resumed.resume("1")
    assert resumed.operations.get("1").outcome == ops.CANCELLED
    assert world.things == set()
