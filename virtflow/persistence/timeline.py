"""What the tasks of an operation did, read from atoms and journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.models.base import isoformat, now
from virtflow.persistence.models.engine import atoms, flows, journal

_ASIDE = ("HELD", "SKIPPED", "KEPT", "REMADE")
"""Events that tell of a decision about a task; its state is in others."""


@dataclass(frozen=True)
class TaskRecord:
    """One task of one flow. ``started_at`` in microseconds since the epoch, ``duration_ms`` of both directions."""

    name: str
    flow: str
    host: str | None
    state: str
    attempts: int
    started_at: int | None
    duration_ms: float | None
    progress: float | None
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("name", "flow", "host", "state", "attempts")}
        plain["started_at"] = isoformat(self.started_at)
        return plain | {"duration_ms": self.duration_ms, "progress": self.progress, "error": self.error}


@dataclass
class _Lane:
    attempts: int = 0
    host: str | None = None
    started: int | None = None
    open_since: int | None = None
    spent: int = 0
    error: str | None = None


def task_records(database: Database, operation: str) -> list[TaskRecord]:
    """All tasks, in the order in which they first started; those that never did come last."""
    atom_query = (
        sa.select(atoms.c.name, atoms.c.state, atoms.c.meta, atoms.c.flow, flows.c.name.label("flow_name"))
        .join(flows, flows.c.uuid == atoms.c.flow)
        .where(flows.c.logbook == operation)
        .order_by(flows.c.created_at, atoms.c.position)
    )
    event_query = (
        sa.select(journal.c.flow, journal.c.atom, journal.c.event, journal.c.at, journal.c.host, journal.c.data)
        .join(flows, flows.c.uuid == journal.c.flow)
        .where(flows.c.logbook == operation, journal.c.atom.is_not(None))
        .order_by(journal.c.at, journal.c.sequence)
    )
    lanes: dict[tuple[str, str], _Lane] = {}
    with database.connect() as connection:
        rows = connection.execute(atom_query).all()
        for event in connection.execute(event_query):
            _follow(lanes.setdefault((event.flow, event.atom), _Lane()), event)
    records = [_record(row, lanes.get((row.flow, row.name), _Lane())) for row in rows]
    return sorted(records, key=lambda record: record.started_at or now())


def _follow(lane: _Lane, event: Any) -> None:
    lane.host = event.host
    if event.event in _ASIDE:
        return
    if event.event in ("RUNNING", "REVERTING"):
        lane.attempts += event.event == "RUNNING"
        lane.started = lane.started or event.at
        lane.open_since = event.at
        return
    if lane.open_since is not None:
        lane.spent += event.at - lane.open_since
        lane.open_since = None
    if event.data:
        failure = event.data.get("failure")
        if failure is not None and lane.error is None:
            lane.error = failure["exception_str"]
        if "debt" in event.data and event.event == "REVERTED":
            lane.error = f"not reverted: {event.data['debt']}"


def _record(row: Any, lane: _Lane) -> TaskRecord:
    spent = lane.spent + (now() - lane.open_since if lane.open_since is not None else 0)
    progress = (row.meta or {}).get("progress")
    return TaskRecord(
        name=row.name,
        flow=row.flow_name,
        host=lane.host,
        state=row.state or "PENDING",
        attempts=lane.attempts,
        started_at=lane.started,
        duration_ms=round(spent / 1000, 3) if lane.started is not None else None,
        progress=1.0 if row.state == "SUCCESS" else progress,
        error=lane.error,
    )
