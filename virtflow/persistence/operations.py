"""Operations: creating them, claiming them, and reading what they did. Nothing here needs TaskFlow."""

from __future__ import annotations

import time
import uuid as uuid_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import sqlalchemy as sa

from virtflow.errors import AlreadyExists, Busy, NotFound
from virtflow.persistence.claim import LEASE, Claim, holds
from virtflow.persistence.creation import CreationStatements, creation
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import isoformat, now
from virtflow.persistence.models.engine import atoms, claims, flows, journal, ledger, operations, targets
from virtflow.persistence.timeline import TaskRecord, task_records
from virtflow.persistence.writer import Writer

QUEUED = "QUEUED"
"""It waits for its target, which another operation holds."""
ACCEPTED = "ACCEPTED"
RUNNING = "RUNNING"
UNDOING = "UNDOING"
HELD = "HELD"
"""Left on the way by somebody who stepped through it: it waits for a person, and no worker goes on with it."""
FINISHED = "FINISHED"

SUCCESS = "SUCCESS"
REVERTED = "REVERTED"
REVERTED_WITH_DEBT = "REVERTED_WITH_DEBT"
FAILED_FORWARD = "FAILED_FORWARD"
CANCELLED = "CANCELLED"
UNDONE = "UNDONE"
"""A finished operation that was undone on request: everything it had made is gone."""

_ID_LENGTH = 36

PURGES = ("purge", "volume-purge", "live-migrate-clean", "evacuate-clean")
"""Kinds that follow on another operation and only go forward: they remove for good what it has put into a trash, or
what it has left on the host that the instance was on."""


