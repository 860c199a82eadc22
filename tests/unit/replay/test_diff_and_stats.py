"""Two operations side by side, and all of a kind in numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.errors import NotFound
from virtflow.replay.diffing import Difference, difference, last_good
from virtflow.replay.statistics import statistics
from virtflow.testing.recordings import RecordingStudio, Step


def build(portal: str = "10.0.0.1", fails: int = 0) -> Callable[[], Flow]:
    def flow() -> Flow:
        return linear_flow.Flow("toy").add(
            Step("Disk", result={"portal": portal, "at": ["/x", 3]}, provides="disk"),
            Step("Domain", needs=("disk",), fails=fails, message=f"{portal} refused"),
        )

    return flow


def test_the_same_thing_twice_has_no_difference(studio: RecordingStudio) -> None:
    assert difference(studio.record(build()), studio.record(build())) == []


def test_a_failure_and_a_success_part_at_the_task_that_failed_and_the_value_that_differed_is_told(
    studio: RecordingStudio,
) -> None:
    good, bad = studio.record(build(), note="a"), studio.record(build("10.0.0.2", -1), note="b")
    assert difference(good, bad) == [
        Difference("first divergence", "Domain", "toy", "SUCCESS", "FAILURE: 10.0.0.2 refused"),
        Difference("operation", "", "outcome", "SUCCESS", "REVERTED"),
        Difference("operation", "", "error", None, "Domain: 10.0.0.2 refused"),
        Difference("input", "toy", "request.note", "a", "b"),
        Difference("result", "Disk", "portal", "10.0.0.1", "10.0.0.2"),
    ]


def test_tasks_that_only_one_of_them_has_are_told(studio: RecordingStudio) -> None:
    first = studio.record(build())
    second = studio.record(lambda: build()().add(Step("Extra")))
    found = difference(first, second)
    assert Difference("task", "Extra", "", None, "SUCCESS") in found
    assert found[0] == Difference("first divergence", "Extra", "toy", None, "RUNNING")


def test_the_last_good_one_is_the_last_success_before_it(studio: RecordingStudio) -> None:
    studio.record(build())
    good = studio.record(build())
    bad = studio.record(build(fails=-1))
    studio.record(build())
    assert last_good(studio.database, bad).operation.number == good.operation.number


def test_where_nothing_has_ever_succeeded_that_is_said(studio: RecordingStudio) -> None:
    with pytest.raises(NotFound, match="successful operation of kind 'toy' not found"):
        last_good(studio.database, studio.record(build(fails=-1)))


def test_statistics_count_executes_failures_and_reverts_per_task(studio: RecordingStudio) -> None:
    for fails in (0, 0, -1):
        studio.record(build(fails=fails))
    found = statistics(studio.database, "toy")
    assert [(each.task, each.count, each.failures, each.reverts) for each in found] == [
        ("Disk", 3, 0, 1),
        ("Domain", 3, 1, 1),
    ]
    for each in found:
        assert each.p50_ms is not None
        assert each.p95_ms is not None
        assert 0 <= each.p50_ms <= each.p95_ms
    with pytest.raises(NotFound, match="operation of kind 'tea' not found"):
        statistics(studio.database, "tea")
