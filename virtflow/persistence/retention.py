"""Forgetting: operations that ended long ago, with all that was recorded of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from virtflow.persistence import operations as ops
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.decisions import decisions
from virtflow.persistence.models.engine import atoms, claims, flows, journal, ledger, logbooks, operations
from virtflow.persistence.models.inventory import instances
from virtflow.persistence.models.segments import segments
from virtflow.persistence.models.specs import instance_specs

_AT_ONCE = 200
"""Operations per transaction: nobody else waits long for the lock."""


def forget_finished(database: Database, older_than: float) -> int:
    """Remove operations that ended that many seconds ago; how many.

    Kept: what owes something, what failed past its pivot, the delete whose trash is not purged, the live migration
    that is not cleaned up after, the resize that can still be reverted, and the spawn of an instance that lives:
    undoing it would need what it recorded.
    """
    forgotten, seen = 0, 0
    while True:
        with database.transaction() as connection:
            found = connection.execute(_candidates(seen, now() - int(older_than * 1_000_000))).all()
            if not found:
                return forgotten
            _remove(connection, [row.id for row in found])
        forgotten += len(found)
        seen = found[-1].finished_at


def _candidates(since: int, before: int) -> sa.Select[Any]:
    """The oldest from ``since`` on: what is kept is not looked at again for every batch."""
    owing = sa.exists().where(ledger.c.operation == operations.c.id, ledger.c.state == "DEBT")
    living = sa.exists().where(instances.c.operation == operations.c.id, instances.c.deleted_at.is_(None))
    revertible = sa.exists().where(
        instance_specs.c.operation == operations.c.id, instance_specs.c.previous_host.is_not(None)
    )
    purges = operations.alias("purges")
    purged = sa.exists().where(
        purges.c.parent == operations.c.id, purges.c.kind.in_(ops.PURGES), purges.c.outcome == ops.SUCCESS
    )
    trashing = operations.c.kind.in_(("delete", "resize-confirm", "live-migrate"))
    unpurged = sa.and_(trashing, operations.c.outcome == ops.SUCCESS, ~purged)
    return (
        sa.select(operations.c.id, operations.c.finished_at)
        .where(
            operations.c.state == ops.FINISHED,
            operations.c.outcome != ops.FAILED_FORWARD,
            operations.c.finished_at.between(since, before - 1),
            ~owing,
            ~living,
            ~revertible,
            sa.not_(unpurged),
        )
        .order_by(operations.c.finished_at)
        .limit(_AT_ONCE)
    )


def _remove(connection: sa.Connection, found: Sequence[Any]) -> None:
    its_flows = list(connection.execute(sa.select(flows.c.uuid).where(flows.c.logbook.in_(found))).scalars())
    for table in (journal, atoms):
        connection.execute(sa.delete(table).where(table.c.flow.in_(its_flows)))
    connection.execute(sa.delete(flows).where(flows.c.uuid.in_(its_flows)))
    for table in (ledger, segments, decisions):
        connection.execute(sa.delete(table).where(table.c.operation.in_(found)))
    connection.execute(sa.delete(claims).where(claims.c.subject.in_([*found, *its_flows])))
    connection.execute(sa.delete(operations).where(operations.c.id.in_(found)))
    connection.execute(sa.delete(logbooks).where(logbooks.c.uuid.in_(found)))
