"""What the page shows of a recording, as plain JSON. Everything is numbered: the page looks up, it does not search.

Times are microseconds after ``start``. Each event is a row [time, flow, task or -1, name, attempt, epoch, host, data or
-1, error]; ``position`` p of the page means that p events have happened. What is worked out here and was not recorded:
which task ran a segment, what an attempt was given and from where, what was cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from virtflow.replay.history import error_of, failures, first_cause, parent_task
from virtflow.replay.inputs import inputs_of
from virtflow.replay.recording import Event, RecordedFlow, Recording
from virtflow.replay.report.axis import axis
from virtflow.replay.report.documents import documents
from virtflow.replay.report.heading import causes, details, facts, left, left_things, notes
from virtflow.replay.report.layout import NODE_HEIGHT, NODE_WIDTH, Block, Picture, picture
from virtflow.replay.report.owners import owners, ribbon
from virtflow.replay.report.spans import SHOWN, STATES, History, Span, histories, problem
from virtflow.replay.report.values import Values

_ERROR = 300
"""Characters of an error in the list of events; the task's panel has more."""
_LETTERS = 19
"""That fit on a node."""


def view(recording: Recording, limit: int, other: Recording | None = None) -> dict[str, Any]:
    """The view model. ``limit``: characters at which texts are cut. ``other``: its XML can be compared with."""
    values = Values(limit)
    elsewhere = [] if other is None else documents(other, values, f"operation {other.operation.number}: ")
    return _View(recording, values, elsewhere).model()


@dataclass(frozen=True)
class _Task:
    flow: RecordedFlow
    name: str
    kind: str
    version: str | None


