"""Segments that another process runs than the parent flow: asking for them, claiming them, and their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from virtflow.errors import Busy, NotFound
from virtflow.persistence.claim import LEASE, Claim, holds
from virtflow.persistence.database import Database
from virtflow.persistence.job_news import news_of
from virtflow.persistence.job_statements import notify_statement
from virtflow.persistence.models.base import encode
from virtflow.persistence.models.engine import claims, journal
from virtflow.persistence.models.segments import segments
from virtflow.persistence.posting import answer_topic
from virtflow.persistence.recorder import Recorder
from virtflow.persistence.writer import Batch, Writer, fence_statement

RUN = "RUN"
UNDO = "UNDO"

REQUESTED = "REQUESTED"
RUNNING = "RUNNING"
DONE = "DONE"
FAILED = "FAILED"
"""It failed, and what it had made is gone, but for ``debts`` things."""
UNDONE = "UNDONE"
ENDED = (DONE, FAILED, UNDONE)
UNANSWERED = (REQUESTED, RUNNING)

_SHORT = 2_000_000
"""Microseconds. Of the end of what took longer PostgreSQL is not asked to tell: it wakes every worker that there is for
each word, and whoever waits looks often enough for that to make no difference."""


@dataclass(frozen=True)
class Segment:
    """One segment as its parent asked for it. Times in microseconds since the epoch."""

    id: str
    operation: str
    kind: str
    host: str
    verb: str
    state: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    error: str | None
    retry_elsewhere: bool
    debts: int
    created_at: int
    updated_at: int
    owner: str | None = None
    epoch: int = 0
    """Of the last claim; 0 when nobody has claimed it yet."""
    running: bool = False
    """Whether somebody who lives is at work on it."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def to_dict(self) -> dict[str, Any]:
        names = ("id", "kind", "host", "verb", "state", "error", "debts", "running")
        return {name: getattr(self, name) for name in names}


