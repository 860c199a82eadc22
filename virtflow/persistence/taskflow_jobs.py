"""Jobs that are posted through TaskFlow's own interface: the same table, each with a payload, claimed by uuid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.job_news import news_of
from virtflow.persistence.job_statements import CHANNEL, claimable, database_time
from virtflow.persistence.models.base import now
from virtflow.persistence.models.jobs import entities, jobs
from virtflow.persistence.posting import CLAIMED, PARKED, PRIORITIES, READY


@dataclass(frozen=True)
class TaskflowRow:
    """A job as it was seen. ``state`` is what it is now: an expired lease is no claim. Times in microseconds."""

    uuid: str
    state: str
    priority: str
    payload: Mapping[str, Any]
    owner: str | None
    claim: int
    attempts: int
    created_at: int
    claimed_at: int | None
    expires_in: int | None
    error: str | None


class TaskflowJobs:
    """The jobs of one topic. Every method is one transaction and raises DatabaseError."""

    def __init__(self, database: Database, topic: str) -> None:
        self._database = database
        self._topic = topic
        self._news = news_of(database)
        self._time = database_time(database)
        self._here = jobs.c.topic == topic, jobs.c.payload.is_not(None)

    def add(self, uuid: str, priority: str, payload: Mapping[str, Any]) -> None:
        """Post it."""
        rank = PRIORITIES.index(priority)
        row: dict[str, Any] = {
            "name": uuid,
            "topic": self._topic,
            "payload": dict(payload),
            "state": READY,
            "priority": rank,
        }
        row |= {"place": rank, "created_at": now(), "claim": self._time, "attempts": 0, "again": 0}
        with self._database.transaction() as connection:
            connection.execute(sa.insert(jobs).inline().values(**row))
            self._notify(connection)
        self._news.tell(self._topic)

    def rows(self, *states: str) -> list[TaskflowRow]:
        """Most urgent first, then oldest."""
        order = jobs.c.priority, jobs.c.created_at, jobs.c.id
        query = self._select().where(*self._here).order_by(*order)
        with self._database.connect() as connection:
            rows = [_row(row) for row in connection.execute(query)]
        return [row for row in rows if row.state in states]

    def get(self, uuid: str) -> TaskflowRow | None:
        """None when it is not on the board (any more)."""
        with self._database.connect() as connection:
            row = connection.execute(self._select().where(*self._here, jobs.c.name == uuid)).first()
        return None if row is None else _row(row)

    def count(self) -> int:
        """Of jobs that are not parked."""
        query = sa.select(sa.func.count()).select_from(jobs).where(*self._here, jobs.c.state != PARKED)
        with self._database.connect() as connection:
            return connection.execute(query).scalar() or 0

    def claim(self, row: TaskflowRow, owner: str, lease_seconds: float) -> bool:
        """False when somebody else was faster."""
        values: dict[str, Any] = {"state": CLAIMED, "place": None, "owner": owner, "claimed_at": self._time}
        values |= {"due_at": self._in(lease_seconds), "attempts": jobs.c.attempts + 1, "claim": row.claim + 1}
        free = sa.or_(jobs.c.place >= 0, jobs.c.due_at <= self._time)
        return self._change(row, values, free, tell=False)

    def extend(self, uuid: str, claim: int, lease_seconds: float) -> bool:
        """False when that claim holds it no more."""
        with self._database.transaction() as connection:
            mine = jobs.c.name == uuid, jobs.c.claim == claim, jobs.c.state == CLAIMED
            update = sa.update(jobs).where(*self._here, *mine).values(due_at=self._in(lease_seconds))
            return bool(connection.execute(update).rowcount)

    def remove(self, row: TaskflowRow) -> bool:
        """It is done. As with all below: False when it is not as it was seen."""
        with self._database.transaction() as connection:
            gone = connection.execute(sa.delete(jobs).where(*self._here, *_as_seen(row))).rowcount
            self._notify(connection)
        self._news.tell(self._topic)
        return bool(gone)

    def give_back(self, row: TaskflowRow) -> bool:
        """Claimable again, the attempt not counted."""
        return self._change(row, {**claimable(), "attempts": jobs.c.attempts - 1})

    def park(self, row: TaskflowRow, error: str) -> bool:
        """Nobody claims it any more, and it stays visible."""
        return self._change(row, {**claimable(), "state": PARKED, "place": None, "error": error})

    def register(self, kind: str, name: str, details: Mapping[str, Any]) -> None:
        """Remember who uses the board; the last registration of a name stays."""
        key = {"topic": self._topic, "kind": kind, "name": name}
        same = [entities.c[column] == value for column, value in key.items()]
        with self._database.transaction() as connection:
            connection.execute(sa.delete(entities).where(*same))
            connection.execute(sa.insert(entities).values(**key, details=dict(details), registered_at=now()))

    def entities(self) -> list[Mapping[str, Any]]:
        """What was registered, oldest first."""
        query = sa.select(entities.c.kind, entities.c.name, entities.c.details)
        query = query.where(entities.c.topic == self._topic).order_by(entities.c.registered_at)
        with self._database.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def _change(self, row: TaskflowRow, values: Mapping[str, Any], *also: Any, tell: bool = True) -> bool:
        with self._database.transaction() as connection:
            update = sa.update(jobs).where(*self._here, *_as_seen(row), *also).values(**values)
            changed = bool(connection.execute(update).rowcount)
            if changed and tell:
                self._notify(connection)
        if changed and tell:
            self._news.tell(self._topic)
        return changed

    def _notify(self, connection: sa.Connection) -> None:
        if self._database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, self._topic)))

    def _select(self) -> sa.Select[Any]:
        return sa.select(jobs, (jobs.c.due_at - self._time).label("expires_in"))

    def _in(self, seconds: float) -> sa.ColumnElement[int]:
        return self._time + sa.literal(int(seconds * 1e6), sa.BigInteger())


def _as_seen(row: TaskflowRow) -> list[sa.ColumnElement[bool]]:
    """The same claim, or nobody's since."""
    return [jobs.c.name == row.uuid, jobs.c.claim == row.claim]


def _row(row: Any) -> TaskflowRow:
    expired = row.state == CLAIMED and row.expires_in <= 0
    return TaskflowRow(
        uuid=row.name,
        state=READY if expired else row.state,
        priority=PRIORITIES[row.priority],
        payload=row.payload,
        owner=None if expired else row.owner,
        claim=row.claim,
        attempts=row.attempts,
        created_at=row.created_at,
        claimed_at=row.claimed_at,
        expires_in=row.expires_in if row.state == CLAIMED else None,
        error=row.error,
    )