@dataclass(frozen=True)
class Operation:
    """One user request. Times in microseconds since the epoch; ``number`` is its short name."""

    id: str
    number: int
    kind: str
    version: int
    target: str
    request: Mapping[str, Any]
    project: str
    parent: str | None
    state: str
    outcome: str | None
    error: str | None
    cancel_requested: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    group: str | None = None
    idempotency_key: str | None = None
    owner: str | None = None
    epoch: int = 0
    """Of the last claim."""
    debts: int = 0
    running: bool = False
    """Whether somebody who lives is at work on it, here or on another machine."""
    tasks: tuple[TaskRecord, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form."""
        names = ("id", "number", "kind", "target", "group", "project", "state", "outcome")
        times = ("created_at", "started_at", "finished_at")
        plain = {name: getattr(self, name) for name in names}
        plain |= {name: isoformat(getattr(self, name)) for name in times}
        return plain | {"error": self.error, "debts": self.debts, "tasks": [task.to_dict() for task in self.tasks]}


class OperationRepository:
    """The rows of operations, their targets and claims."""

    def __init__(self, database: Database, writer: Writer | None = None, *, lease: float = LEASE) -> None:
        """``writer`` lets new operations share their commits with whatever else is written.

        ``lease`` is for how many seconds a claim holds without a sign of life.
        """
        self.database = database
        self._writer = writer
        self._lease = lease

    # -- writing

    def create(self, operation: Operation, owner: str | None, secrets: Sequence[Mapping[str, Any]] = ()) -> Claim:
        """Insert a new operation that holds its target, with its logbook and first claim, in one transaction.

        ``secrets`` (rows as SecretStore.seal makes them) join it. Raises Busy when another operation holds the target,
        AlreadyExists when another was created with the same idempotency key.
        """
        writer = self._writer or Writer(self.database)
        refused: Any = self.database.engine.dialect.dbapi
        try:
            for attempt in range(20):
                try:
                    writer.write(creation(self._creation, operation, owner, secrets))
                except refused.IntegrityError:
                    if operation.idempotency_key and self.of_key(operation.project, operation.idempotency_key):
                        raise AlreadyExists(kind="idempotency key", name=operation.idempotency_key) from None
                    holder = self.holder(operation.target)
                    if holder is not None and holder.id == operation.id:
                        break  # the first try was committed, though its answer was lost
                    if holder is not None:
                        raise Busy(target=operation.target, operation=holder.id, operation_kind=holder.kind) from None
                    if attempt == 19:
                        raise
                    time.sleep(0.01 * attempt)  # another process took the same number
                else:
                    break
        finally:
            if self._writer is None:
                writer.close()
        return Claim(operation.id, 1)

    def claim(self, operation: Operation, owner: str, *, state: str, hold_target: bool = False) -> Claim:
        """Take an operation over: raise its epoch, so that whoever ran it before can no longer write.

        Raises Busy when the process that runs it is alive, when somebody has claimed it since ``operation`` was read
        (and may be done by now), or (``hold_target``) when its target is held by another.
        """
        if operation.running and operation.owner != owner:
            raise Busy(target=operation.target, operation=operation.id, operation_kind=operation.kind)
        with self.database.transaction() as connection:
            if operation.state == QUEUED:
                self._check_turn(connection, operation)
            epoch = operation.epoch + 1
            taken = {"its_id": operation.id, "seen": operation.epoch, "raised": epoch, "claimant": owner}
            if connection.execute(_raising(), taken | {"moment": self.database.clock.now()}).rowcount == 0:
                raise Busy(target=operation.target, operation=operation.id, operation_kind=operation.kind)
            if hold_target:
                self._hold(connection, operation.target, operation.id)
                # A purge of this operation's trash holds the same: undo and purge exclude each other.
                self._hold(connection, trash_target(operation.id), operation.id)
            begun = {"its_id": operation.id, "new_state": state, "moment": operation.started_at or now()}
            connection.execute(_beginning(), begun)
        return Claim(operation.id, epoch)

    def request_cancel(self, operation_id: str) -> None:
        with self.database.transaction() as connection:
            connection.execute(
                sa.update(operations)
                .where(operations.c.id == operation_id, operations.c.state != FINISHED)
                .values(cancel_requested=1)
            )

    def set_outcome(self, operation_id: str, outcome: str, error: str | None) -> None:
        """Correct the outcome of a finished operation (its debts were paid)."""
        with self.database.transaction() as connection:
            connection.execute(
                sa.update(operations).where(operations.c.id == operation_id).values(outcome=outcome, error=error)
            )

    @cached_property
    def _creation(self) -> CreationStatements:
        return CreationStatements(self._writer or Writer(self.database))

    def _check_turn(self, connection: sa.Connection, operation: Operation) -> None:
        """Of those that wait for a target the oldest is next."""
        older = sa.select(operations.c.id, operations.c.kind).where(
            operations.c.target == operation.target,
            operations.c.state == QUEUED,
            operations.c.number < operation.number,
        )
        before = connection.execute(older.limit(1)).first()
        if before is not None:
            raise Busy(target=operation.target, operation=before.id, operation_kind=before.kind)

    def _hold(self, connection: sa.Connection, target: str, operation_id: str) -> None:
        """Take the target for an operation that exists."""
        holder = connection.execute(_holder(), {"wanted": target}).first()
        if holder is not None:
            if holder.id == operation_id:
                return
            raise Busy(target=target, operation=holder.id, operation_kind=holder.kind)
        connection.execute(sa.insert(targets), {"target": target, "operation": operation_id})

    # -- reading

    def get(self, reference: str, *, tasks: bool = True) -> Operation:
        """By id, unique beginning of an id (4 characters at least), number, or ``--last``. Raises NotFound."""
        with self.database.connect() as connection:
            if len(reference) == _ID_LENGTH:  # a prefix is found without an index on some databases
                matches = connection.execute(_of_id(), {"its_id": reference}).all()
            else:
                matches = self._like(connection, reference)
        if len(matches) != 1:
            raise NotFound(kind="operation", name=reference)
        operation = self._operation(matches[0])
        if tasks:
            operation = replace(operation, tasks=tuple(self.tasks(operation.id)))
        return operation

    def _like(self, connection: sa.Connection, reference: str) -> Sequence[Any]:
        """What a reference may mean that is no whole id; two are too many."""
        for condition in _matching(connection, reference):
            matches = connection.execute(_operations().where(condition).limit(2)).all()
            if matches:
                return matches
        return []

    def tasks(self, operation_id: str) -> list[TaskRecord]:
        """All tasks of the parent flow and its segments, in the order in which they first started."""
        return task_records(self.database, operation_id)

    def later_on_target(self, operation: Operation, *, besides: Sequence[str] = ()) -> Operation | None:
        """The first later operation on the same target that was not wholly taken back, if any; ``besides`` those of
        these kinds that went well."""
        query = (
            _operations()
            .where(
                operations.c.target == operation.target,
                operations.c.number > operation.number,
                sa.or_(operations.c.state != FINISHED, operations.c.outcome.not_in((REVERTED, CANCELLED, UNDONE))),
                sa.or_(operations.c.kind.not_in(besides), operations.c.outcome.is_distinct_from(SUCCESS)),
            )
            .order_by(operations.c.number)
            .limit(1)
        )
        with self.database.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else self._operation(row)

    def of_key(self, project: str, key: str) -> Operation | None:
        """The operation that was created with an idempotency key."""
        query = _operations().where(operations.c.project == project, operations.c.idempotency_key == key)
        with self.database.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else self._operation(row)

    def queue_is_empty(self, target: str) -> bool:
        """Whether nobody waits for a target."""
        query = sa.select(operations.c.id).where(operations.c.target == target, operations.c.state == QUEUED)
        with self.database.connect() as connection:
            return connection.execute(query.limit(1)).first() is None

    def holder(self, target: str) -> Operation | None:
        """The operation that holds a target now."""
        query = _operations().join(targets, targets.c.operation == operations.c.id).where(targets.c.target == target)
        with self.database.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else self._operation(row)

    def unpurged(self, kind: str, finished_before: int) -> list[Operation]:
        """Successful operations of a kind that finished before that time (microseconds) and have no purge yet."""
        purges = operations.alias("purges")
        purged = sa.exists().where(purges.c.parent == operations.c.id, purges.c.kind.in_(PURGES))
        query = _operations().where(
            operations.c.kind == kind,
            operations.c.outcome == SUCCESS,
            operations.c.finished_at <= finished_before,
            ~purged,
        )
        with self.database.connect() as connection:
            return [self._operation(row) for row in connection.execute(query)]

    def has_purge(self, operation_id: str) -> bool:
        """Whether a purge of what the operation put in the trash was begun: it only goes forward."""
        query = sa.select(operations.c.id).where(operations.c.parent == operation_id, operations.c.kind.in_(PURGES))
        with self.database.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def cancelled(self, ids: list[str]) -> set[str]:
        """Which of these have been asked to stop."""
        query = sa.select(operations.c.id).where(operations.c.id.in_(ids), operations.c.cancel_requested == 1)
        with self.database.connect() as connection:
            return set(connection.execute(query).scalars())

    def flow_ids(self, operation_id: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The operation's flows as (uuid, meta), oldest first: the parent flow comes first."""
        with self.database.connect() as connection:
            return [(row.uuid, row.meta or {}) for row in connection.execute(_flows(), {"its_id": operation_id})]

    def list(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        target: str | None = None,
        outcome: str | None = None,
        group: str | None = None,
        host: str | None = None,
        since: int | None = None,
        limit: int = 50,
    ) -> list[Operation]:
        """Newest first. ``host``: something of it was done there. ``since``: created then or later, in microseconds."""
        query = _operations().order_by(operations.c.number.desc()).limit(limit)
        for column, value in (
            (operations.c.state, state),
            (operations.c.kind, kind),
            (operations.c.target, target),
            (operations.c.outcome, outcome),
            (operations.c.group, group),
        ):
            if value is not None:
                query = query.where(column == value)
        if host is not None:
            there = sa.select(journal.c.flow).where(journal.c.host == host)
            query = query.where(operations.c.id.in_(sa.select(flows.c.logbook).where(flows.c.uuid.in_(there))))
        if since is not None:
            query = query.where(operations.c.created_at >= since)
        with self.database.connect() as connection:
            return [self._operation(row) for row in connection.execute(query)]

    def results(self, operation_id: str) -> Mapping[str, Any]:
        """What the tasks of the parent flow returned, by name."""
        query = sa.select(atoms.c.name, atoms.c.results).where(atoms.c.flow == operation_id)
        with self.database.connect() as connection:
            return {row.name: row.results for row in connection.execute(query)}

    def _operation(self, row: Any) -> Operation:
        values = dict(row._mapping)
        touched_at = values.pop("touched_at")
        return Operation(**values, running=holds(values["owner"], touched_at, self._lease, self.database.clock.now()))


@cache
def _operations() -> sa.Select[Any]:
    """Operations, with who runs them and how much they owe.

    This and what follows is put together once: that takes longer than sending it, and each step of an operation does.
    """
    debts = (
        # One per task that could not be reverted, however many things it had announced.
        sa.select(sa.func.count(sa.distinct(ledger.c.flow + "/" + ledger.c.task)))
        .where(ledger.c.operation == operations.c.id, ledger.c.state == "DEBT")
        .scalar_subquery()
    )
    epoch = sa.func.coalesce(claims.c.epoch, 0).label("epoch")
    return sa.select(operations, claims.c.owner, claims.c.touched_at, epoch, debts.label("debts")).outerjoin(
        claims, claims.c.subject == operations.c.id
    )


@cache
def _of_id() -> sa.Select[Any]:
    return _operations().where(operations.c.id == sa.bindparam("its_id"))


@cache
def _raising() -> sa.Update:
    seen = claims.c.subject == sa.bindparam("its_id"), claims.c.epoch == sa.bindparam("seen")
    values: dict[str, Any] = {
        "epoch": sa.bindparam("raised"),
        "owner": sa.bindparam("claimant"),
        "touched_at": sa.bindparam("moment"),
    }
    return sa.update(claims).where(*seen).values(values)


@cache
def _beginning() -> sa.Update:
    values: dict[str, Any] = {"state": sa.bindparam("new_state"), "started_at": sa.bindparam("moment")}
    return sa.update(operations).where(operations.c.id == sa.bindparam("its_id")).values(values)


@cache
def _holder() -> sa.Select[Any]:
    query = sa.select(operations.c.id, operations.c.kind).join(targets, targets.c.operation == operations.c.id)
    return query.where(targets.c.target == sa.bindparam("wanted"))


@cache
def _flows() -> sa.Select[Any]:
    query = sa.select(flows.c.uuid, flows.c.meta).where(flows.c.logbook == sa.bindparam("its_id"))
    return query.order_by(flows.c.created_at)


def trash_target(operation_id: str) -> str:
    """What a purge of an operation's trash holds, and an undo of that operation too."""
    return f"trash:{operation_id}"


def new_operation(
    kind: str,
    version: int,
    target: str,
    request: Mapping[str, Any],
    project: str,
    *,
    parent: str | None = None,
    group: str | None = None,
    idempotency_key: str | None = None,
    state: str = RUNNING,
) -> Operation:
    """An operation that does not exist yet."""
    moment = now()
    return Operation(
        id=str(uuid_module.uuid4()),
        number=0,
        kind=kind,
        version=version,
        target=target,
        request=request,
        project=project,
        parent=parent,
        group=group,
        idempotency_key=idempotency_key,
        state=state,
        outcome=None,
        error=None,
        cancel_requested=0,
        created_at=moment,
        started_at=moment,
        finished_at=None,
    )


def _matching(connection: sa.Connection, reference: str) -> list[sa.ColumnElement[bool]]:
    """What a reference may mean, in the order in which it is tried."""
    if reference == "--last":
        last = connection.execute(sa.select(sa.func.max(operations.c.number))).scalar()
        return [operations.c.number == (last or 0)]
    number = [operations.c.number == int(reference)] if reference.isdecimal() and len(reference) < 9 else []
    if len(reference) < 4:
        return [*number, sa.false()]
    return [*number, operations.c.id.startswith(reference, autoescape=True)]
