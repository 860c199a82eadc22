"""Quotas: what a project may have, and what each of its instances is charged with.

A charge is RESERVED while the instance is being made, COMMITTED when it is there, and RELEASED when it is deleted but
may still be brought back. Reserved and committed charges count. Whoever charges more or changes a limit locks the
project's row first, so that two reservations can never both take what is left for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from virtflow.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import quota_charges as charges
from virtflow.persistence.models.inventory import quota_limits as limits
from virtflow.persistence.models.inventory import quota_projects as projects

RESOURCES = ("instances", "vcpus", "memory_mib", "disk_gib", "volumes", "volume_gib")
UNLIMITED = -1
RESERVED, COMMITTED, RELEASED = "RESERVED", "COMMITTED", "RELEASED"


@dataclass(frozen=True)
class Charge:
    """``operation`` is the one that reserved it. Units as in QuotaExceeded."""

    consumer: str
    resource: str
    project: str
    operation: str
    amount: int
    state: str
    updated_at: int


class Usage(NamedTuple):
    """``used`` is committed; ``limit`` -1 is unlimited."""

    used: int
    reserved: int
    limit: int


class QuotaRepository:
    """``defaults`` are the limits of a project that has none of its own; a resource without one is unlimited."""

    def __init__(self, database: Database, defaults: Mapping[str, int]) -> None:
        self._database = database
        self._defaults = dict(defaults)

    def reserve(self, consumer: str, operation: str, project: str, amounts: Mapping[str, int]) -> None:
        """Charge the consumer with ``amounts``, or with nothing: QuotaExceeded names the first that does not fit.

        The same operation may reserve again (a committed charge stays committed); Conflict if another has charged it.
        """
        with self._locked(project) as connection:
            present = {each.resource: each for each in _charges(connection, consumer=consumer)}
            active = [each for each in present.values() if each.state != RELEASED]
            if any(each.operation != operation for each in active):
                reason = f"operation {active[0].operation} has charged it"
                raise Conflict(action="reserve quota for", kind="instance", name=consumer, reason=reason)
            if {each.resource: each.amount for each in active} == dict(amounts):
                return
            self._check(connection, project, consumer, amounts)
            connection.execute(charges.delete().where(charges.c.consumer == consumer))
            for resource, amount in amounts.items():
                charge = Charge(consumer, resource, project, operation, amount, RESERVED, now())
                connection.execute(charges.insert().values(**charge.__dict__))

    def commit(self, consumer: str, operation: str) -> None:
        """The instance is there. NotFound if the operation has no charge for it."""
        if not self._move(consumer, operation, (RESERVED, COMMITTED), COMMITTED):
            raise NotFound(kind="quota reservation", name=consumer)

    def uncommit(self, consumer: str, operation: str) -> None:
        """Undo ``commit``; nothing to undo is fine."""
        self._move(consumer, operation, (COMMITTED,), RESERVED)

    def adjust(self, consumer: str, project: str, amounts: Mapping[str, int], *, limited: bool) -> None:
        """Let a charge that is there be of these amounts; ``limited``: only as far as the quota allows.

        QuotaExceeded names the first resource that does not fit; what becomes less always does.
        """
        with self._locked(project) as connection:
            present = {each.resource: each.amount for each in _charges(connection, consumer=consumer)}
            if limited:
                more = {name: amount for name, amount in amounts.items() if amount > present.get(name, 0)}
                self._check(connection, project, consumer, more)
            for resource, amount in amounts.items():
                its = charges.c.consumer == consumer, charges.c.resource == resource
                connection.execute(charges.update().where(*its).values(amount=amount, updated_at=now()))

    def release(self, consumer: str, operation: str | None = None) -> bool:
        """Charge the consumer no longer (when ``operation`` is given: with what it reserved); say whether it was.

        A reservation is forgotten; a committed charge is kept as RELEASED, for ``recharge``.
        """
        with self._database.transaction() as connection:
            mine = [charges.c.consumer == consumer]
            if operation is not None:
                mine.append(charges.c.operation == operation)
            forgotten = connection.execute(charges.delete().where(*mine, charges.c.state == RESERVED))
            released = connection.execute(
                charges.update().where(*mine, charges.c.state == COMMITTED).values(state=RELEASED, updated_at=now())
            )
            return bool(forgotten.rowcount or released.rowcount)

    def recharge(self, consumer: str) -> None:
        """Undo the release of a committed charge; one that is charged is fine.

        QuotaExceeded if others took what it had; NotFound if there is nothing to bring back.
        """
        project = self._project_of(consumer)
        with self._locked(project) as connection:
            released = _charges(connection, consumer=consumer, state=RELEASED)
            self._check(connection, project, consumer, {each.resource: each.amount for each in released})
            connection.execute(
                charges.update()
                .where(charges.c.consumer == consumer, charges.c.state == RELEASED)
                .values(state=COMMITTED, updated_at=now())
            )

    def forget(self, consumer: str) -> None:
        """Drop the released charges of an instance that will not come back."""
        with self._database.transaction() as connection:
            released = charges.delete().where(charges.c.consumer == consumer, charges.c.state == RELEASED)
            connection.execute(released)

    def set_limit(self, project: str, resource: str, limit: int) -> None:
        """Set the limit; -1 is unlimited. A limit below what is used refuses only what comes next."""
        if resource not in RESOURCES:
            raise InvalidRequest(field="resource", reason=f"{resource!r} is not one of {', '.join(RESOURCES)}")
        if limit < UNLIMITED:
            raise InvalidRequest(field="limit", reason=f"{limit} is below -1 (unlimited)")
        with self._locked(project) as connection:
            values = {"project": project, "resource": resource, "maximum": limit}
            if not insert_unless_taken(connection, limits, values):
                same = limits.c.project == project, limits.c.resource == resource
                connection.execute(limits.update().where(*same).values(maximum=limit))

    def usage(self, project: str) -> dict[str, Usage]:
        """Of every resource."""
        with self._database.connect() as connection:
            maxima = self._limits(connection, project)
            counted = _charges(connection, project=project)
        used = dict.fromkeys(maxima, 0)
        reserved = dict.fromkeys(maxima, 0)
        for charge in counted:
            if charge.state != RELEASED:
                side = used if charge.state == COMMITTED else reserved
                side[charge.resource] = side.get(charge.resource, 0) + charge.amount
        return {name: Usage(used[name], reserved[name], limit) for name, limit in maxima.items()}

    def charges(
        self, consumer: str | None = None, project: str | None = None, operation: str | None = None
    ) -> Sequence[Charge]:
        """All that match what is given."""
        given = {"consumer": consumer, "project": project, "operation": operation}
        with self._database.connect() as connection:
            return _charges(connection, **{column: value for column, value in given.items() if value is not None})

    def _check(self, connection: sa.Connection, project: str, consumer: str, amounts: Mapping[str, int]) -> None:
        maxima = self._limits(connection, project)
        taken = (
            sa.select(charges.c.resource, sa.func.sum(charges.c.amount))
            .where(charges.c.project == project, charges.c.consumer != consumer, charges.c.state != RELEASED)
            .group_by(charges.c.resource)
        )
        others = {resource: int(amount) for resource, amount in connection.execute(taken)}
        for resource, requested in amounts.items():
            limit = maxima.get(resource, UNLIMITED)
            available = max(limit - others.get(resource, 0), 0)
            if limit != UNLIMITED and requested > available:
                raise QuotaExceeded(resource=resource, requested=requested, available=available, limit=limit)

    def _limits(self, connection: sa.Connection, project: str) -> dict[str, int]:
        query = sa.select(limits.c.resource, limits.c.maximum).where(limits.c.project == project)
        own = {row.resource: row.maximum for row in connection.execute(query)}
        return dict.fromkeys(RESOURCES, UNLIMITED) | self._defaults | own

    def _project_of(self, consumer: str) -> str:
        """Read in a transaction of its own: on MariaDB a later read would see what this one saw, not what the lock
        waited for."""
        with self._database.connect() as connection:
            query = sa.select(charges.c.project).where(charges.c.consumer == consumer).limit(1)
            project: str | None = connection.execute(query).scalar()
        if project is None:
            raise NotFound(kind="quota charge", name=consumer)
        return project

    @contextmanager
    def _locked(self, project: str) -> Iterator[sa.Connection]:
        """A write transaction that holds the project's row (on SQLite the transaction itself is the lock).

        The row is made beforehand, in another transaction: locking a row that is not there deadlocks on MariaDB.
        """
        query = sa.select(projects).where(projects.c.project == project)
        with self._database.connect() as connection:
            known = connection.execute(query).first() is not None
        if not known:
            with self._database.transaction() as connection:
                insert_unless_taken(connection, projects, {"project": project})
        with self._database.transaction() as connection:
            connection.execute(query.with_for_update())
            yield connection

    def _move(self, consumer: str, operation: str, before: Sequence[str], after: str) -> bool:
        statement = charges.update().where(
            charges.c.consumer == consumer, charges.c.operation == operation, charges.c.state.in_(before)
        )
        with self._database.transaction() as connection:
            return bool(connection.execute(statement.values(state=after, updated_at=now())).rowcount)


def _charges(connection: sa.Connection, **given: Any) -> Sequence[Charge]:
    query = sa.select(charges).filter_by(**given).order_by(charges.c.consumer, charges.c.resource)
    return [Charge(**row._mapping) for row in connection.execute(query)]
