"""What is worked out from the journal: attempts, owners, causes, and what an attempt was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from taskflow import retry
from taskflow.patterns import linear_flow

from virtflow.replay.history import attempts, error_of, first_cause, ownerships, states_at
from virtflow.replay.inputs import inputs_of
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest


def claimed(host: str, **_: Any) -> list[Any]:
    return [f"on {host}", 7]


def retried(times: int) -> Any:
    flow = linear_flow.Flow("toy", retry=retry.ForEach(["a", "b", "c"], name="NextHost", provides="host"))
    return flow.add(
        Step(
            "Claim", needs=["host", "project"], result=lambda host, **_: [f"on {host}", 7], provides=("claim", "size")
        ),
        Step("Build", needs=["size", "claim"], fails=times),
    )


def test_both_directions_of_each_attempt_are_told_apart(studio: RecordingStudio) -> None:
    flow = studio.record(lambda: retried(1)).flows[0]
    told = [(each.task, each.direction, each.number, each.state) for each in attempts(flow) if each.task != "NextHost"]
    assert told == [
        ("Claim", "do", 1, "SUCCESS"),
        ("Build", "do", 1, "FAILURE"),
        ("Build", "undo", 1, "REVERTED"),
        ("Claim", "undo", 1, "REVERTED"),
        ("Claim", "do", 2, "SUCCESS"),
        ("Build", "do", 2, "SUCCESS"),
    ]
    assert [each.state for each in attempts(flow, "NextHost")] == ["SUCCESS", "SUCCESS"]


def test_an_input_is_what_its_source_had_returned_by_then(studio: RecordingStudio) -> None:
    flow = studio.record(lambda: retried(1)).flows[0]
    first, second = [each for each in attempts(flow, "Build") if each.direction == "do"]
    given = {each.argument: each for each in inputs_of(flow, first)}
    assert (given["claim"].value, given["claim"].task, given["claim"].attempt) == ("on a", "Claim", 1)
    assert given["size"].value == 7
    assert given["failures"].origin == "service"
    assert not given["failures"].known
    again = {each.argument: each for each in inputs_of(flow, second)}
    assert (again["claim"].value, again["claim"].source) == ("on b", "result of Claim, attempt 2")
    claim = {each.argument: each for each in inputs_of(flow, attempts(flow, "Claim")[0])}
    assert (claim["host"].task, claim["host"].value) == ("NextHost", "a")
    assert (claim["project"].origin, claim["project"].value) == ("inputs", flow.inputs["project"])


def test_a_revert_that_would_not_succeed_is_debt_and_not_the_cause(studio: RecordingStudio) -> None:
    steps = [Step("Disk", revert_fails=-1), Step("Tap"), Step("Domain", fails=-1, message="no memory")]
    recording = studio.record(lambda: linear_flow.Flow("toy").add(*steps))
    assert recording.operation.outcome == "REVERTED_WITH_DEBT"
    undone = {each.task: each for each in attempts(recording.flows[0]) if each.direction == "undo"}
    assert undone["Disk"].state == "DEBT"
    assert "cannot take back Disk" in str(undone["Disk"].error)
    cause = first_cause(recording)
    assert cause is not None
    assert (cause.atom, error_of(cause)) == ("Domain", "no memory")


def test_what_a_retry_got_over_is_not_the_cause(studio: RecordingStudio) -> None:
    assert first_cause(studio.record(lambda: retried(1))) is None
    cause = first_cause(studio.record(lambda: retried(-1)))
    assert cause is not None
    assert cause.attempt == 3


def test_an_attempt_whose_process_died_is_interrupted_and_its_successor_is_an_owner(studio: RecordingStudio) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        if not died:
            died.append(True)
            raise Killed

    died: list[bool] = []
    runner = studio.runner(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", does=die)))
    with pytest.raises(Killed):
        runner.run(ToyRequest())
    running = attempts(studio.read().flows[0], "Domain")
    assert [(each.state, each.finished_at) for each in running] == [("RUNNING", None)]
    runner.resume("--last")
    flow = studio.read().flows[0]
    assert [each.state for each in attempts(flow, "Domain")] == ["INTERRUPTED", "SUCCESS"]
    owners = ownerships(flow)
    assert [owner.epoch for owner in owners] == [1, 2]
    assert owners[0].until <= owners[1].since
    assert all(owner.code and owner.pid for owner in owners)


def test_what_somebody_decided_is_a_remark_of_the_attempt_and_no_state(studio: RecordingStudio) -> None:
    flow = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain"))).flows[0]
    begun, *rest = flow.events_of("Disk")
    skipped = replace(begun, event="SKIPPED", data={"result": None})
    kept = replace(flow.events_of("Domain")[0], event="KEPT", data={"from": "0123456789"})
    events = [skipped if event is begun else event for event in flow.events]
    events.insert(events.index(flow.events_of("Domain")[0]) + 1, kept)
    flow = replace(flow, events=tuple(events))
    told = {each.task: (each.state, each.remark) for each in attempts(flow)}
    assert told["Disk"] == ("SUCCESS", "skipped: its result was given by hand")
    assert told["Domain"] == ("SUCCESS", "kept from operation 01234567")
    assert states_at(events[: events.index(kept) + 1])[flow.uuid, "Domain"] == "RUNNING"
    assert rest
