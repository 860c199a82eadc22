"""The statements of the SQL job board that write, and what differs between the databases.

A time is always the database's own: a host whose clock is wrong neither loses its leases nor holds them for ever.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from virtflow.persistence.database import Database
from virtflow.persistence.job_news import news_of
from virtflow.persistence.models.jobs import jobs
from virtflow.persistence.posting import CLAIMED, PRIORITIES, READY, JobRecord, Posting
from virtflow.persistence.recorder import Recorder
from virtflow.persistence.writer import Batch, Statement, Writer

CHANNEL = "virtflow_jobs"
"""PostgreSQL's channel; what is sent is the topic."""

_MICROSECONDS = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
}
_INSERTED = ("name", "topic", "operation", "segment", "priority", "place", "created_at")


def database_time(database: Database) -> sa.ColumnElement[int]:
    """The database's clock, in microseconds since the epoch."""
    return sa.literal_column(_MICROSECONDS[database.dialect], sa.BigInteger())


class JobStatements:
    """What joins other commits, compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        self.database = writer.database
        self._add = writer.compile(_upsert(writer.database))
        self._remove = writer.compile(_held(sa.delete(jobs)).where(jobs.c.again == sa.literal_column("0")))
        self._restore = writer.compile(
            _held(sa.update(jobs))
            .where(jobs.c.again == sa.literal_column("1"))
            .values(**claimable(), attempts=sa.literal_column("0"), error=sa.null())
        )
        self._notify = notify_statement(writer.database)

    def post(self, posting: Posting) -> Batch:
        """Put a job on the board. Twice is once; see ``Board.post``."""
        rank = PRIORITIES.index(posting.priority)
        row = (posting.name, posting.topic, posting.operation, posting.segment, rank, rank, posting.created_at)
        return [(self._add, row), *self.notify(posting.topic)]

    def finish(self, job: JobRecord) -> Batch:
        """Take a claimed job off the board; nothing when it is not held by that claim any more."""
        held = (job.name, job.owner, job.claim)
        return [(self._remove, held), (self._restore, held), *self.notify(job.topic)]

    def notify(self, topic: str) -> Batch:
        """Wake who waits on other connections, where the database can."""
        return [] if self._notify is None else [(self._notify, (topic,))]


def notify_statement(database: Database) -> Statement | None:
    """Tells a topic to other connections; None where the database cannot."""
    if database.dialect != "postgresql":
        return None
    return Statement(f"SELECT pg_notify('{CHANNEL}', $1)", ("topic",))


def record_posting(recorder: Recorder, statements: JobStatements, posting: Posting) -> None:
    """Post in the recorder's next commit: the job is there if, and only if, what makes it necessary is."""
    _record(recorder, statements, statements.post(posting), posting.topic)


def record_finish(recorder: Recorder, statements: JobStatements, job: JobRecord) -> None:
    """Finish a job in the recorder's next commit."""
    _record(recorder, statements, statements.finish(job), job.topic)


def claimable(delay: Any = None) -> dict[str, Any]:
    """Column values of a job that can be claimed, at once or from ``delay`` (a time) on. Without bound parameters."""
    place = jobs.c.priority if delay is None else sa.case((delay.is_(sa.null()), jobs.c.priority), else_=sa.null())
    return {
        "state": _literal(READY),
        "place": place,
        "due_at": sa.null() if delay is None else delay,
        "owner": sa.null(),
        "claimed_at": sa.null(),
        "again": sa.literal_column("0"),
    }


def _record(recorder: Recorder, statements: JobStatements, batch: Batch, topic: str) -> None:
    for statement, values in batch:
        recorder.also(statement, values)
    recorder.after_commit(news_of(statements.database).tell, topic)


def _held(statement: Any) -> Any:
    """Only the row that this claim still holds."""
    return statement.where(
        jobs.c.name == sa.bindparam("held_name"),
        jobs.c.owner == sa.bindparam("held_owner"),
        jobs.c.claim == sa.bindparam("held_claim"),
        jobs.c.state == _literal(CLAIMED),
    )


def _upsert(database: Database) -> Any:
    """Insert; a job of that name that is there already hears that there is news."""
    row: dict[str, Any] = {name: sa.bindparam(f"new_{name}", type_=jobs.c[name].type) for name in _INSERTED}
    row |= {"state": _literal(READY), "attempts": sa.literal_column("0"), "again": sa.literal_column("0")}
    row |= {"claim": database_time(database)}
    ready, working = jobs.c.state == _literal(READY), jobs.c.state == _literal(CLAIMED)
    news = {
        "again": sa.case((working, sa.literal_column("1")), else_=jobs.c.again),
        "place": sa.case((ready, jobs.c.priority), else_=jobs.c.place),
        "due_at": sa.case((ready, sa.null()), else_=jobs.c.due_at),
    }
    if database.dialect == "mysql":
        return mysql.insert(jobs).values(row).on_duplicate_key_update(news)
    insert: Any = postgresql.insert(jobs) if database.dialect == "postgresql" else sqlite.insert(jobs)
    return insert.values(row).on_conflict_do_update(index_elements=[jobs.c.name], set_=news).inline()


def _literal(text: str) -> sa.ColumnElement[str]:
    """A constant that is part of the statement's text: compiled statements carry no values of their own."""
    return sa.literal_column(f"'{text}'", sa.String())
