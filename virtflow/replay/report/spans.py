"""From attempts and journal to what the page draws: by number of event, when a task was in which state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtflow.replay.history import DEBT, INTERRUPTED, REVERTING, RUNNING, UNDO, Attempt, attempts, error_of
from virtflow.replay.recording import Event, RecordedFlow, Recording

STATES = ("pending", "running", "done", "failed", "undoing", "undone", "debt", "cut", "skipped")
"""As the page shows them. Debt: its revert failed. Cut: its process was gone before it ended."""

SHOWN = {
    "PENDING": "pending",
    RUNNING: "running",
    "SUCCESS": "done",
    "FAILURE": "failed",
    REVERTING: "undoing",
    "REVERTED": "undone",
    "REVERT_FAILURE": "debt",
    "RETRYING": "running",
    "IGNORE": "skipped",
    "SUSPENDED": "cut",
    "CANCEL_ASKED": "undoing",
}
"""The page's word for an event."""

_ENDED = SHOWN | {"RETRYING": "done", DEBT: "debt", INTERRUPTED: "cut"}


@dataclass(frozen=True)
class Span:
    """An attempt; ``first`` and ``last`` number the events with which it began and was over. None: it was not."""

    attempt: Attempt
    first: int
    last: int | None
    state: str

    @property
    def undo(self) -> bool:
        return self.attempt.direction == UNDO


@dataclass
class History:
    """Of one task. ``moments``: (event, state from then on)."""

    spans: list[Span] = field(default_factory=list)
    moments: list[tuple[int, str]] = field(default_factory=list)


def histories(recording: Recording) -> dict[tuple[str, str], History]:
    """By flow and atom."""
    numbers = {(event.flow, event.sequence): number for number, event in enumerate(recording.events)}
    found: dict[tuple[str, str], History] = {}
    for flow in recording.flows:
        for event in flow.events:
            if event.atom is not None and event.event in SHOWN:
                history = found.setdefault((flow.uuid, event.atom), History())
                history.moments.append((numbers[flow.uuid, event.sequence], _state(event)))
        for attempt in attempts(flow):
            history = found[flow.uuid, attempt.task]
            span = _span(flow, attempt, numbers)
            history.spans.append(span)
            if span.state == "cut" and span.last is not None:
                history.moments.append((span.last, "cut"))
    for history in found.values():
        history.moments.sort(key=lambda moment: moment[0])
    return found


def _span(flow: RecordedFlow, attempt: Attempt, numbers: Mapping[tuple[str, int], int]) -> Span:
    over = attempt.ended
    if attempt.state == INTERRUPTED:
        later = (e for e in flow.events_of(None) if e.event == RUNNING and e.sequence > attempt.began.sequence)
        over = next(later, None)
    last = None if over is None else numbers[flow.uuid, over.sequence]
    return Span(attempt, numbers[flow.uuid, attempt.began.sequence], last, _ENDED.get(attempt.state, "pending"))


def _state(event: Event) -> str:
    return "debt" if event.event == "REVERTED" and error_of(event) else SHOWN[event.event]


@dataclass(frozen=True)
class Problem:
    """What went wrong: ``kind`` is the exception's class where it is known."""

    text: str
    kind: str | None = None
    trace: str | None = None


def problem(attempt: Attempt) -> Problem | None:
    """What an attempt tells of its failure."""
    if attempt.error is None:
        return None
    failure = attempt.failure or {}
    kinds = failure.get("exc_type_names") or ()
    kind = str(kinds[0]).rpartition(".")[2] if kinds else "Not undone" if attempt.state == DEBT else None
    return Problem(attempt.error, kind, str(failure["traceback_str"]) if failure.get("traceback_str") else None)
