"""What is known of an operation at one moment of its recording, and what today's code would do there.

Two things go side by side through the events: a record of what happened (recorded), and a rehearsal of each flow in
which TaskFlow's own selector and completer decide over an in-memory store (derived). Where they part, the rehearsal of
that flow ends with a ``Divergence``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from virtflow.engine.flow_driver import Templates
from virtflow.engine.taskflow_engine.rehearsal import Rehearsal
from virtflow.replay.graph_changes import Change, changes
from virtflow.replay.recording import Event, RecordedFlow, Recording

_ENDS = ("SUCCESS", "REVERTED")
_OF_TASKS = ("RUNNING", "SUCCESS", "FAILURE", "RETRYING", "REVERTING", "REVERTED", "REVERT_FAILURE", "PENDING")


@dataclass(frozen=True)
class Divergence:
    """Where today's code parts from the recording: at the event ``position`` (0: the first) of a flow."""

    position: int
    flow: str
    task: str | None
    what: str
    """renamed, removed, added, reordered, input missing, version changed, unknown flow, or decision."""
    detail: str

    def __str__(self) -> str:
        where = self.flow if self.task is None else f"{self.flow}/{self.task}"
        return f"{where}: {self.what}: {self.detail}"


@dataclass(frozen=True)
class TaskMoment:
    """A task at a moment, as recorded. Times in microseconds; ``since`` is when it came into its state."""

    flow: str
    name: str
    state: str = "PENDING"
    attempt: int = 0
    host: str | None = None
    since: int | None = None
    result: Any = None
    error: str | None = None

    def after(self, event: Event) -> TaskMoment:
        """The task once that has happened too."""
        data = event.data if isinstance(event.data, Mapping) else {}
        new = replace(self, attempt=max(self.attempt, event.attempt), host=event.host or self.host, since=event.at)
        if event.event in _OF_TASKS:
            new = replace(new, state=event.event)
        if event.event == "RUNNING":
            return replace(new, result=None, error=None)
        if event.event == "SUCCESS":
            return replace(new, result=data.get("result"))
        if "failure" in data:
            return replace(new, error=data["failure"].get("exception_str"))
        return replace(new, error=f"not reverted: {data['debt']}") if data.get("debt") else new


class Code:
    """Today's flows. ``services`` are the names of what tasks are given besides data."""

    def __init__(self, templates: Templates, services: Iterable[str]) -> None:
        self.templates = templates
        self.services = frozenset(services)

    @classmethod
    def installed(cls) -> Code:
        """The flows that this virtflow ships."""
        from virtflow.engine.services import Services
        from virtflow.flows.registry import default_registry

        nothing: Any = None
        return cls(Templates(default_registry()), {"segments", *Services(nothing, nothing)})

    def rehearse(self, flow: RecordedFlow) -> tuple[Rehearsal | None, tuple[Change, ...]]:
        """A rehearsal of the flow where there can be one, and how its graph has changed since it was recorded."""
        try:
            kind = self.templates.registry.get(flow.kind, flow.version)
            template = self.templates.get(kind, flow.inputs)
        except Exception as error:  # noqa: BLE001 - whatever today's flow says about yesterday's inputs is the finding
            return None, (Change("unknown flow", None, f"version {flow.version} cannot be built: {_line(error)}"),)
        services = self.services | _from_outside(flow)
        found = changes(flow.graph, template, frozenset(flow.inputs) | services)
        if any(change.what in ("renamed", "removed") for change in found):
            return None, found
        return Rehearsal(template, flow.inputs, services, forward_only=kind.forward_only), found


