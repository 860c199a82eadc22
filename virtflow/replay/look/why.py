"""``replay why``: what blocks an operation or a task of it, or what blocked it; each reason with how it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from virtflow.replay.history import DO, Attempt, attempts, error_of, failures, first_cause, ownerships
from virtflow.replay.look.lines import DERIVED, LIVE, RECORDED, clock, one_line, span
from virtflow.replay.recording import Event, RecordedAtom, RecordedFlow, Recording

_DONE = ("SUCCESS", "IGNORE")


@dataclass(frozen=True)
class Reason:
    """One sentence, and whether it was recorded, is live, or derived."""

    text: str
    label: str


Owner = Callable[[str], str | None]
"""Asks, live, who runs an operation or segment now: a sentence, or None when that cannot be asked."""


def nobody_asked(_subject: str) -> str | None:
    """Of a file: there is nobody to ask."""
    return None


def why(recording: Recording, task: str | None = None, owner: Owner = nobody_asked) -> list[Reason]:
    """The reasons, the nearest first. Raises NotFound for a task that is not in it."""
    if task is not None:
        flow, atom = recording.find_task(task)
        return list(_task(recording, flow, atom, owner))
    return list(_operation(recording, owner))


def _operation(recording: Recording, owner: Owner) -> Iterator[Reason]:
    operation = recording.operation
    name = f"operation {operation.number}"
    if operation.state == "FINISHED":
        yield Reason(f"{name} is over: {operation.outcome}", RECORDED)
        if operation.outcome == "UNDONE":
            yield Reason("it had succeeded, and was undone on request", RECORDED)
        yield from _cause(recording)
        yield from _debts(recording)
        return
    yield Reason(f"{name} is {operation.state}", RECORDED)
    if operation.cancel_requested:
        yield Reason("it was asked to cancel, and takes back what it has made", RECORDED)
    if not recording.flows:
        yield Reason("it has not begun: nobody has run its first task", RECORDED)
    yield from _now(recording)
    yield from _owned(operation.id, owner)
    yield from _cause(recording)


def _now(recording: Recording) -> Iterator[Reason]:
    """What it was last seen at."""
    for flow in recording.flows:
        for attempt in attempts(flow):
            if attempt.finished_at is None:
                verb = "runs" if attempt.direction == DO else "is being taken back"
                where = f"on {attempt.host}, attempt {attempt.number}, since {clock(attempt.started_at)}"
                yield Reason(f"{attempt.task} of {flow.kind} {verb} {where}", RECORDED)
    if recording.operation.state == "ACCEPTED":
        yield Reason("it was accepted and put down: a worker, or `virtflow operation resume`, goes on with it", DERIVED)


def _owned(subject: str, owner: Owner) -> Iterator[Reason]:
    text = owner(subject)
    if text is not None:
        yield Reason(text, LIVE)


def _task(recording: Recording, flow: RecordedFlow, atom: RecordedAtom, owner: Owner) -> Iterator[Reason]:
    done = attempts(flow, atom.name)
    if not done:
        yield Reason(f"{atom.name} has not run", RECORDED)
        yield from _blocked(recording, flow, atom, owner)
        return
    last = done[-1]
    if last.finished_at is None:
        doing = "runs" if last.direction == DO else "is being taken back"
        yield Reason(f"{atom.name} {doing} since {clock(last.started_at)} on {last.host}", RECORDED)
        yield from _owned(flow.uuid if flow is not recording.flows[0] else recording.operation.id, owner)
    elif last.state == "INTERRUPTED":
        yield Reason(f"the process that ran {atom.name} died; another took over at {clock(last.finished_at)}", DERIVED)
    elif last.direction == DO and last.state == "SUCCESS":
        yield Reason(f"{atom.name} is done, in {span(last.duration)}: nothing blocks it", RECORDED)
    elif last.state == "FAILURE":
        yield Reason(f"{atom.name} failed: {one_line(last.error, 400)}", RECORDED)
    else:
        yield from _taken_back(recording, flow, last, done)


def _taken_back(recording: Recording, flow: RecordedFlow, last: Attempt, done: tuple[Attempt, ...]) -> Iterator[Reason]:
    if last.state == "DEBT":
        yield Reason(f"{last.task} could not be taken back: {one_line(last.error, 400)}", RECORDED)
        yield Reason(f"try again: virtflow operation retry-revert {recording.operation.number}", DERIVED)
    else:
        yield Reason(f"{last.task} was taken back at {clock(last.finished_at)}", RECORDED)
    executed = next((each for each in reversed(done) if each.direction == DO), None)
    if executed is not None and executed.error is not None:
        yield Reason(f"because it failed itself: {one_line(executed.error, 400)}", RECORDED)
        return
    starts = (event for event in flow.events_of(None) if event.event == "RUNNING")
    begun = [event for event in starts if event.sequence < last.began.sequence]
    if begun and isinstance(begun[-1].data, dict) and begun[-1].data.get("undoing"):
        yield Reason("because the operation was undone on request", RECORDED)
        return
    before = [event for event in failures(recording) if event.at <= last.started_at and event.event == "FAILURE"]
    if before:
        yield Reason(f"because {_failure(recording, before[-1], flow)}", DERIVED)
    elif flow is not recording.flows[0]:
        yield Reason("because its parent flow took the whole segment back", DERIVED)


def _blocked(recording: Recording, flow: RecordedFlow, atom: RecordedAtom, owner: Owner) -> Iterator[Reason]:
    """Who stands in the way of a task that has not run: the nearest tasks before it that are not done."""
    graph = flow.graph
    if not graph.recorded:
        yield Reason("what it waits for is not known: the graph of its flow was not recorded", DERIVED)
        return
    direct = [name for name in graph.before(atom.name) if _unfinished(flow, name)]
    if direct:
        yield Reason(f"it comes after {', '.join(direct)}, which {_is_not(direct)}", DERIVED)
    for name in _obstacles(flow, atom.name):
        done = attempts(flow, name)
        error = _error(done)
        if error is not None:
            yield Reason(f"{name} failed: {one_line(error, 400)}", RECORDED)
        elif done and done[-1].finished_at is None:
            yield Reason(f"{name} is {done[-1].state} since {clock(done[-1].started_at)} on {done[-1].host}", RECORDED)
    if recording.operation.state == "FINISHED":
        yield from _cause(recording)
    elif not direct:
        yield Reason("nothing before it is missing: it is next", DERIVED)
        yield from _owned(recording.operation.id, owner)


def _obstacles(flow: RecordedFlow, task: str) -> list[str]:
    """The nearest tasks before one that failed, or that still run; what is before those does not matter."""
    waiting, seen, found = [task], {task}, []
    while waiting:
        name = waiting.pop()
        done = attempts(flow, name)
        if name != task and done and (_error(done) is not None or done[-1].finished_at is None):
            found.append(name)
            continue
        unfinished = [each for each in flow.graph.before(name) if each not in seen and _unfinished(flow, each)]
        waiting += unfinished
        seen.update(unfinished)
    return sorted(found)


def _error(done: tuple[Attempt, ...]) -> str | None:
    """Of the last execute."""
    executes = [each for each in done if each.direction == DO]
    return executes[-1].error if executes else None


def _unfinished(flow: RecordedFlow, name: str) -> bool:
    """Whether a task was not done when last heard of; taken back is not done."""
    last = (attempts(flow, name) or (None,))[-1]
    return last is None or last.direction != DO or last.state not in _DONE


def _is_not(names: list[str]) -> str:
    return "is not done" if len(names) == 1 else "are not done"


def _cause(recording: Recording) -> Iterator[Reason]:
    asked = [event for event in recording.events if event.event == "CANCEL_ASKED"]
    if asked:
        yield Reason(f"it was asked to cancel at {clock(asked[0].at)}", RECORDED)
    cause = first_cause(recording)
    if cause is not None:
        yield Reason(f"first of all, {_failure(recording, cause, None)}", DERIVED)
    elif recording.operation.error and recording.operation.outcome != "SUCCESS":
        yield Reason(one_line(recording.operation.error, 400), RECORDED)
    for flow in recording.flows:
        owners = ownerships(flow)
        if len({owner.epoch for owner in owners}) > 1:
            yield Reason(f"{flow.kind} was taken over {len({o.epoch for o in owners}) - 1} time(s)", DERIVED)


def _debts(recording: Recording) -> Iterator[Reason]:
    for entry in recording.ledger:
        if entry.state == "DEBT":
            yield Reason(f"{entry.kind} {one_line(entry.identity)} on {entry.host} could not be taken back", RECORDED)


def _failure(recording: Recording, event: Event, inside: RecordedFlow | None) -> str:
    flow = recording.by_uuid[event.flow]
    where = "" if flow is inside else f" of {flow.kind}"
    return f"{event.atom}{where} failed on {event.host} at {clock(event.at)}: {one_line(error_of(event), 400)}"
