"""The tasks of a recording in the order of their flows, each with what it did in both directions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from virtflow.replay.history import DO, UNDO, Attempt, attempts, parent_task
from virtflow.replay.recording import RecordedFlow, RecordedGraph, Recording

_QUIET = ("SUCCESS", "REVERTED", None)
_FOLD_FROM = 40
"""Flows of more tasks are folded, unless everything is asked for."""
_FOLDED = 4
"""So many uneventful tasks in a row become one line."""


@dataclass(frozen=True)
class TaskLine:
    """A task: ``do`` and ``undo`` are its last attempts in each direction."""

    name: str
    kind: str
    attempts: tuple[Attempt, ...]

    @property
    def do(self) -> Attempt | None:
        return next((each for each in reversed(self.attempts) if each.direction == DO), None)

    @property
    def undo(self) -> Attempt | None:
        """The last revert, if it is later than the last execute."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.direction == UNDO else None

    @property
    def executes(self) -> int:
        return sum(each.direction == DO for each in self.attempts)

    @property
    def state(self) -> str:
        return self.attempts[-1].state if self.attempts else "PENDING"

    @property
    def story(self) -> tuple[str | None, str | None]:
        """What it has in common with uneventful neighbours."""
        return (self.do.state if self.do else None, self.undo.state if self.undo else None)

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to say of it but how long it took."""
        remarked = any(each.remark is not None for each in self.attempts)
        return self.executes <= 1 and not remarked and all(state in _QUIET for state in self.story)


@dataclass(frozen=True)
class FlowLines:
    """A flow; ``segments`` are those that a task of it ran, by that task's name ("": unknown)."""

    flow: RecordedFlow
    tasks: tuple[TaskLine, ...]
    segments: dict[str, list[FlowLines]]


def flow_lines(recording: Recording) -> list[FlowLines]:
    """The parent flow, with its segments inside; empty when the operation has not begun."""
    if not recording.flows:
        return []
    parent, *segments = (FlowLines(flow, _tasks(flow), {}) for flow in recording.flows)
    for segment in segments:
        parent.segments.setdefault(parent_task(recording, segment.flow) or "", []).append(segment)
    return [parent]


def _tasks(flow: RecordedFlow) -> tuple[TaskLine, ...]:
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts(flow):
        found.setdefault(attempt.task, []).append(attempt)
    names = [(name, flow.graph.by_name[name].kind) for name in in_order(flow.graph)]
    known = {name for name, _ in names}
    names += [(atom.name, atom.kind) for atom in flow.atoms if atom.name not in known]
    return tuple(TaskLine(name, kind, tuple(found.get(name, ()))) for name, kind in names)


def in_order(graph: RecordedGraph) -> list[str]:
    """The names such that what comes before another stands before it, else as the flow lists them."""
    waiting = {node.name: 0 for node in graph.nodes}
    place = {name: number for number, name in enumerate(waiting)}
    after: dict[str, list[str]] = {}
    for first, second in graph.edges:
        waiting[second] += 1
        after.setdefault(first, []).append(second)
    free = [(place[name], name) for name, count in waiting.items() if count == 0]
    heapify(free)
    found = []
    while free:
        name = heappop(free)[1]
        found.append(name)
        for second in after.get(name, ()):
            waiting[second] -= 1
            if waiting[second] == 0:
                heappush(free, (place[second], second))
    return found


def folded(tasks: Sequence[TaskLine], *, everything: bool, keep: Collection[str] = ()) -> Iterator[list[TaskLine]]:
    """The tasks one by one; in a long flow, runs of uneventful ones of the same story together."""
    if everything or len(tasks) <= _FOLD_FROM:
        yield from ([task] for task in tasks)
        return
    run: list[TaskLine] = []
    for task in tasks:
        quiet = task.quiet and task.name not in keep
        if run and (not quiet or task.story != run[0].story):
            yield from _run(run)
            run = []
        if quiet:
            run.append(task)
        else:
            yield [task]
    yield from _run(run)


def _run(run: list[TaskLine]) -> Iterator[list[TaskLine]]:
    if len(run) >= _FOLDED:
        yield run
    else:
        yield from ([task] for task in run)
