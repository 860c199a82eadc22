"""A new operation from a recorded one: what still holds is kept, the rest is made again, and each says which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.engine.forking import changed_request, fork, value_of
from virtflow.engine.runner import Runner
from virtflow.engine.stepping import KeepOnFailure, step
from virtflow.errors import Busy, Conflict, InvalidRequest, NotFound
from virtflow.flows.kind import FlowKind
from virtflow.persistence import operations as ops
from virtflow.persistence.operations import Operation
from virtflow.replay.checking import check
from virtflow.replay.forkable import kept_results, undo_preview
from virtflow.replay.player_stage import Code
from virtflow.replay.reading import read
from virtflow.tasks.accept import Accept
from virtflow.tasks.base import Task
from virtflow.tasks.segments import OnHost
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest


@pytest.fixture
def studio(migrated_file: Any, tmp_path: Any) -> Iterator[RecordingStudio]:
    import shutil

    shutil.copy(migrated_file, tmp_path / "virtflow.db")
    with RecordingStudio(tmp_path) as made:
        yield made


class Reads(Step):
    """Announces nothing."""

    intents = Task.intents


class Checked(Step):
    """Makes a thing, and says whether it is there."""

    there = True

    def verify(self, result: Any, **_arguments: Any) -> bool:
        return type(self).there and result is not None


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def runner(studio: RecordingStudio, ran: list[str]) -> Runner:
    """Read, Make (which announces what it makes) and Base (which can be re-checked), then a segment that fails once."""
    Checked.there = True

    def note(name: str) -> Any:
        return lambda: ran.append(name)

    def segment() -> Flow:
        return linear_flow.Flow("toy.host").add(
            Reads("Describe", needs=("spec",), result="xml", provides="xml", does=note("Describe")),
            Step("Start", needs=("xml",), fails=1, does=note("Start"), makes=[("domain", "d")]),
        )

    def parent() -> Flow:
        return linear_flow.Flow("toy").add(
            Reads(
                "Read", needs=("request",), result=lambda request: request["note"], provides="spec", does=note("Read")
            ),
            Step("Make", result=1, makes=[("thing", "t")], does=note("Make")),
            Checked("Base", needs=("spec",), result="/base", makes=[("base", "b")], does=note("Base")),
            Accept(),
            Reads("Pick", needs=("operation",), result=studio.config.host, provides="host", does=note("Pick")),
            OnHost("toy.host", name="There", requires=("spec",), provides=()),
        )

    return studio.runner(parent, FlowKind("toy.host", 1, lambda _shape: segment()))


def code(runner: Runner) -> Code:
    return Code(runner.templates, ("failures", "segments"))


def failed(runner: Runner) -> Operation:
    with pytest.raises(Exception, match="on purpose"):
        runner.run(ToyRequest(note="a"))
    return runner.operations.get("--last")


def forked(runner: Runner, source: Operation, task: str, changes: Mapping[str, Any] | None = None) -> Operation:
    results = kept_results(read(runner.database, source.id), task, code(runner))
    return fork(runner, source, results, changes or {}, parse=lambda _kind, plain: ToyRequest.parse(plain))


def told(runner: Runner, operation: Operation) -> dict[str, str]:
    recording = read(runner.database, operation.id)
    return {
        f"{event.event} {event.atom}": event.data.get("reason", "")
        for event in recording.events
        if event.event in ("KEPT", "REMADE")
    }


def test_what_made_nothing_is_kept_what_made_something_is_made_again_and_each_says_so(
    runner: Runner, ran: list[str]
) -> None:
    source = failed(runner)
    ran.clear()
    operation = forked(runner, source, "Start")
    assert (operation.outcome, operation.parent) == (ops.SUCCESS, source.id)
    assert ran == ["Make", "Pick", "Start"]
    assert told(runner, operation) == {
        "KEPT Read": "",
        "REMADE Make": "what it made is not there for this operation",
        "KEPT Base": "",
        "KEPT Accept": "",
        "REMADE Pick": "it is given another operation",
        "KEPT Describe": "",
    }
    assert check(read(runner.database, operation.id), code(runner)).divergences == ()


def test_what_is_gone_from_the_host_is_made_again(runner: Runner, ran: list[str]) -> None:
    source = failed(runner)
    ran.clear()
    Checked.there = False
    operation = forked(runner, source, "Start")
    assert "Base" in ran
    assert told(runner, operation)["REMADE Base"] == "what it made is not there for this operation"


def test_another_value_in_the_request_changes_what_follows_from_it(runner: Runner, ran: list[str]) -> None:
    source = failed(runner)
    ran.clear()
    operation = forked(runner, source, "Start", {"note": "b"})
    assert operation.request["note"] == "b"
    assert ran == ["Read", "Make", "Base", "Pick", "Describe", "Start"]
    assert told(runner, operation)["REMADE Base"] == "it is given another spec"


def test_the_task_and_all_that_comes_after_it_are_done_anew(runner: Runner, ran: list[str]) -> None:
    source = failed(runner)
    ran.clear()
    operation = forked(runner, source, "Base")
    assert told(runner, operation) == {"KEPT Read": "", "REMADE Make": "what it made is not there for this operation"}
    assert ran == ["Make", "Base", "Pick", "Describe", "Start"]


def test_the_ledger_of_a_fork_answers_for_what_it_kept(runner: Runner) -> None:
    operation = forked(runner, failed(runner), "Start")
    assert {(row.kind, row.state) for row in runner.ledger.rows(operation=operation.id)} == {
        ("thing", "PRESENT"),
        ("base", "PRESENT"),
        ("domain", "PRESENT"),
    }
    assert runner.undo(operation.id).outcome == ops.UNDONE


def test_a_fork_needs_a_finished_operation_a_known_task_and_a_free_target(runner: Runner) -> None:
    source = failed(runner)
    with pytest.raises(NotFound, match="task 'Nothing' not found"):
        forked(runner, source, "Nothing")
    held = step(runner, runner.submit(ToyRequest(name="thing")).id, KeepOnFailure({"Pick"}))
    with pytest.raises(Busy):
        forked(runner, source, "Start")
    with pytest.raises(Conflict, match=r"cannot fork operation 2: it is HELD: cancel it, or go on with it"):
        forked(runner, held, "Pick")


def test_a_secret_that_is_gone_has_to_be_given_anew(studio: RecordingStudio) -> None:
    runner = studio.runner(lambda: linear_flow.Flow("toy").add(Step("Only", fails=1)))
    with pytest.raises(Exception, match="on purpose"):
        runner.run(ToyRequest(hidden="s3cret"))
    source = runner.operations.get("--last")
    with pytest.raises(Conflict, match="hidden was a secret, purged at its end: give it anew"):
        forked(runner, source, "Only")


@pytest.mark.parametrize("path", ["nothing", "note.deeper", "a.b", ""])
def test_a_field_that_the_request_does_not_have_is_named(path: str) -> None:
    with pytest.raises(InvalidRequest, match="the request has no such field"):
        changed_request({"note": "x", "meta": {}}, {path: 1})


def test_values_are_json_where_they_can_be() -> None:
    assert [value_of(text) for text in ("3", "true", '{"a": 1}', "web1", "")] == [3, True, {"a": 1}, "web1", ""]
    assert changed_request({"meta": {"a": 1}}, {"meta.b": 2}) == {"meta": {"a": 1, "b": 2}}


def test_an_undo_preview_lists_the_reverts_in_their_order_and_changes_nothing(runner: Runner) -> None:
    operation = forked(runner, failed(runner), "Start")
    before = read(runner.database, operation.id)
    steps = undo_preview(before, code(runner))
    assert [(each.flow, each.task) for each in steps] == [
        ("toy.host", "Start"),
        ("toy.host", "Describe"),
        ("toy", "There"),
        ("toy", "Pick"),
        ("toy", "Accept"),
        ("toy", "Base"),
        ("toy", "Make"),
        ("toy", "Read"),
    ]
    assert steps[0].made == ("domain d",)
    assert read(runner.database, operation.id).events == before.events
    runner.undo(operation.id)
    events = [
        event.atom for event in read(runner.database, operation.id).events if event.event == "REVERTED" and event.atom
    ]
    assert events == [each.task for each in steps]
