"""Whether a recording fits together: what a checksum cannot tell, because whoever forges one computes it anew."""

from __future__ import annotations

from collections.abc import Iterator

from virtflow.replay.history import REMARKS
from virtflow.replay.recording import RecordedFlow, Recording

_EVENTS_OF_TASKS = REMARKS | {
    *("PENDING", "RUNNING", "SUCCESS", "FAILURE", "REVERTING", "REVERTED", "REVERT_FAILURE", "RETRYING", "IGNORE")
}
_EVENTS_OF_FLOWS = frozenset(
    {"RUNNING", "SUSPENDING", "SUSPENDED", "RESUMING", "SUCCESS", "FAILURE", "REVERTED", "CANCEL_ASKED", "PENDING"}
)
_SETTLED = ("SUCCESS", "FAILURE", "REVERTED", "REVERT_FAILURE")


def problems(recording: Recording) -> list[str]:
    """What does not fit, a line each; none: it does."""
    found = list(_whole(recording))
    for flow in recording.flows:
        found += [
            f"flow {flow.kind} ({flow.uuid[:8]}): {text}"
            for text in _flow(flow, over=recording.operation.state == "FINISHED")
        ]
    return found


def _whole(recording: Recording) -> Iterator[str]:
    uuids = [flow.uuid for flow in recording.flows]
    if len(set(uuids)) != len(uuids):
        yield "the same flow is in it twice"
    if uuids and uuids[0] != recording.operation.id:
        yield "its first flow is not the operation's own"
    if strays := {entry.flow for entry in recording.ledger} - set(uuids):
        yield f"its ledger has rows of {len(strays)} flow(s) that are not in it"
    if {claim.subject for claim in recording.claims} - {recording.operation.id, *uuids}:
        yield "it has claims of something else"
    times = recording.operation.created_at, recording.operation.finished_at
    if times[1] is not None and times[1] < times[0]:
        yield "the operation finished before it was made"


def _flow(flow: RecordedFlow, *, over: bool) -> Iterator[str]:
    names = [node.name for node in flow.graph.nodes]
    atoms = {atom.name for atom in flow.atoms}
    if len(set(names)) != len(names) or len(atoms) != len(flow.atoms):
        yield "two tasks have the same name"
    if missing := atoms - set(names):
        yield f"not in its graph: {_some(missing)}"
    if missing := {end for edge in flow.graph.edges for end in edge} - set(names):
        yield f"its graph has arrows to what is not in it: {_some(missing)}"
    if _has_circle(flow):
        yield "its graph has a circle"
    yield from _events(flow, atoms, over=over)


def _events(flow: RecordedFlow, atoms: set[str], *, over: bool) -> Iterator[str]:
    epoch = 0
    attempts: dict[str, int] = {}
    latest: dict[str, str] = {}
    for place, event in enumerate(flow.events):
        name = f"event {event.sequence}"
        if event.flow != flow.uuid:
            yield f"{name} is of another flow"
        if event.sequence != place:
            yield f"event {place} is missing"
            return
        if event.epoch < epoch:
            yield f"{name} was written by an owner of before"
        epoch = event.epoch
        if event.event not in (_EVENTS_OF_FLOWS if event.atom is None else _EVENTS_OF_TASKS):
            yield f"{name}: {event.event[:40]!r} is no state"
        if event.atom is None:
            continue
        if event.atom not in atoms:
            yield f"{name} is of a task that is not in it: {event.atom[:80]}"
        if event.attempt < attempts.get(event.atom, 0):
            yield f"{name}: attempt {event.attempt} of {event.atom} comes after attempt {attempts[event.atom]}"
        attempts[event.atom] = event.attempt
        latest[event.atom] = event.event
    for atom in flow.atoms:
        last = latest.get(atom.name)
        if over and last in _SETTLED and atom.state in _SETTLED and atom.state != last:
            yield f"{atom.name} is {atom.state}, but the last that happened to it is {last}"


def _has_circle(flow: RecordedFlow) -> bool:
    waiting = {node.name: 0 for node in flow.graph.nodes}
    after: dict[str, list[str]] = {}
    for first, second in flow.graph.edges:
        if second in waiting and first in waiting:
            waiting[second] += 1
            after.setdefault(first, []).append(second)
    free = [name for name, count in waiting.items() if count == 0]
    for name in free:
        for second in after.get(name, ()):
            waiting[second] -= 1
            if waiting[second] == 0:
                free.append(second)
    return len(free) < len(waiting)


def _some(names: set[str]) -> str:
    listed = sorted(name[:80] for name in names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