class _View:
    def __init__(self, recording: Recording, values: Values, elsewhere: Sequence[Mapping[str, Any]]) -> None:
        self.recording = recording
        self.values = values
        self.events = recording.events
        self.start = min([recording.operation.created_at, *(event.at for event in self.events)])
        self.flow_numbers = {flow.uuid: number for number, flow in enumerate(recording.flows)}
        self.tasks = [
            _Task(flow, name, kind, version) for flow in recording.flows for name, kind, version in _named(flow)
        ]
        self.task_numbers = {(task.flow.uuid, task.name): number for number, task in enumerate(self.tasks)}
        self.histories = histories(recording)
        self.failed = {(event.flow, event.sequence) for event in failures(recording)}
        self.documents = [*elsewhere, *documents(recording, values)]

    def model(self) -> dict[str, Any]:
        recording, operation = self.recording, self.recording.operation
        names = _Numbers()
        hosts = _Numbers()
        causing = causes(recording, self.task_numbers, self.values)
        over_it = first_cause(recording) is None
        gone = left_things(recording)
        plain_tasks = [self._task(number, hosts) for number in range(len(self.tasks))]
        rows = [self._event(event, names, hosts) for event in self.events]
        end = max((event.at for event in self.events), default=self.start) - self.start
        owned = owners(recording, self.events, self.start, hosts.number)
        order = self._order()
        return {
            "title": f"{operation.kind} {operation.target.partition(':')[2] or operation.target}",
            "operation": {"outcome": operation.outcome, "state": operation.state},
            "facts": facts(recording),
            "details": details(recording),
            "notes": notes(recording, self.values),
            "causes": causing,
            "left": left(recording, len(gone)),
            "request": self.values.add(operation.request),
            "start": self.start,
            "end": end,
            "opening": causing[0]["event"] + 1 if causing and not over_it else len(rows),
            "first": causing[0]["task"] if causing and not over_it else order[0] if order else 0,
            "overIt": over_it,
            "states": STATES,
            "eventStates": self._event_states(names),
            "flows": self._flows(),
            "tasks": plain_tasks,
            "edges": [[before, after, points] for before, after, points in self.picture.routes],
            "graph": self._graph(),
            "rows": self._rows(order),
            "order": order,
            "events": rows,
            "names": names.table,
            "hosts": hosts.table,
            "failures": [index for index, event in enumerate(self.events) if self._is_failure(event)],
            "owners": owned,
            "ribbon": ribbon(self.events, owned, hosts.number),
            "axis": self._axis(end),
            "ledger": self._ledger(gone),
            "documents": self.documents,
            "values": self.values.table,
        }

    # -- graph

    @cached_property
    def parents(self) -> dict[int, int]:
        """By segment, the task that ran it."""
        found = {}
        for number, flow in enumerate(self.recording.flows):
            name = parent_task(self.recording, flow)
            if name is not None:
                found[number] = self.task_numbers[self.recording.flows[0].uuid, name]
        return found

    @cached_property
    def picture(self) -> Picture:
        blocks = []
        for flow in self.recording.flows:
            nodes = [place for place, task in enumerate(self.tasks) if task.flow is flow]
            edges = [
                (self.task_numbers[flow.uuid, before], self.task_numbers[flow.uuid, after])
                for before, after in (flow.graph.edges or _chain(flow))
                if (flow.uuid, before) in self.task_numbers and (flow.uuid, after) in self.task_numbers
            ]
            children = {
                node: [child for child, parent in self.parents.items() if parent == node]
                for node in nodes
                if node in self.parents.values()
            }
            blocks.append(Block(nodes, edges, children))
        return picture(blocks, [number for number in range(len(blocks)) if number not in self.parents])

    def _graph(self) -> dict[str, Any]:
        size = {"width": round(self.picture.width), "height": round(self.picture.height)}
        return size | {"node": {"width": NODE_WIDTH, "height": NODE_HEIGHT}, "letters": _LETTERS}

    def _flows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": flow.kind,
                "uuid": flow.uuid,
                "host": (flow.events[-1].host if flow.events else None) or flow.host,
                "state": flow.state,
                "frame": vars(self.picture.frames[number]),
            }
            for number, flow in enumerate(self.recording.flows)
        ]

    def _order(self) -> list[int]:
        """The tasks as one reads them: from top to bottom, segments below the task that ran them."""
        places = self.picture.places
        return sorted(places, key=lambda node: (places[node][1], places[node][0]))

    def _rows(self, order: list[int]) -> list[dict[str, int]]:
        """The rows of the timeline: tasks, and the flow's name wherever another flow begins or goes on."""
        rows: list[dict[str, int]] = []
        flow = -1
        for node in order:
            mine = self.flow_numbers[self.tasks[node].flow.uuid]
            if mine != flow:
                rows.append({"flow": mine})
                flow = mine
            rows.append({"task": node})
        return rows

    # -- tasks

    def _task(self, number: int, hosts: _Numbers) -> dict[str, Any]:
        task = self.tasks[number]
        history = self.histories.get((task.flow.uuid, task.name), History())
        x, y = self.picture.places[number]
        node = task.flow.graph.by_name.get(task.name)
        spans = [self._span(number, span, hosts) for span in history.spans]
        return {
            "name": task.name,
            "flow": self.flow_numbers[task.flow.uuid],
            "kind": task.kind,
            "version": task.version,
            "x": x,
            "y": y,
            "requires": list(node.requires.values()) if node else [],
            "provides": list(node.provides) if node else [],
            "moments": [[index, STATES.index(state)] for index, state in history.moments],
            "spans": spans,
            "errors": " ".join(span["error"]["text"][:_ERROR] for span in spans if span["error"]),
            "things": self.things.get((task.flow.uuid, task.name), []),
        }

    @cached_property
    def things(self) -> dict[tuple[str, str], list[int]]:
        """By flow and task, the places of what it announced in the ledger."""
        found: dict[tuple[str, str], list[int]] = {}
        for place, entry in enumerate(self.recording.ledger):
            found.setdefault((entry.flow, entry.task), []).append(place)
        return found

    def _span(self, number: int, span: Span, hosts: _Numbers) -> dict[str, Any]:
        attempt, trouble = span.attempt, problem(span.attempt)
        error = trouble and {
            "kind": trouble.kind,
            "text": self.values.text(trouble.text),
            "trace": trouble.trace and self.values.text(trouble.trace),
        }
        return {
            "attempt": attempt.number,
            "undo": span.undo,
            "first": span.first,
            "last": span.last,
            "from": attempt.started_at - self.start,
            "to": None if attempt.finished_at is None else max(attempt.started_at, attempt.finished_at) - self.start,
            "state": span.state,
            "epoch": attempt.epoch,
            "host": hosts.number(attempt.host),
            "inputs": self._inputs(self.tasks[number].flow, span),
            "result": -1 if attempt.result is None else self.values.add(attempt.result),
            "error": error,
        }

    def _inputs(self, flow: RecordedFlow, span: Span) -> list[list[Any]]:
        """[argument, task that it came from or words for it, value or -1]"""
        rows: list[list[Any]] = []
        for found in inputs_of(flow, span.attempt):
            origin = None if found.task is None else self.task_numbers.get((flow.uuid, found.task))
            value = self.values.add(found.value) if found.known else -1
            rows.append([found.argument, found.source if origin is None else origin, value])
        return rows

    # -- events and time

    def _event(self, event: Event, names: _Numbers, hosts: _Numbers) -> list[Any]:
        task = -1 if event.atom is None else self.task_numbers.get((event.flow, event.atom), -1)
        row = [event.at - self.start, self.flow_numbers[event.flow], task, names.number(event.event)]
        row += [event.attempt, event.epoch, hosts.number(event.host), -1]
        return [*row, self.values.text(error_of(event), _ERROR)] if self._is_failure(event) else row

    def _is_failure(self, event: Event) -> bool:
        return (event.flow, event.sequence) in self.failed

    def _event_states(self, names: _Numbers) -> list[str]:
        return [SHOWN.get(name or "", "pending") for name in names.table]

    def _axis(self, end: int) -> dict[str, Any]:
        spans = [span for history in self.histories.values() for span in history.spans]
        busy = [
            (span.attempt.started_at - self.start, span.attempt.finished_at - self.start)
            for span in spans
            if span.attempt.finished_at is not None and span.state != "cut"
        ]
        found = axis(busy, end)
        return {"knots": found.knots, "gaps": found.gaps, "ticks": found.ticks}

    def _ledger(self, gone: set[int]) -> list[dict[str, Any]]:
        return [
            {
                "state": entry.state,
                "kind": entry.kind,
                "identity": self.values.text(entry.identity),
                "host": entry.host,
                "error": entry.error and self.values.text(entry.error),
                "task": self.task_numbers.get((entry.flow, entry.task), -1),
                "by": entry.task,
                "left": place in gone,
            }
            for place, entry in enumerate(self.recording.ledger)
        ]


class _Numbers:
    """Numbers for texts, in the order in which they come."""

    def __init__(self) -> None:
        self.table: list[str | None] = []
        self._places: dict[str | None, int] = {}

    def number(self, text: str | None) -> int:
        place = self._places.setdefault(text, len(self.table))
        if place == len(self.table):
            self.table.append(text)
        return place


def _named(flow: RecordedFlow) -> list[tuple[str, str, str | None]]:
    """The tasks of a flow: those of its graph, and others that it has atoms for."""
    known = {node.name: (node.name, node.kind, node.version) for node in flow.graph.nodes}
    for atom in flow.atoms:
        known.setdefault(atom.name, (atom.name, atom.kind, atom.version))
    return list(known.values())


def _chain(flow: RecordedFlow) -> list[tuple[str, str]]:
    """Where no graph was recorded, tasks in the order in which they stand."""
    if flow.graph.recorded:
        return []
    names = [name for name, _, _ in _named(flow)]
    return list(pairwise(names))