class SegmentStatements:
    """What a parent asks and what a host answers, compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        self._clock = writer.database.clock
        self._news = news_of(writer.database)
        self._notify = notify_statement(writer.database)
        self._fence = fence_statement(writer)
        its = segments.c.id == sa.bindparam("its_id")
        columns = list(segments.columns)
        given = [
            sa.bindparam(f"new_{column.name}", type_=sa.Text() if column.name == "inputs" else column.type)
            for column in columns
        ]
        there: Any = sa.select(sa.literal_column("1")).select_from(segments).where(its)
        self._add = writer.compile(
            sa.insert(segments).from_select([c.name for c in columns], sa.select(*given).where(~there.exists()))
        )
        self._ask = writer.compile(
            sa.update(segments)
            .where(its)
            .values(verb=sa.bindparam("new_verb"), state=sa.bindparam("new_state"), updated_at=sa.bindparam("at"))
        )
        self._supersede = writer.compile(
            sa.update(claims)
            .where(claims.c.subject == sa.bindparam("its_id"))
            .values(epoch=claims.c.epoch + sa.literal_column("1"), owner=sa.null())
        )
        self._answer = writer.compile(
            sa.update(segments)
            .where(its)
            .values(
                state=sa.bindparam("new_state"),
                outputs=sa.bindparam("new_outputs", type_=sa.Text),
                error=sa.bindparam("new_error"),
                retry_elsewhere=sa.bindparam("new_elsewhere"),
                debts=sa.bindparam("new_debts"),
                updated_at=sa.bindparam("at"),
            )
        )
        self._release = writer.compile(sa.update(claims).where(claims.c.subject == its.right).values(owner=sa.null()))

    def request(
        self, parent: Claim, identity: str, kind: str, host: str, verb: str, inputs: Mapping[str, Any]
    ) -> Batch:
        """Ask a host to run or to undo a segment. Whoever is at work on it loses it: his next write is refused.

        The whole batch is refused unless ``parent`` still holds.
        """
        at = self._clock.now()
        row = (identity, parent.subject, kind, host, verb, REQUESTED, encode(dict(inputs)), None, None, True, 0, at, at)
        return [
            (self._fence, (parent.epoch, at, parent.subject)),
            (self._add, (*row, identity)),
            (self._ask, (verb, REQUESTED, at, identity)),
            (self._supersede, (identity,)),
        ]

    def supersede(self, parent: Claim, identity: str) -> Batch:
        """Take the segment from whoever is at work on it, without asking for anything."""
        return [(self._fence, (parent.epoch, self._clock.now(), parent.subject)), (self._supersede, (identity,))]

    def answer(
        self,
        recorder: Recorder,
        segment: Segment,
        state: str,
        *,
        outputs: Mapping[str, Any] | None = None,
        error: str | None = None,
        retry_elsewhere: bool = True,
        debts: int = 0,
    ) -> None:
        """Record the verdict, or that the segment was put down, in the recorder's next commit; its claim is free.

        ``segment`` is as it was asked for.
        """
        plain, at = None if outputs is None else encode(dict(outputs)), self._clock.now()
        recorder.also(self._answer, (state, plain, error, retry_elsewhere, debts, at, segment.id))
        recorder.also(self._release, (segment.id,))
        if state in ENDED:
            if self._notify is not None and at - segment.updated_at < _SHORT:
                recorder.also(self._notify, (answer_topic(segment.id),))
            recorder.after_commit(self._news.tell, answer_topic(segment.id))


class SegmentRepository:
    """Reading segments, and claiming them."""

    def __init__(self, database: Database, *, lease: float = LEASE) -> None:
        self._database = database
        self._lease = lease

    def find(self, identity: str) -> Segment | None:
        with self._database.connect() as connection:
            row = connection.execute(_of_id(), {"its_id": identity}).first()
        return None if row is None else self._segment(row)

    def get(self, identity: str) -> Segment:
        """Raises NotFound."""
        found = self.find(identity)
        if found is None:
            raise NotFound(kind="segment", name=identity)
        return found

    def of_operation(self, operation: str) -> list[Segment]:
        return self.list(segments.c.operation == operation)

    def waiting(self, host: str) -> list[Segment]:
        """What a host was asked for and has not answered, oldest first; undoing comes first."""
        found = self.list(segments.c.host == host, segments.c.state.in_(UNANSWERED))
        return sorted(found, key=lambda segment: (segment.verb != UNDO, segment.created_at))

    def unanswered(self) -> list[Segment]:
        return self.list(segments.c.state.in_(UNANSWERED))

    def ended(self, identities: Iterable[str]) -> set[str]:
        """Which of these have a verdict."""
        query = sa.select(segments.c.id).where(segments.c.id.in_(list(identities)), segments.c.state.in_(ENDED))
        with self._database.connect() as connection:
            return set(connection.execute(query).scalars())

    def list(self, *conditions: sa.ColumnElement[bool]) -> list[Segment]:
        """In the order in which they were asked for."""
        query = _segments().where(*conditions).order_by(segments.c.created_at, segments.c.id)
        with self._database.connect() as connection:
            return [self._segment(row) for row in connection.execute(query)]

    def claim(self, segment: Segment, owner: str) -> Claim:
        """Take a segment on, as it was seen. Busy when somebody else was quicker, or is at work on it and lives."""
        busy = Busy(target=f"segment:{segment.id}", operation=segment.operation, operation_kind=segment.kind)
        if segment.running and segment.owner != owner:
            raise busy
        moment = self._database.clock.now()
        seen = {"its_id": segment.id, "seen_verb": segment.verb, "seen_state": segment.state, "moment": moment}
        with self._database.transaction() as connection:
            if segment.ended or connection.execute(_taking(), seen).rowcount == 0:
                raise busy
            row = {"epoch": segment.epoch + 1, "owner": owner, "touched_at": moment}
            if segment.epoch == 0:
                try:
                    connection.execute(sa.insert(claims), {"subject": segment.id, **row})
                except sa.exc.IntegrityError:
                    raise busy from None
            else:
                same = claims.c.subject == segment.id, claims.c.epoch == segment.epoch
                if connection.execute(sa.update(claims).where(*same).values(**row)).rowcount == 0:
                    raise busy
        return Claim(segment.id, segment.epoch + 1)

    def started(self, identity: str, tasks: Iterable[str]) -> bool:
        """Whether one of these tasks of the segment has ever begun."""
        query = sa.select(journal.c.sequence).where(
            journal.c.flow == identity, journal.c.event == "RUNNING", journal.c.atom.in_(list(tasks))
        )
        with self._database.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def _segment(self, row: Any) -> Segment:
        values = dict(row._mapping)
        touched_at = values.pop("touched_at")
        return Segment(**values, running=holds(values["owner"], touched_at, self._lease, self._database.clock.now()))


@cache
def _segments() -> sa.Select[Any]:
    """With who is at work on them. This and what follows is put together once, as it is sent often."""
    epoch = sa.func.coalesce(claims.c.epoch, 0).label("epoch")
    query = sa.select(segments, claims.c.owner, epoch, claims.c.touched_at)
    return query.outerjoin(claims, claims.c.subject == segments.c.id)


@cache
def _of_id() -> sa.Select[Any]:
    return _segments().where(segments.c.id == sa.bindparam("its_id"))


@cache
def _taking() -> sa.Update:
    seen = segments.c.verb == sa.bindparam("seen_verb"), segments.c.state == sa.bindparam("seen_state")
    taking = sa.update(segments).where(segments.c.id == sa.bindparam("its_id"), *seen)
    return taking.values(state=RUNNING, updated_at=sa.bindparam("moment"))
