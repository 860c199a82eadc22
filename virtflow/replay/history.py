"""What a recording tells about its tasks, worked out from the journal: attempts in both directions, owners, causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from virtflow.replay.recording import Event, RecordedFlow, Recording

DO = "do"
UNDO = "undo"
RUNNING = "RUNNING"
REVERTING = "REVERTING"
INTERRUPTED = "INTERRUPTED"
"""An attempt that never ended: its process died, and another one took over."""
DEBT = "DEBT"
"""A revert that would not succeed: what it should have taken back is still there."""

SKIPPED = "SKIPPED"
REMARKS = frozenset({SKIPPED, "KEPT", "REMADE", "HELD"})
"""Events that are no states: what somebody decided about a task of an operation that was stepped or forked."""

_BEGINS = {RUNNING: DO, REVERTING: UNDO, SKIPPED: DO}
_ENDS = ("SUCCESS", "FAILURE", "REVERTED", "REVERT_FAILURE", "RETRYING")


@dataclass(frozen=True)
class Attempt:
    """One execute (``do``) or one revert (``undo``) of a task or retry. ``ended`` is None while it runs.

    ``state``: RUNNING, SUCCESS, FAILURE, REVERTING, REVERTED, DEBT or INTERRUPTED. ``finished_at`` of the last is when
    somebody took over.
    """

    flow: str
    task: str
    direction: Literal["do", "undo"]
    number: int
    state: str
    began: Event
    ended: Event | None
    finished_at: int | None
    remark: str | None = None
    """What somebody decided: that its result was kept from another operation, or given by hand."""

    @property
    def started_at(self) -> int:
        return self.began.at

    @property
    def host(self) -> str | None:
        return self.began.host

    @property
    def epoch(self) -> int:
        return self.began.epoch

    @property
    def duration(self) -> int | None:
        """Microseconds; None while it runs. Clocks may be set back: never negative."""
        return None if self.finished_at is None else max(0, self.finished_at - self.started_at)

    @property
    def result(self) -> Any:
        """What an execute that succeeded returned."""
        return _data(self.ended).get("result") if self.state == "SUCCESS" else None

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """exception_str, exc_type_names, traceback_str, causes: of an execute that failed."""
        failure = _data(self.ended).get("failure")
        return failure if isinstance(failure, Mapping) else None

    @property
    def error(self) -> str | None:
        """Why it failed, or why the revert left a debt, in one text."""
        if self.state == DEBT:
            return str(_data(self.ended).get("debt") or "not reverted")
        return None if self.failure is None else str(self.failure.get("exception_str", ""))


@dataclass(frozen=True)
class Ownership:
    """One process running one flow, from its first event to its last. Code and pid are None when not recorded."""

    flow: str
    epoch: int
    host: str | None
    since: int
    until: int
    events: int
    code: str | None
    pid: int | None
    undoing: bool
    cancelled: bool


def attempts(flow: RecordedFlow, task: str | None = None) -> tuple[Attempt, ...]:
    """The attempts of a flow's atoms, or of one of them, in the order in which they began."""
    events = flow.events if task is None else flow.events_of(task)
    takeovers = [event for event in flow.events_of(None) if event.event == RUNNING]
    found: list[Attempt] = []
    current: dict[str, Event] = {}
    remarks: dict[str, str] = {}
    for event in events:
        if event.atom is None:
            continue
        began = current.get(event.atom)
        if event.event in REMARKS:
            remarks[event.atom] = _remark(event)
        if event.event in _BEGINS:
            if began is not None:
                found.append(_attempt(began, None, takeovers, None))
            current[event.atom] = event
        elif event.event in _ENDS and began is not None:
            found.append(_attempt(began, event, takeovers, remarks.pop(event.atom, None)))
            del current[event.atom]
    found += [_attempt(began, None, takeovers, remarks.get(name)) for name, began in current.items()]
    return tuple(sorted(found, key=lambda attempt: attempt.began.sequence))


def _remark(event: Event) -> str:
    data = _data(event)
    return {
        SKIPPED: "skipped: its result was given by hand",
        "KEPT": f"kept from operation {str(data.get('from'))[:8]}",
        "REMADE": f"made again, not kept from operation {str(data.get('from'))[:8]}: {data.get('reason')}",
        "HELD": f"held after a failure: {data.get('decision')}",
    }[event.event]


