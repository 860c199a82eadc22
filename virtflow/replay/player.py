"""A debugger's tape over a recording: any moment of it, forwards and backwards, the undo half included.

A moment is the number of events that have happened. Going somewhere restores the nearest checkpoint and lets at most
``CHECKPOINT`` events happen again, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from virtflow.errors import InvalidRequest, NotFound
from virtflow.replay.expressions import Expression
from virtflow.replay.player_stage import Code, Divergence, Stage, TaskMoment
from virtflow.replay.recording import Event, RecordedAtom, RecordedFlow, Recording

CHECKPOINT = 200
"""Events between two checkpoints."""
_STATES = frozenset(
    ("RUNNING", "SUCCESS", "FAILURE", "RETRYING", "REVERTING", "REVERTED", "REVERT_FAILURE", "PENDING", "SKIPPED")
)
_STARTS = ("RUNNING", "REVERTING", "RETRYING")


@dataclass(frozen=True)
class Breakpoint:
    """Where ``continue`` stops: at events of a task, into a state, at a position, or when an expression is true."""

    number: int
    task: tuple[str, str] | None = None
    """Flow and name."""
    event: str | None = None
    position: int | None = None
    expression: Expression | None = None

    def meets(self, position: int, event: Event) -> bool:
        """Whether it is met by that event, as far as the event alone tells."""
        if self.position is not None:
            return position == self.position
        if self.task is not None and (event.flow, event.atom) != self.task:
            return False
        if self.event is not None:
            return event.event == self.event and (event.atom is not None or self.event not in _STATES)
        return self.task is not None and event.event in _STARTS

    def __str__(self) -> str:
        if self.expression is not None:
            return f"if {self.expression}"
        if self.position is not None:
            return f"event {self.position}"
        return " ".join(filter(None, (self.task[1] if self.task else None, self.event)))


class Player:
    """Plays one recording. ``position`` events have happened; ``divergences`` are all of the recording."""

    def __init__(self, recording: Recording, code: Code | None = None) -> None:
        self.recording = recording
        self.events = recording.events
        self.applied = 0
        """How many events were let happen in all, for those who watch the cost."""
        self.breakpoints: dict[int, Breakpoint] = {}
        self.watches: dict[int, Expression] = {}
        self._numbers = 0
        self._stage = Stage(recording, code or Code.installed())
        self._checkpoints = [self._stage.snapshot()]
        self.position = 0
        for _event in self.events:
            self._apply()
            if self.position % CHECKPOINT == 0:
                self._checkpoints.append(self._stage.snapshot())
        self.divergences: tuple[Divergence, ...] = tuple(self._stage.divergences)
        self.goto(0)

    # -- where it is

    @property
    def event(self) -> Event | None:
        """The last event that has happened."""
        return self.events[self.position - 1] if self.position else None

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def tasks(self) -> list[TaskMoment]:
        """All tasks at this moment, flow by flow (recorded)."""
        return list(self._stage.tasks.values())

    @property
    def parted(self) -> list[Divergence]:
        """Where today's code has parted from the recording up to this moment."""
        return list(self._stage.divergences)

    def due(self) -> list[tuple[str, str, str]]:
        """What today's code would start now: (flow, task, RUNNING or REVERTING). Derived."""
        found = []
        for flow in self.recording.flows:
            rehearsal = self._stage.rehearsal(flow.uuid)
            if rehearsal is None or self._stage.flow_states.get(flow.uuid) != "RUNNING":
                continue
            found += [(flow.kind, name, way) for name, way in rehearsal.due()]
        return found

    def task(self, reference: str) -> tuple[RecordedFlow, RecordedAtom, TaskMoment]:
        """A task by name, or FLOW/NAME, as it is at this moment. NotFound."""
        flow, atom = self.recording.find_task(reference)
        return flow, atom, self._stage.tasks[flow.uuid, atom.name]

    def arguments(self, reference: str) -> Mapping[str, Any]:
        """What a task was last called with, services as stand-ins. Derived; empty once the flow has diverged."""
        flow, atom = self.recording.find_task(reference)
        rehearsal = self._stage.rehearsal(flow.uuid)
        return {} if rehearsal is None else rehearsal.arguments(atom.name)

    def names(self) -> dict[str, Any]:
        """What expressions may name: tasks, inputs, what tasks have provided by now, and ``event``. Recorded."""
        found: dict[str, Any] = {}
        for flow in self.recording.flows:
            if flow.uuid in self._stage.flow_states:
                found |= flow.inputs
                found |= self._provided(flow)
        for moment in self._stage.tasks.values():
            if moment.attempt or moment.name not in found:
                found[moment.name] = vars(moment)
        event = self.event
        found["event"] = None if event is None else {"task": event.atom, **{n: getattr(event, n) for n in _TOLD}}
        found["position"] = self.position
        return found

    def value(self, expression: str) -> Any:
        """What an expression is at this moment. InvalidRequest where it is none."""
        return Expression(expression).value(self.names())

    def _provided(self, flow: RecordedFlow) -> dict[str, Any]:
        found = {}
        for node in flow.graph.nodes:
            moment = self._stage.tasks[flow.uuid, node.name]
            if moment.state == "SUCCESS":
                for name, index in node.provides.items():
                    found[name] = _item(moment.result, index)
        return found

    # -- going somewhere

    def goto(self, position: int) -> None:
        """To the moment when so many events have happened; beyond either end is the end."""
        wanted = max(0, min(position, len(self.events)))
        nearest = wanted // CHECKPOINT
        if not nearest * CHECKPOINT <= self.position <= wanted:
            self._stage.restore(self._checkpoints[nearest])
            self.position = nearest * CHECKPOINT
        while self.position < wanted:
            self._apply()

    def step(self, count: int = 1) -> None:
        """Let ``count`` more events happen."""
        self.goto(self.position + count)

    def back(self, count: int = 1) -> None:
        self.goto(self.position - count)

    def next(self) -> None:
        """To the next event of the flow that is at work: over a segment, not through it."""
        event = self.event
        flow = self.recording.flows[0].uuid if event is None and self.recording.flows else event and event.flow
        for position in range(self.position + 1, len(self.events) + 1):
            found = self.events[position - 1]
            if found.flow == flow and found.atom is not None:
                return self.goto(position)
        return self.step(len(self.events))

    def goto_task(self, reference: str, event: str | None = None) -> None:
        """To the first time when a task started, or came into a state. NotFound, also where it never did."""
        self.goto(self._place_of(reference, event, 0))

    def until(self, reference: str, event: str | None = None) -> None:
        """On to the next time when a task starts, or comes into a state. NotFound where it never does any more."""
        self.goto(self._place_of(reference, event, self.position))

    def until_true(self, expression: str) -> bool:
        """On until an expression is true; False at the end."""
        wanted = Expression(expression)
        while self.position < len(self.events):
            self._apply()
            if wanted.value(self.names()):
                return True
        return False

    def _place_of(self, reference: str, event: str | None, after: int) -> int:
        probe = Breakpoint(0, task=self._identity(reference), event=event and _state(event))
        for position in range(after + 1, len(self.events) + 1):
            if probe.meets(position, self.events[position - 1]):
                return position
        raise NotFound(kind="event", name=f"{reference} {event}" if event else f"{reference} started")

    def _identity(self, reference: str) -> tuple[str, str]:
        flow, atom = self.recording.find_task(reference)
        return flow.uuid, atom.name

    # -- breakpoints and watches

    def break_at(self, task: str | None = None, event: str | None = None, position: int | None = None) -> Breakpoint:
        """Stop when a task starts or comes into a state, when any task comes into a state, or at a position."""
        place = None if task is None else self._identity(task)
        return self._add(Breakpoint(self._number(), place, event and _state(event), position))

    def break_if(self, expression: str) -> Breakpoint:
        """Stop when an expression has become true."""
        return self._add(Breakpoint(self._number(), expression=Expression(expression)))

    def watch(self, expression: str) -> int:
        """Stop when the value of an expression has changed; the number of the watch."""
        wanted = Expression(expression)
        self.watches[self._number()] = wanted
        return self._numbers

    def remove(self, number: int) -> bool:
        """Remove a breakpoint or a watch; False when there is none of that number."""
        return (self.breakpoints.pop(number, None) or self.watches.pop(number, None)) is not None

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _add(self, new: Breakpoint) -> Breakpoint:
        self.breakpoints[new.number] = new
        return new

    def run(self) -> str:
        """On to the next breakpoint or change of a watch; why it stopped there."""
        watched = self._watched()
        while self.position < len(self.events):
            held = self._held()
            self._apply()
            if (reason := self._stops(held) or self._changed(watched)) is not None:
                return reason
        return "the end"

    def run_back(self) -> str:
        """Back to the last breakpoint or change of a watch before this moment; why it stopped there."""
        here = self.position
        for checkpoint in range(max(0, here - 1) // CHECKPOINT, -1, -1):
            found: tuple[int, str] | None = None
            self.goto(checkpoint * CHECKPOINT)
            upto = min((checkpoint + 1) * CHECKPOINT, here)
            # A change at `upto` itself belongs to the next stretch, or is where we came from; its cause is seen here.
            watched = self._watched()
            while self.position < upto:
                held = self._held()
                self._apply()
                reason = self._stops(held) if self.position < here else None
                changed = self._changed(watched)
                watched = self._watched()
                if reason is None and changed is not None and self.position < here:
                    reason = changed
                if reason is not None:
                    found = self.position, reason
            if found is not None:
                self.goto(found[0])
                return found[1]
        self.goto(0)
        return "the start"

    def _stops(self, held: set[int]) -> str | None:
        event = self.event
        assert event is not None
        for number, each in self.breakpoints.items():
            if each.expression is None and each.meets(self.position, event):
                return f"breakpoint {number}: {each}"
        now_held = self._held() - held
        return f"breakpoint {min(now_held)}: {self.breakpoints[min(now_held)]}" if now_held else None

    def _held(self) -> set[int]:
        """The breakpoints whose expression is true."""
        conditions = {n: each.expression for n, each in self.breakpoints.items() if each.expression is not None}
        if not conditions:
            return set()
        names = self.names()
        return {number for number, expression in conditions.items() if expression.value(names)}

    def _watched(self) -> dict[int, Any]:
        if not self.watches:
            return {}
        names = self.names()
        return {number: expression.value(names) for number, expression in self.watches.items()}

    def watched(self) -> Iterator[tuple[int, str, Any]]:
        """Each watch with its value."""
        for number, value in self._watched().items():
            yield number, self.watches[number].text, value

    def _changed(self, before: dict[int, Any]) -> str | None:
        for number, value in self._watched().items():
            if value != before.get(number):
                return f"watch {number}: {self.watches[number]} was {before.get(number)!r}, is {value!r}"
        return None

    def _apply(self) -> None:
        self._stage.apply(self.position, self.events[self.position])
        self.position += 1
        self.applied += 1


_TOLD = ("event", "flow", "at", "attempt", "host", "epoch")


def _state(text: str) -> str:
    if text.upper() not in _STATES:
        raise InvalidRequest(field=f"state {text!r}", reason=f"must be one of {', '.join(sorted(_STATES))}")
    return text.upper()


def _item(result: Any, index: int | str | None) -> Any:
    if index is None:
        return result
    try:
        return result[index]
    except (LookupError, TypeError):
        return None
