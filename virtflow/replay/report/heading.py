"""What the page says above everything: what it was, how it ended, what went wrong first, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from virtflow.replay.history import codes, error_of, failures, first_cause
from virtflow.replay.recording import Event, Recording
from virtflow.replay.report.values import Values

_CAUSES = 50
_REMAINS = {"PRESENT", "INTENDED", "DEBT"}


def facts(recording: Recording) -> list[str]:
    operation = recording.operation
    tasks = sum(len(flow.atoms) for flow in recording.flows)
    known: list[str] = [f"operation {operation.number}", operation.target, f"project {operation.project}"]
    if operation.started_at is not None:
        known.append(str(_utc(operation.started_at)))
        if operation.finished_at is not None:
            known.append(_length(operation.finished_at - operation.started_at))
    return [*known, f"{tasks} tasks in {len(recording.flows)} flow{'s' if len(recording.flows) != 1 else ''}"]


def details(recording: Recording) -> list[tuple[str, str | None]]:
    operation = recording.operation
    code = codes(recording)
    return [
        ("Id", operation.id),
        ("Kind", f"{operation.kind}, version {operation.version}"),
        ("Target", operation.target),
        ("Project", operation.project),
        ("State", operation.state),
        ("Outcome", operation.outcome),
        ("Error", operation.error),
        ("Asked to stop", "yes" if operation.cancel_requested else None),
        ("Created", _utc(operation.created_at)),
        ("Started", _utc(operation.started_at)),
        ("Finished", _utc(operation.finished_at)),
        ("Run by", f"virtflow {', '.join(code)}" if code else None),
        *((f"Its {other.relation}", _other(other)) for other in recording.related[:20]),
    ]


def notes(recording: Recording, values: Values) -> list[str]:
    """What the reader has to know of the report itself."""
    said = [f"virtflow {recording.virtflow_version}, read {_utc(recording.exported_at)}. Times are UTC."]
    if recording.redacted:
        said.append("Secrets are masked.")
    if not all(flow.graph.recorded for flow in recording.flows):
        said.append("The graph of a flow was not recorded: its tasks are shown in their order.")
    if values.cut:
        said.append("Long texts are cut; the export has them whole.")
    return said


def causes(recording: Recording, task_numbers: Mapping[tuple[str, str], int], values: Values) -> list[dict[str, Any]]:
    """All failures in the order in which they happened, but that from which the others follow first."""
    numbers = {(event.flow, event.sequence): number for number, event in enumerate(recording.events)}
    first = first_cause(recording)
    found = [event for event in failures(recording) if (event.flow, event.atom) in task_numbers]
    found.sort(key=lambda event: event is not first)
    return [
        {
            "task": task_numbers[event.flow, event.atom or ""],
            "event": numbers[event.flow, event.sequence],
            "undo": event.event != "FAILURE",
            "context": _context(event),
            "text": values.text(error_of(event), 600),
        }
        for event in found[:_CAUSES]
    ]


def _context(event: Event) -> str:
    what = "failed" if event.event == "FAILURE" else "could not be undone"
    attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"{what}{attempt}{f' on {event.host}' if event.host else ''}"


def left_things(recording: Recording) -> set[int]:
    """The ledger's entries, by place, of what should not be there: all that remains of an operation that was undone."""
    undone = recording.operation.outcome not in (None, "SUCCESS", "FAILED_FORWARD")
    remaining = _REMAINS if undone else {"DEBT"}
    return {place for place, entry in enumerate(recording.ledger) if entry.state in remaining}


def left(recording: Recording, count: int) -> str | None:
    """One sentence; None while it is not over."""
    outcome = recording.operation.outcome
    if outcome is None:
        return None
    if count:
        return f"{count} thing{'s' if count != 1 else ''} left behind"
    return "Nothing is left behind" if outcome not in ("SUCCESS", "FAILED_FORWARD") else None


def _other(other: Any) -> str:
    return f"operation {other.number}, {other.kind} {other.target}, {other.outcome or other.state}"


def _length(microseconds: int) -> str:
    """A duration as a person would say it."""
    seconds = microseconds / 1e6
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _utc(at: int | None) -> str | None:
    if at is None:
        return None
    try:
        return f"{datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"at {at} µs"
