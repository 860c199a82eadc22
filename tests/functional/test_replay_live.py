"""Real operations on real libvirt: stepped through, forked, undone; and what they record is what today's code does.

With ``--regenerate`` the recordings of this version are kept in ``tests/recordings``, where they are checked for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.functional.nodes import CommandLine, Node, small
from tests.recordings.keeping import keep
from virtflow import faults
from virtflow.cli.replay_live import parse_request
from virtflow.engine.forking import fork
from virtflow.engine.stepping import Decision, KeepOnFailure, Stop, Verb, step
from virtflow.errors import OperationFailed
from virtflow.persistence.operations import Operation
from virtflow.replay.checking import check
from virtflow.replay.forkable import kept_results, undo_preview
from virtflow.replay.player_stage import Code
from virtflow.replay.reading import read

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

START = "StartDomainPaused"
"""The task that brings the guest to life, where cables are waited for, as they are by default."""


class StopsBefore:
    """Leaves the operation before a task; looks at the host there."""

    def __init__(self, task: str, look: Callable[[], object]) -> None:
        self._task = task
        self._look = look
        self.seen: object = None
        self.asked: list[str] = []

    def before(self, stop: Stop) -> Decision:
        self.asked.append(stop.task)
        if stop.task != self._task:
            return Decision(Verb.GO)
        self.seen = self._look()
        return Decision(Verb.LEAVE)

    def failed(self, stop: Stop) -> Decision:
        raise AssertionError(stop)


def test_a_spawn_is_stepped_through_stopped_before_its_guest_starts_and_continued(node: Node) -> None:
    runner = node.runner
    accepted = runner.submit(small("web1"))
    gate = StopsBefore(START, lambda: node.state_of("web1"))
    held = step(runner, accepted.id, gate)
    assert (held.state, held.outcome) == ("HELD", None), (held.error, gate.asked)
    assert gate.seen == "shutoff"
    assert len(gate.asked) > 10
    assert gate.asked[-1] == START
    done = step(runner, held.id, KeepOnFailure())
    assert done.outcome == "SUCCESS"
    assert node.state_of("web1") == "running"
    assert check(read(runner.database, done.id), Code.installed()).divergences == ()


def test_a_spawn_that_fails_keeps_everything_until_it_is_told_to_try_again(node: Node) -> None:
    runner = node.runner
    before = node.residue()
    accepted = runner.submit(small("web1"))
    with faults.injected(f"{START}:before:raise"):
        held = step(runner, accepted.id, KeepOnFailure())
    assert held.state == "HELD"
    assert (node.directory("web1") / "disk").exists()
    assert node.state_of("web1") == "shutoff"

    class TriesAgain(KeepOnFailure):
        def failed(self, stop: Stop) -> Decision:
            return Decision(Verb.RETRY)

    done = step(runner, held.id, TriesAgain())
    assert done.outcome == "SUCCESS"
    assert check(read(runner.database, done.id), Code.installed()).divergences == ()
    runner.undo(done.id)
    assert node.left_since(before) == []


def test_a_failed_spawn_is_forked_and_succeeds(node: Node) -> None:
    runner = node.runner
    with faults.injected(f"{START}:before:raise"), pytest.raises(OperationFailed):
        runner.run(small("web1"))
    failed = node.last()
    assert failed.outcome == "REVERTED"
    results = kept_results(read(runner.database, failed.id), START, Code.installed())
    done = fork(runner, failed, results, {}, parse=parse_request)
    assert (done.outcome, done.parent, done.target) == ("SUCCESS", failed.id, "instance:web1")
    assert node.state_of("web1") == "running"
    events = read(runner.database, done.id).events
    kept = {event.atom for event in events if event.event == "KEPT"}
    again = {event.atom for event in events if event.event == "REMADE"}
    assert {"ValidateRequest"} <= kept
    assert {"MakeInstanceDir", "FetchBase", "DefineDomain", "BuildDomainXml"} <= again
    assert check(read(runner.database, done.id), Code.installed()).divergences == ()


def test_what_an_undo_would_do_is_what_it_does(node: Node) -> None:
    operation = node.spawn("web1")
    foreseen = undo_preview(read(node.runner.database, operation.id), Code.installed())
    assert node.state_of("web1") == "running"
    node.runner.undo(operation.id)
    events = read(node.runner.database, operation.id).events
    reverted = [event.atom for event in events if event.event == "REVERTED" and event.atom]
    assert sorted(reverted) == sorted([*(each.task for each in foreseen), "NextHost"])
    assert reverted[0] == foreseen[0].task
    assert any(thing.startswith("domain ") for each in foreseen for thing in each.made)


def test_the_command_line_leaves_a_spawn_before_its_guest_starts_and_goes_on_with_it(command_line: CommandLine) -> None:
    from virtflow import Runner

    with Runner(command_line.config) as runner:
        accepted = runner.submit(small("web1"))
    held = command_line("replay", "run", str(accepted.number), "--break", START)
    assert held.code == 0, held.err
    assert "live      stopped before spawn.host/StartDomainPaused" in held.err
    assert command_line.operation(str(accepted.number))["state"] == "HELD"
    done = command_line("replay", "run", str(accepted.number), "--on-failure", "keep", "-f", "json")
    assert done.json["outcome"] == "SUCCESS"
    checked = command_line("replay", "check", str(accepted.number))
    assert checked.code == 0, checked.err
    played = command_line("replay", "play", "--last", "-c", f"goto {START}; where; print domain_xml")
    assert "<domain" in played.out
    assert "derived   today's code decides as recorded" in played.out


# -- what is recorded, kept for ever ----------------------------------------------------------------------------------


def succeeded(node: Node) -> Operation:
    return node.spawn("web1", meta={"tier": "front"})


def reverted(node: Node) -> Operation:
    with faults.injected(f"{START}:before:raise"), pytest.raises(OperationFailed):
        node.spawn("web1")
    return node.last()


def deleted(node: Node) -> Operation:
    node.spawn("web1")
    return node.delete("web1")


def undone(node: Node) -> Operation:
    return node.runner.undo(node.spawn("web1").id)


def resumed(node: Node) -> Operation:
    """Put down in the middle of its segment, and gone on with."""
    accepted = node.runner.submit(small("web1"))
    step(node.runner, accepted.id, KeepOnFailure({"DefineDomain"}))
    return node.runner.resume(accepted.id)


def cancelled(node: Node) -> Operation:
    accepted = node.runner.submit(small("web1"))
    step(node.runner, accepted.id, KeepOnFailure({"DefineDomain"}))
    return node.runner.cancel(accepted.id)


KEPT = {
    "spawn-succeeded": succeeded,
    "spawn-reverted": reverted,
    "spawn-undone": undone,
    "spawn-resumed": resumed,
    "spawn-cancelled": cancelled,
    "delete-succeeded": deleted,
}


@pytest.mark.parametrize("name", KEPT)
def test_what_real_operations_record_is_what_this_version_does(
    name: str, node: Node, request: pytest.FixtureRequest
) -> None:
    operation = KEPT[name](node)
    recording = read(node.runner.database, operation.id)
    assert check(recording, Code.installed()).divergences == ()
    if request.config.getoption("--regenerate"):
        keep(recording, name)
