"""What a recording holds, and that nothing but a recording is taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from taskflow import retry
from taskflow.patterns import linear_flow, unordered_flow

import virtflow
from virtflow.errors import BadRecording, NotFound
from virtflow.replay.recording import Recording, from_plain, to_plain
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest


def simple() -> Any:
    flow = linear_flow.Flow("toy")
    return flow.add(
        Step("Disk", result="/disk", provides="disk", makes=[("file", "/disk")]),
        unordered_flow.Flow("beside").add(Step("Tap", result=["tap0", 1500], provides=("tap", "mtu")), Step("Drive")),
        Step("Domain", needs=["disk", "mtu"], result="<domain/>", provides="xml"),
    )


def retried(times: int) -> Any:
    flow = linear_flow.Flow("toy", retry=retry.ForEach(["a", "b", "c"], name="NextHost", provides="host"))
    return flow.add(Step("Claim", needs=["host"], result=lambda host: f"on {host}"), Step("Build", fails=times))


def states(recording: Recording, atom: str | None) -> list[tuple[str, int]]:
    return [(event.event, event.attempt) for event in recording.flows[0].events_of(atom)]


def test_a_recording_survives_the_way_through_json(studio: RecordingStudio) -> None:
    recording = studio.record(simple, note="é")
    assert from_plain(to_plain(recording)) == recording
    assert recording.operation.outcome == "SUCCESS"
    assert recording.operation.request["note"] == "é"


def test_the_graph_is_recorded_as_it_was_with_what_each_task_waits_for(studio: RecordingStudio) -> None:
    graph = studio.record(simple).flows[0].graph
    assert graph.recorded
    assert [node.name for node in graph.nodes] == ["Disk", "Tap", "Drive", "Domain"]
    assert set(graph.edges) == {("Disk", "Tap"), ("Disk", "Drive"), ("Tap", "Domain"), ("Drive", "Domain")}
    domain = graph.by_name["Domain"]
    assert domain.requires == {"disk": "disk", "mtu": "mtu", "failures": "failures"}
    assert domain.sources == {"disk": ("Disk",), "mtu": ("Tap",)}
    assert graph.by_name["Tap"].provides == {"tap": 0, "mtu": 1}


def test_the_graph_is_stored_once_and_the_code_with_every_take_over(studio: RecordingStudio) -> None:
    studio.record(simple)
    studio.runner(simple).undo("--last")
    begun = [event for event in studio.read().flows[0].events_of(None) if event.event == "RUNNING"]
    assert ["graph" in event.data for event in begun] == [True, False]
    assert [event.data["undoing"] for event in begun] == [False, True]
    assert [event.epoch for event in begun] == [1, 2]
    assert {event.data["code"] for event in begun} == {virtflow.__version__}


def test_earlier_attempts_and_their_results_stay_in_the_events(studio: RecordingStudio) -> None:
    recording = studio.record(lambda: retried(2))
    assert recording.operation.outcome == "SUCCESS"
    claims = [event.data["result"] for event in recording.flows[0].events_of("Claim") if event.event == "SUCCESS"]
    assert claims == ["on a", "on b", "on c"]
    again = ["RUNNING", "SUCCESS", "RETRYING"]
    assert [event for event, _ in states(recording, "NextHost")] == [*again, *again, *again[:2]]
    assert [attempt for event, attempt in states(recording, "NextHost") if event == "RUNNING"] == [1, 2, 3]
    assert [event for event, _ in states(recording, "Claim")][:5] == [
        *("RUNNING", "SUCCESS", "REVERTING", "REVERTED", "PENDING"),
    ]


def test_a_failure_is_recorded_with_its_traceback(studio: RecordingStudio) -> None:
    recording = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", fails=-1)))
    [failure] = [event for event in recording.events if event.event == "FAILURE" and event.atom]
    assert failure.atom == "Domain"
    assert failure.data["failure"]["exception_str"] == "on purpose"
    assert "in execute" in failure.data["failure"]["traceback_str"]


def test_a_request_to_cancel_is_recorded_when_it_is_heard(studio: RecordingStudio) -> None:
    def cancel() -> None:
        runner.cancel("--last")

    runner = studio.runner(lambda: linear_flow.Flow("toy").add(Step("Disk", does=cancel), Step("Domain")))
    with pytest.raises(virtflow.errors.VirtflowError):
        runner.run(ToyRequest())
    recording = studio.read()
    assert recording.operation.outcome == "CANCELLED"
    flow_events = [event.event for event in recording.flows[0].events_of(None)]
    assert flow_events[:2] == ["RUNNING", "CANCEL_ASKED"]


def test_a_process_that_takes_over_after_a_crash_is_recorded(studio: RecordingStudio) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        if not died:
            died.append(True)
            raise Killed

    died: list[bool] = []
    build = lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", does=die))  # noqa: E731
    with pytest.raises(Killed):
        studio.runner(build).run(ToyRequest())
    studio.runner(build).resume("--last")
    recording = studio.read()
    assert recording.operation.outcome == "SUCCESS"
    begun = [event.epoch for event in recording.flows[0].events_of(None) if event.event == "RUNNING"]
    assert begun == [1, 2]
    assert [each for each in states(recording, "Domain") if each[0] == "RUNNING"] == [("RUNNING", 1), ("RUNNING", 2)]


def test_tasks_are_found_by_name_in_any_case_and_by_flow(studio: RecordingStudio) -> None:
    recording = studio.record(simple)
    flow = recording.flows[0]
    for reference in ("Domain", "domain", "toy/Domain", f"{flow.uuid[:8]}/DOMAIN"):
        assert recording.find_task(reference) == (flow, flow.by_name["Domain"])
    for reference in ("Dom", "spawn/Domain", ""):
        with pytest.raises(NotFound):
            recording.find_task(reference)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["operation", "number"], "1", "operation.number"),
        (["flows", 0, "events", 0, "at"], 1.5, "flows.0.events.0.at"),
        (["flows", 0, "graph", "edges", 0], ["Disk"], "flows.0.graph.edges.0"),
        (["operation", "secret"], "x", "operation.secret"),
        (["flows"], None, "flows"),
        (["operation", "cancel_requested"], 1, "operation.cancel_requested"),
    ],
)
def test_a_field_of_another_type_is_named(studio: RecordingStudio, path: list[Any], value: Any, complaint: str) -> None:
    plain = to_plain(studio.record(simple))
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BadRecording, match=complaint.replace(".", r"\.")):
        from_plain(plain)
