"""Jobs in the database: posted, claimed under a lease, finished, given back, parked. The SQL job board stands on this.

Claiming the first job of a topic reads one entry of an index, however many wait. Where databases let transactions run
side by side, rows that another claimer has locked are skipped; on SQLite there is one writer at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from virtflow.errors import DatabaseError, InvalidJob
from virtflow.persistence.database import Database
from virtflow.persistence.job_news import news_of
from virtflow.persistence.job_statements import CHANNEL, JobStatements, claimable, database_time
from virtflow.persistence.models.jobs import jobs
from virtflow.persistence.posting import CLAIMED, PARKED, PRIORITIES, READY, JobRecord, Posting, parse_details
from virtflow.persistence.writer import Writer

_DUE_AT_ONCE = 200
"""How many expired leases and delays one claim puts back in line."""

_DUE_EVERY = 1.0
"""Seconds after which expired ones are put back in line even though there is something else to claim."""

_KEPT = 2
"""Connections that nobody else gets on PostgreSQL."""

_NO_SYNC: sa.ColumnElement[str] = sa.literal_column("set_config('synchronous_commit', 'off', true)").label("no_sync")
"""Returned by a statement on PostgreSQL: its commit does not wait for the disk."""

_POISON = "claimed {attempts} times without being finished"
_SILENT = "its worker was not heard of before the lease ran out"


@dataclass(frozen=True)
class Look:
    """Whether there is something to claim, and otherwise in how many seconds something comes due by itself."""

    claimable: bool
    due_in: float | None


class JobRepository:
    """The table of jobs. Every method is one transaction of its own and raises DatabaseError.

    A claim that would exceed ``max_attempts`` parks the job instead.
    """

    def __init__(self, database: Database, writer: Writer, *, max_attempts: int = 5) -> None:
        """``writer`` is what postings go through: they share their commits with whatever else it writes."""
        self.database = database
        self.news = news_of(database)
        self._max_attempts = max_attempts
        self._writer = writer
        self._time = database_time(database)
        self._statements = JobStatements(self._writer)
        self._also_returned = [_NO_SYNC] if database.dialect == "postgresql" else []
        self._idle: deque[sa.Connection] = deque()
        self._closed = False
        self._looked_for_due = 0.0
        self._looks: dict[tuple[str, ...], sa.Select[Any]] = {}

    def close(self) -> None:
        """Give the connections back; one that is in use, when it is used no more."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while (kept := self._kept()) is not None:
            kept.close()

    # -- posting

    def post(self, posting: Posting) -> str:
        """Durable when it returns; the job's name."""
        self._writer.write(self._statements.post(posting))
        self.news.tell(posting.topic)
        return posting.name

    # -- claiming

    def claim(self, topics: Sequence[str], owner: str, lease_seconds: float) -> JobRecord | None:
        """The first job of these topics: most urgent, then oldest."""
        if self.database.dialect == "sqlite" and not self.look(topics).claimable:
            return None  # without taking the write lock
        with self._unsynced() as connection:
            if time.monotonic() - self._looked_for_due > _DUE_EVERY:
                self._put_back_due(connection)
            record = self._claim_first(connection, topics, owner, lease_seconds)
            if record is None and self._put_back_due(connection):
                record = self._claim_first(connection, topics, owner, lease_seconds)
        return record

    def look(self, topics: Sequence[str]) -> Look:
        """What claiming would find. One query, of which each part reads one entry of an index."""
        query = self._looks.get(tuple(topics))
        if query is None:
            query = self._looks[tuple(topics)] = self._looking(topics)
        kept = self.database.dialect == "postgresql"
        with self._unsynced() if kept else self.database.connect() as connection:
            there, left = connection.execute(query).one()
        if there:
            return Look(True, None)
        return Look(left is not None and left <= 0, None if left is None else max(left, 0) / 1e6)

    def _looking(self, topics: Sequence[str]) -> sa.Select[Any]:
        """Put together once: who waits for jobs looks often."""
        first = (self._line(topic).with_only_columns(sa.literal_column("1")).limit(1).exists() for topic in topics)
        due = sa.select(sa.func.min(jobs.c.due_at)).scalar_subquery()
        return sa.select(sa.or_(*first), due - self._time)

    def extend(self, job: JobRecord, lease_seconds: float) -> bool:
        """False when that claim holds it no more."""
        return self._change(job, {"due_at": self._in(lease_seconds)})

    def finish(self, job: JobRecord) -> bool:
        """Remove it, or put it back in line where it was posted meanwhile."""
        with self._unsynced() as connection:
            mine = _held(job)
            if self._run(connection, sa.delete(jobs).where(*mine, jobs.c.again == 0)):
                return True
            restored = {**claimable(), "attempts": 0, "error": None}
            if not self._run(connection, sa.update(jobs).where(*mine).values(**restored)):
                return False
            self._notify(connection, job.topic)
        self.news.tell(job.topic)
        return True

    def give_back(self, job: JobRecord, delay: float = 0.0, error: str | None = None) -> bool:
        """Claimable again ``delay`` seconds from now, at once where it was posted meanwhile.

        Without an error the attempt is not counted; with one, and no attempts left, it is parked.
        """
        if error is not None and job.attempts >= self._max_attempts:
            return self.park(job, error)
        # Where it was posted meanwhile, there is news: no delay.
        due = sa.case((jobs.c.again == 1, sa.null()), else_=self._in(delay)) if delay > 0 else None
        if error is None:
            values = {**claimable(due), "attempts": jobs.c.attempts - 1}
        else:
            values = {**claimable(due), "error": error}
        return self._change(job, values, tell=True)

    def park(self, job: JobRecord, error: str) -> bool:
        """Nobody claims it before it is unparked."""
        return self._change(job, _parked(error))

    # -- by an operator

    def set_aside(self, name: str, error: str) -> bool:
        """Park one that waits. False: there is none of that name, or somebody has claimed it."""
        waiting = jobs.c.name == name, jobs.c.state == READY, jobs.c.payload.is_(None)
        with self.database.transaction() as connection:
            return bool(connection.execute(sa.update(jobs).where(*waiting).values(**_parked(error))).rowcount)

    def unpark(self, name: str) -> bool:
        """False: there is no parked job of that name."""
        return self._restore(name, PARKED, {"attempts": 0, "error": None})

    def release(self, name: str) -> bool:
        """False: nobody has claimed a job of that name. Its owner finds out when it next extends."""
        return self._restore(name, CLAIMED, {})

    # -- reading

    def get(self, name: str) -> JobRecord | None:
        with self.database.connect() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.name == name, jobs.c.payload.is_(None))).first()
        return None if row is None else _record(row)

    def jobs(self, topic: str | None = None, limit: int = 1000) -> list[JobRecord]:
        """In the order in which they would be claimed; parked ones last."""
        order = sa.case((jobs.c.state == PARKED, 1), else_=0), jobs.c.priority, jobs.c.created_at, jobs.c.id
        query = sa.select(jobs).where(jobs.c.payload.is_(None)).order_by(*order).limit(limit)
        if topic is not None:
            query = query.where(jobs.c.topic == topic)
        with self.database.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    # -- inside

    def _claim_first(
        self, connection: sa.Connection, topics: Sequence[str], owner: str, lease_seconds: float
    ) -> JobRecord | None:
        for topic in self._by_urgency(connection, topics):
            while (row := self._take(connection, topic, owner, lease_seconds)) is not None:
                reason = self._refusal(row)
                if reason is None:
                    return _record(row)
                park = sa.update(jobs).where(jobs.c.id == row.id, jobs.c.claim == row.claim).values(**_parked(reason))
                connection.execute(park.values(attempts=jobs.c.attempts - 1))
        return None

    def _by_urgency(self, connection: sa.Connection, topics: Sequence[str]) -> Sequence[str]:
        """The topics that have something to claim, the one with the most urgent job first."""
        if len(topics) == 1:
            return topics
        columns = jobs.c.place, jobs.c.created_at, jobs.c.id
        heads = {
            topic: connection.execute(self._line(topic).with_only_columns(*columns).limit(1)).first()
            for topic in topics
        }
        return sorted((t for t, head in heads.items() if head is not None), key=lambda topic: tuple(heads[topic] or ()))

    def _take(self, connection: sa.Connection, topic: str, owner: str, lease_seconds: float) -> Any:
        """The first job of the topic, now claimed; None when there is none that nobody else is about to take."""
        values = {"claimant": owner, "lease": _microseconds(lease_seconds)}
        if self.database.dialect == "mysql":  # which has no RETURNING of updates
            found = connection.execute(self._first, {"wanted": topic}).scalar()
            if found is None:
                return None
            connection.execute(self._claim, values | {"found": found})
            return connection.execute(sa.select(jobs).where(jobs.c.id == found)).one()
        return connection.execute(self._claim, values | {"wanted": topic}).first()

    @cached_property
    def _first(self) -> sa.Select[Any]:
        """The first job of the topic ``wanted``, of those that nobody else is about to take."""
        first = self._line(sa.bindparam("wanted", type_=jobs.c.topic.type)).limit(1)
        return first if self.database.dialect == "sqlite" else first.with_for_update(skip_locked=True)

    @cached_property
    def _claim(self) -> Any:
        """Put together once, as it is sent often: ``claimant`` has the first job for ``lease`` microseconds."""
        values = {
            "state": CLAIMED,
            "place": None,
            "owner": sa.bindparam("claimant", type_=jobs.c.owner.type),
            "attempts": jobs.c.attempts + 1,
            "claim": jobs.c.claim + 1,
            "again": 0,
            "claimed_at": self._time,
            "due_at": self._time + sa.bindparam("lease", type_=sa.BigInteger()),
        }
        if self.database.dialect == "mysql":
            return sa.update(jobs).where(jobs.c.id == sa.bindparam("found")).values(**values)
        claim = sa.update(jobs).where(jobs.c.id == self._first.scalar_subquery()).values(**values)
        return claim.returning(*jobs.columns, *self._also_returned)

    @cached_property
    def _due(self) -> sa.Select[Any]:
        due = sa.select(jobs.c.id).where(jobs.c.due_at <= self._time).order_by(jobs.c.due_at).limit(_DUE_AT_ONCE)
        return due if self.database.dialect == "sqlite" else due.with_for_update(skip_locked=True)

    def _put_back_due(self, connection: sa.Connection) -> bool:
        """Let others claim what has an expired lease or has waited its delay; whether there was any."""
        self._looked_for_due = time.monotonic()
        found = connection.execute(self._due).scalars().all()
        if found:
            error = sa.case((jobs.c.state == CLAIMED, _SILENT), else_=jobs.c.error)
            # MariaDB assigns from left to right: the error is made of the state as it was.
            still = jobs.c.id.in_(found), jobs.c.due_at <= self._time
            connection.execute(sa.update(jobs).where(*still).ordered_values(("error", error), *claimable().items()))
        return bool(found)

    def _refusal(self, row: Any) -> str | None:
        """Why a job that was just claimed is not to be run, if it is not."""
        if row.attempts > self._max_attempts:
            last = f": {row.error}" if row.error else ""
            return _POISON.format(attempts=row.attempts - 1) + last
        try:
            parse_details({"operation": row.operation, "segment": row.segment}, row.name)
        except InvalidJob as error:
            return str(error)
        return None

    def _change(self, job: JobRecord, values: Mapping[str, Any], *, tell: bool = False) -> bool:
        with self._unsynced() as connection:
            changed = self._run(connection, sa.update(jobs).where(*_held(job)).values(**values))
            if changed and tell:
                self._notify(connection, job.topic)
        if changed and tell:
            self.news.tell(job.topic)
        return bool(changed)

    @contextmanager
    def _unsynced(self) -> Iterator[sa.Connection]:
        """For what may be forgotten by a crash of the database: the job is claimed, or found finished, once more.

        Each end stands in the database, durably, before its job is finished. On PostgreSQL each statement is a
        transaction of its own, on a connection that is kept: one round trip, where others take one more to ask whether
        the connection lives, one to begin and one to commit.
        """
        if self.database.dialect != "postgresql":
            with self.database.transaction(durable=False) as connection:
                yield connection
            return
        try:
            kept = self._kept() or self._connect()
            try:
                yield kept
            except BaseException:
                kept.invalidate()
                kept.close()
                raise
            if len(self._idle) < _KEPT:
                self._idle.append(kept)
            else:
                kept.close()
            if self._closed:
                self._close_idle()
        except sa.exc.DBAPIError as error:
            self._close_idle()  # the others are as old
            raise DatabaseError(url=self.database.url, reason=str(error.orig).partition("\n")[0]) from error

    def _kept(self) -> sa.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> sa.Connection:
        return self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _run(self, connection: sa.Connection, statement: sa.Update | sa.Delete) -> int:
        """How many rows it changed."""
        if self._also_returned:
            return len(connection.execute(statement.returning(*self._also_returned)).all())
        return connection.execute(statement).rowcount

    def _restore(self, name: str, state: str, values: Mapping[str, Any]) -> bool:
        condition = jobs.c.name == name, jobs.c.state == state, jobs.c.payload.is_(None)
        with self.database.transaction() as connection:
            topic = connection.execute(sa.select(jobs.c.topic).where(*condition)).scalar()
            changed = connection.execute(sa.update(jobs).where(*condition).values(**claimable(), **values)).rowcount
            if changed and topic is not None:
                self._notify(connection, topic)
        if changed:
            self.news.tell(topic)
        return bool(changed)

    def _notify(self, connection: sa.Connection, topic: str) -> None:
        if self.database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, topic)))

    def _line(self, topic: str | sa.BindParameter[Any]) -> sa.Select[tuple[int]]:
        """Ids of the jobs of a topic that can be claimed, in order."""
        line = sa.select(jobs.c.id).where(jobs.c.topic == topic, jobs.c.place >= 0)
        return line.order_by(jobs.c.place, jobs.c.created_at, jobs.c.id)

    def _in(self, seconds: float) -> sa.ColumnElement[int]:
        return self._time + sa.literal(_microseconds(seconds), sa.BigInteger())


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)


def _held(job: JobRecord) -> list[sa.ColumnElement[bool]]:
    """The row as long as that claim holds it."""
    values = (job.name, job.owner, job.claim, CLAIMED)
    return [column == value for column, value in zip(_HELD, values, strict=True)]


_HELD = (jobs.c.name, jobs.c.owner, jobs.c.claim, jobs.c.state)


def _parked(error: str) -> dict[str, Any]:
    return {**claimable(), "state": PARKED, "place": None, "error": error}


def _record(row: Any) -> JobRecord:
    claimed = row.state == CLAIMED
    return JobRecord(
        id=row.name,
        name=row.name,
        topic=row.topic,
        operation=row.operation,
        segment=row.segment,
        state=row.state,
        owner=row.owner,
        attempts=row.attempts,
        created_at=row.created_at,
        claimed_at=row.claimed_at,
        expires_at=row.due_at if claimed else None,
        priority=PRIORITIES[min(max(row.priority, 0), len(PRIORITIES) - 1)],
        error=row.error,
        claim=row.claim,
        not_before=row.due_at if row.state == READY else None,
    )
