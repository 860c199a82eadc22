"""What a fork may keep of a recorded operation, and what an undo of it would do. Derived: nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from virtflow.engine.forking import EarlierResult
from virtflow.engine.taskflow_engine.rehearsal import Service
from virtflow.replay.player_stage import Code, Stage
from virtflow.replay.recording import GraphNode, RecordedAtom, RecordedFlow, Recording


def kept_results(recording: Recording, task: str, code: Code) -> dict[tuple[str, str], EarlierResult]:
    """The last result of every task that does not come after ``task``, with what the task was given. NotFound.

    Segments are not kept but gone through again: each of their tasks is looked at on its own. Of a flow in which
    today's code decides differently nothing is kept.
    """
    again = _from(recording, task)
    stage = Stage(recording, code)
    found: dict[tuple[str, str], EarlierResult] = {}
    for position, event in enumerate(recording.events):
        stage.apply(position, event)
        rehearsal = stage.rehearsal(event.flow)
        flow = recording.by_uuid[event.flow]
        if rehearsal is None or event.atom is None or event.event != "SUCCESS" or (flow.kind, event.atom) in again:
            continue
        node = flow.graph.by_name.get(event.atom)
        if node is None or node.kind == "retry" or _runs_a_segment(node):
            continue
        given = rehearsal.arguments(event.atom)
        plain = {name: value for name, value in given.items() if not isinstance(value, Service)}
        found[flow.kind, event.atom] = EarlierResult(plain, (event.data or {}).get("result"))
    return found


def _from(recording: Recording, task: str) -> set[tuple[str, str]]:
    """The task and all that comes after it: in its flow, in segments, and behind the segment that its flow is."""
    flow, atom = recording.find_task(task)
    found = {(flow.kind, name) for name in _behind(flow, [atom.name])}
    parent = recording.flows[0]
    runs = {node.name for node in parent.graph.nodes if _runs_a_segment(node)}
    if flow is not parent:
        return found | {(parent.kind, name) for name in _behind(parent, sorted(runs))}
    if any((parent.kind, name) in found for name in runs):
        found |= {(other.kind, each.name) for other in recording.flows[1:] for each in other.atoms}
    return found


def _runs_a_segment(node: GraphNode) -> bool:
    """Only such a task takes segments back, too."""
    return "segments" in node.revert_requires.values()


def _behind(flow: RecordedFlow, names: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += flow.graph.after(name)
    return found


@dataclass(frozen=True)
class Undoing:
    """One step of an undo: the task, what it had made (recorded), and what its revert does about it (derived)."""

    flow: str
    task: str
    made: tuple[str, ...]
    does: str


def undo_preview(recording: Recording, code: Code) -> list[Undoing]:
    """The reverts of an undo in the order in which today's code would do them."""
    steps: list[Undoing] = []
    if recording.flows:
        steps += _undo(recording, recording.flows[0], code)
    return steps


def _undo(recording: Recording, flow: RecordedFlow, code: Code) -> Iterator[Undoing]:
    rehearsal, _changes = code.rehearse(flow)
    if rehearsal is None:
        yield Undoing(flow.kind, "", (), "cannot be undone: today's code has another flow")
        return
    for atom in flow.atoms:
        if atom.kind == "task":
            rehearsal.load(atom.name, atom.state, atom.results, atom.failure)
        else:
            rehearsal.load(atom.name, atom.state, _last_value(atom))
    segments = [other for other in recording.flows[1:] if other.uuid != flow.uuid]
    for name in rehearsal.undo_order():
        if flow.by_name[name].kind == "retry":
            continue
        node = flow.graph.by_name.get(name)
        if node is not None and _runs_a_segment(node):
            for segment in reversed(segments):
                yield from _undo(recording, segment, code)
        made = tuple(
            f"{row.kind} {row.identity}"
            for row in recording.ledger
            if (row.flow, row.task) == (flow.uuid, name) and row.state != "CLEARED"
        )
        yield Undoing(flow.kind, name, made, rehearsal.what_revert_does(name))


def _last_value(atom: RecordedAtom) -> Any:
    results = atom.results
    return results[-1][0] if isinstance(results, list) and results else None
