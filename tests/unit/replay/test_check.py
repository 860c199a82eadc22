"""What has changed in the code since something was recorded is named: the first task where the two part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from taskflow.flow import Flow
from taskflow.patterns import graph_flow, linear_flow

from virtflow.engine.flow_driver import Templates
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.replay.checking import Checked, check
from virtflow.replay.player_stage import Code
from virtflow.testing.recordings import RecordingStudio, Step

Build = Callable[[], Flow]


def line(*steps: Step) -> Build:
    return lambda: linear_flow.Flow("toy").add(*steps)


def disk(name: str = "Disk") -> Step:
    return Step(name, result="/disk", provides="disk")


def domain(name: str = "Domain", *needs: str) -> Step:
    return Step(name, needs=("disk", *needs), provides="domain", result="d")


def registry(build: Build, version: int = 1) -> Registry:
    return Registry((FlowKind("toy", version, lambda _shape: build()),))


def checked(studio: RecordingStudio, then: Build, today: Build, version: int = 1) -> Checked:
    return check(studio.record(then), Code(Templates(registry(today, version)), ("failures", "segments")))


def first(studio: RecordingStudio, then: Build, today: Build, version: int = 1) -> Sequence[str | None]:
    found = checked(studio, then, today, version).first
    assert found is not None
    return found.what, found.task, found.detail


THEN = line(Step("Check"), disk(), domain(), Step("End"))


def test_the_same_code_does_the_same(studio: RecordingStudio) -> None:
    assert checked(studio, THEN, THEN).divergences == ()


@pytest.mark.parametrize(
    ("today", "what", "task", "detail"),
    [
        (line(Step("Check"), disk("Overlay"), domain(), Step("End")), "renamed", "Disk", "Disk is Overlay today"),
        (line(disk(), domain(), Step("End")), "removed", "Check", "Check is not in the flow any more"),
        (line(Step("Check"), disk(), Step("New"), domain(), Step("End")), "added", "New", "New was not in the flow"),
        (
            line(disk(), domain(), Step("Check"), Step("End")),
            "reordered",
            "Check",
            "Check comes after Disk, Domain today, and did not",
        ),
        (
            line(Step("Check"), disk(), domain("Domain", "vifs"), Step("End")),
            "input missing",
            "Domain",
            "Domain needs vifs, which nothing provides",
        ),
    ],
)
def test_a_change_is_named_with_its_task(
    studio: RecordingStudio, today: Build, what: str, task: str, detail: str
) -> None:
    assert first(studio, THEN, today) == (what, task, detail)


def test_a_task_of_another_version_is_named(studio: RecordingStudio) -> None:
    newer = disk()
    newer.version = (2, 0)
    found = first(studio, THEN, line(Step("Check"), newer, domain(), Step("End")))
    assert found == ("version changed", "Disk", "Disk was version 1.0, and is 2.0 today")


def test_a_flow_whose_version_is_gone_is_named(studio: RecordingStudio) -> None:
    what, task, detail = first(studio, THEN, THEN, version=2)
    assert (what, task) == ("unknown flow", None)
    assert "version 1 cannot be built: UnknownFlow: no flow 'toy' version 1 is registered" in str(detail)


def test_a_new_task_at_the_end_would_be_run_by_todays_code_on_an_operation_that_has_finished(
    studio: RecordingStudio,
) -> None:
    found = checked(studio, THEN, line(Step("Check"), disk(), domain(), Step("End"), Step("After"))).divergences
    assert [(each.what, each.task) for each in found] == [("added", "After"), ("decision", "After")]
    assert found[1].detail == "recorded is the flow's end; today it would run After"


def test_an_order_that_changes_only_where_nothing_waits_is_no_change(studio: RecordingStudio) -> None:
    def graph(*steps: Step) -> Build:
        return lambda: graph_flow.Flow("toy").add(*steps)

    then, today = graph(disk(), Step("Net"), domain()), graph(Step("Net"), domain(), disk())
    assert checked(studio, then, today).divergences == ()


def test_a_result_that_lacks_what_todays_task_takes_from_it_is_named_where_it_is_needed(
    studio: RecordingStudio,
) -> None:
    then = line(Step("Disk", result={"a": 1}, provides={"a"}), Step("Domain", needs=("a",)))
    today = line(Step("Disk", result={"a": 1, "b": 2}, provides={"a", "b"}), Step("Domain", needs=("a", "b")))
    what, task, detail = first(studio, then, today)
    assert (what, task) == ("input missing", "Domain")
    assert str(detail).startswith("recorded is RUNNING; today it lacks an input: ")


def test_a_retry_that_no_longer_tries_again_is_a_different_decision(studio: RecordingStudio) -> None:
    from taskflow import retry

    def build(attempts: int) -> Build:
        return lambda: linear_flow.Flow("toy", retry=retry.Times(attempts, name="Again")).add(Step("Disk", fails=1))

    what, task, detail = first(studio, build(3), build(1))
    assert (what, task) == ("decision", "Again")
    assert "today" in str(detail)