def _attempt(began: Event, ended: Event | None, takeovers: list[Event], remark: str | None) -> Attempt:
    finished_at = None if ended is None else ended.at
    if ended is None:
        state = began.event
        taken = next((event for event in takeovers if event.sequence > began.sequence), None)
        if taken is not None:
            state, finished_at = INTERRUPTED, taken.at
    else:
        state = DEBT if ended.event == "REVERT_FAILURE" or _data(ended).get("debt") is not None else ended.event
    assert began.atom is not None
    direction: Literal["do", "undo"] = "undo" if began.event == REVERTING else "do"
    return Attempt(began.flow, began.atom, direction, began.attempt, state, began, ended, finished_at, remark)


def ownerships(flow: RecordedFlow) -> tuple[Ownership, ...]:
    """Who ran the flow, one after the other: a new epoch, or a new process of the same, is a new owner."""
    found: list[list[Event]] = []
    for event in flow.events:
        begins = event.atom is None and event.event == RUNNING
        if not found or event.epoch != found[-1][0].epoch or event.host != found[-1][0].host or begins:
            found.append([])
        found[-1].append(event)
    return tuple(_ownership(events) for events in found)


def _ownership(events: list[Event]) -> Ownership:
    first = events[0]
    about = _data(first)
    return Ownership(
        flow=first.flow,
        epoch=first.epoch,
        host=first.host,
        since=first.at,
        until=max(event.at for event in events),
        events=len(events),
        code=about.get("code"),
        pid=about.get("pid"),
        undoing=bool(about.get("undoing")),
        cancelled=bool(about.get("cancelled")),
    )


def failures(recording: Recording) -> tuple[Event, ...]:
    """Every failed execute and every debt, in the order in which they happened."""
    return tuple(event for event in recording.events if event.atom is not None and _failed(event))


def first_cause(recording: Recording) -> Event | None:
    """The failure from which everything else follows; None where there is none, or where the operation got over it.

    What a retry got over is not the cause: then it is the first failure after the last retry began anew.
    """
    found = [event for event in failures(recording) if event.event == "FAILURE"]
    if not found or recording.operation.outcome == "SUCCESS":
        return None
    retried = [event.at for event in recording.events if event.event == "RETRYING"]
    last = max(retried, default=0)
    return next((event for event in found if event.at > last), found[0])


def error_of(event: Event) -> str:
    """What a failure or debt says, in one text."""
    data = _data(event)
    failure = data.get("failure")
    if isinstance(failure, Mapping):
        return str(failure.get("exception_str", ""))
    return str(data.get("debt", ""))


def parent_task(recording: Recording, segment: RecordedFlow) -> str | None:
    """The task of the parent flow during which a segment began: it is the one that ran it. None when unknown."""
    if not recording.flows or segment is recording.flows[0] or not segment.events:
        return None
    parent, began = recording.flows[0], segment.events[0].at
    around = [
        attempt
        for attempt in attempts(parent)
        if attempt.direction == DO
        and attempt.started_at <= began <= (attempt.finished_at or began)
        and parent.by_name[attempt.task].kind == "task"
    ]
    return around[-1].task if around else None


def states_at(events: Iterable[Event]) -> dict[tuple[str, str | None], str]:
    """The state of every atom and flow (None) after these events, by (flow, atom); who is not in it is PENDING."""
    told = (event for event in events if event.event not in REMARKS and event.event != "CANCEL_ASKED")
    return {(event.flow, event.atom): _state(event) for event in told}


def codes(recording: Recording) -> tuple[str, ...]:
    """The versions of virtflow that ran it, in order."""
    found = (owner.code for flow in recording.flows for owner in ownerships(flow))
    return tuple(dict.fromkeys(code for code in found if code))


def busy_time(found: Iterable[Attempt]) -> int:
    """Microseconds spent in attempts that have ended."""
    return sum(attempt.duration or 0 for attempt in found)


def _state(event: Event) -> str:
    return DEBT if event.event == "REVERTED" and _data(event).get("debt") is not None else event.event


def _failed(event: Event) -> bool:
    return event.event in ("FAILURE", "REVERT_FAILURE") or _state(event) == DEBT


def _data(event: Event | None) -> Mapping[str, Any]:
    data = None if event is None else event.data
    return data if isinstance(data, Mapping) else {}


def each_flow(recording: Recording) -> Iterator[tuple[RecordedFlow, tuple[Attempt, ...]]]:
    """Every flow with its attempts."""
    for flow in recording.flows:
        yield flow, attempts(flow)