class Stage:
    """Goes through the events of a recording, one after the other."""

    def __init__(self, recording: Recording, code: Code) -> None:
        self.recording = recording
        self.flow_states: dict[str, str] = {}
        self.tasks: dict[tuple[str, str], TaskMoment] = {}
        self.divergences: list[Divergence] = []
        self._parted: set[str] = set()
        self._rehearsals: dict[str, Rehearsal] = {}
        self._changes: dict[str, tuple[Change, ...]] = {}
        for flow in recording.flows:
            rehearsal, self._changes[flow.uuid] = code.rehearse(flow)
            if rehearsal is None:
                self._parted.add(flow.uuid)
            else:
                self._rehearsals[flow.uuid] = rehearsal
            for atom in flow.atoms:
                self.tasks[flow.uuid, atom.name] = TaskMoment(flow.kind, atom.name)
        self._unbegun = {uuid: each.snapshot() for uuid, each in self._rehearsals.items()}

    def rehearsal(self, flow: str) -> Rehearsal | None:
        """Of a flow in which today's code has decided as recorded so far."""
        return None if flow in self._parted else self._rehearsals.get(flow)

    def apply(self, position: int, event: Event) -> None:
        """Let the event at that position happen."""
        flow = self.recording.by_uuid[event.flow]
        first = event.flow not in self.flow_states
        if event.atom is None:
            self.flow_states[event.flow] = event.event
        else:
            before = self.tasks.get((event.flow, event.atom)) or TaskMoment(flow.kind, event.atom)
            self.tasks[event.flow, event.atom] = before.after(event)
            self.flow_states.setdefault(event.flow, "RUNNING")
        if first:
            for change in self._changes[event.flow]:
                self.divergences.append(Divergence(position, flow.kind, change.task, change.what, change.detail))
        rehearsal = self.rehearsal(event.flow)
        if rehearsal is not None and not self._pays_a_debt(event):
            self._rehearse(rehearsal, position, event, flow)

    def _pays_a_debt(self, event: Event) -> bool:
        """A revert after the end of a flow is no decision of the flow: somebody has asked for it (retry-revert)."""
        return event.event in ("REVERTING", "REVERTED") and self.flow_states[event.flow] in (*_ENDS, "FAILURE")

    def _rehearse(self, rehearsal: Rehearsal, position: int, event: Event, flow: RecordedFlow) -> None:
        if event.atom is not None:
            retried = self._retried(event, rehearsal) if event.event == "FAILURE" else ()
            reason = rehearsal.follow(event.atom, event.event, event.data, retried=retried)
            if reason is not None:
                what = "input missing" if reason.startswith("it lacks an input") else "decision"
                self._part(position, flow, event.atom, what, f"recorded is {event.event}; today {reason}")
        elif event.event == "RUNNING":
            self._begin(rehearsal, event)
        elif event.event in _ENDS and (due := rehearsal.due()):
            does = ", ".join(f"{'run' if way == 'RUNNING' else 'revert'} {name}" for name, way in due)
            self._part(position, flow, due[0][0], "decision", f"recorded is the flow's end; today it would {does}")

    def _begin(self, rehearsal: Rehearsal, event: Event) -> None:
        """A process sets the flow going. That everything is to be taken back may have been asked for from outside."""
        data = event.data if isinstance(event.data, Mapping) else {}
        first = self._first_steps.get((event.flow, event.sequence))
        before = rehearsal.snapshot()
        if data.get("undoing"):
            rehearsal.undo()
        rehearsal.begin(self._retried(event, rehearsal))
        if first is not None and first.event == "REVERTING" and (first.atom, "REVERTING") not in rehearsal.due():
            rehearsal.restore(before)
            rehearsal.undo()
            rehearsal.begin()

    @cached_property
    def _first_steps(self) -> dict[tuple[str, int], Event]:
        """The first event of a task after each moment at which a flow was set going."""
        found = {}
        for flow in self.recording.flows:
            begun: Event | None = None
            for event in flow.events:
                if event.atom is None and event.event == "RUNNING":
                    begun = event
                elif event.atom is not None and begun is not None:
                    found[flow.uuid, begun.sequence] = event
                    begun = None
        return found

    def _retried(self, after: Event, rehearsal: Rehearsal) -> frozenset[str]:
        """The retries that, as recorded, decided to try again.

        One that did not has everything taken back, and nothing starts any more: where something does, it had decided
        to try again, even if a second failure beside the first has changed that before it could.
        """
        starts, by_retry = self._starts.get(after.flow, ([], {}))
        place = bisect_right(starts, after.sequence)
        goes_on = starts[place] if place < len(starts) else None
        found = set()
        for name, steps in by_retry.items():
            coming = next((step for step in steps if step[0] > after.sequence), None)
            tries_again = coming is not None and coming[1] == "RETRYING"
            first = goes_on is not None and (coming is None or goes_on < coming[0])
            if tries_again or (first and not rehearsal.is_nested(name)):
                found.add(name)
        return frozenset(found)

    @cached_property
    def _starts(self) -> dict[str, tuple[list[int], dict[str, list[tuple[int, str]]]]]:
        """By flow: where something was run, and by retry where it tried again or was reverted."""
        found: dict[str, tuple[list[int], dict[str, list[tuple[int, str]]]]] = {}
        for flow in self.recording.flows:
            retries: dict[str, list[tuple[int, str]]] = {n.name: [] for n in flow.graph.nodes if n.kind == "retry"}
            for event in flow.events if retries else ():
                if event.atom in retries and event.event in ("RETRYING", "REVERTING"):
                    retries[event.atom].append((event.sequence, event.event))
            runs = [e.sequence for e in flow.events if e.atom is not None and e.event == "RUNNING"] if retries else []
            found[flow.uuid] = runs, retries
        return found

    def _part(self, position: int, flow: RecordedFlow, task: str, what: str, detail: str) -> None:
        self._parted.add(flow.uuid)
        self.divergences.append(Divergence(position, flow.kind, task, what, detail))

    # -- time travel

    def snapshot(self) -> Any:
        rehearsals = {uuid: each.snapshot() for uuid, each in self._rehearsals.items() if uuid in self.flow_states}
        return dict(self.flow_states), dict(self.tasks), list(self.divergences), set(self._parted), rehearsals

    def restore(self, snapshot: Any) -> None:
        states, tasks, divergences, parted, rehearsals = snapshot
        self.flow_states, self.tasks, self.divergences = dict(states), dict(tasks), list(divergences)
        self._parted = set(parted)
        for uuid, rehearsal in self._rehearsals.items():
            rehearsal.restore(rehearsals.get(uuid) or self._unbegun[uuid])


def _from_outside(flow: RecordedFlow) -> frozenset[str]:
    """What recorded tasks were given that neither a task nor an input provides: services of that time."""
    if not flow.graph.recorded:
        return frozenset()
    provided = {name for node in flow.graph.nodes for name in node.provides}
    wanted = {name for node in flow.graph.nodes for name in (*node.requires.values(), *node.revert_requires.values())}
    return frozenset(wanted - provided - set(flow.inputs))


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
