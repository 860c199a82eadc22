"""Work that nobody does: what is to be done stands in a row, and no living process has a claim to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from virtflow.persistence import operations as ops
from virtflow.persistence import segments as segment_states
from virtflow.persistence.claim import holds, this_machine
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import claims, ledger, operations
from virtflow.persistence.models.segments import segments
from virtflow.persistence.posting import OPERATIONS, Posting, host_topic

_AT_ONCE = 500
"""How many of a sort one round finds, oldest first."""

_LOOKED_AT = 2000
"""How many one query brings, oldest first; of those some may turn out to be alive."""

_BACKLOG = (ops.QUEUED, ops.ACCEPTED)
"""States in which there may be any number: only the oldest are looked at, for they are the next."""


class LostWork:
    """``lease`` is for how many seconds a claim, or a posting that nobody has claimed yet, counts as alive."""

    def __init__(self, database: Database, lease: float) -> None:
        self._database = database
        self._lease = lease

    def operations(self, down: Collection[str]) -> list[Posting]:
        """Operations under way that nobody runs, but for those that wait for a host that is ``down``.

        One that was just accepted has its job; only when nobody has come for it for a lease may that be lost.
        """
        waiting = (
            sa.select(segments.c.operation)
            .where(segments.c.host.in_(list(down)), segments.c.state.in_(segment_states.UNANSWERED))
            .where(segments.c.verb == segment_states.RUN)
        )
        found = []
        for state in (ops.QUEUED, ops.ACCEPTED, ops.RUNNING, ops.UNDOING):
            under_way = sa.select(operations.c.id, operations.c.created_at).where(
                operations.c.state == state, operations.c.id.not_in(waiting)
            )
            if state in _BACKLOG:
                under_way = under_way.order_by(operations.c.created_at).limit(_LOOKED_AT)
            each = under_way.subquery()
            query = (
                sa.select(each.c.id, each.c.created_at, claims.c.owner, claims.c.touched_at)
                .outerjoin(claims, claims.c.subject == each.c.id)
                .where(self._may_be_lost())
                .order_by(each.c.created_at)
                .limit(_LOOKED_AT)
            )
            found += [row for row in self._rows(query) if not self._held(row)]
        found.sort(key=lambda row: row.created_at)
        return [Posting(OPERATIONS, row.id, created_at=row.created_at) for row in found[:_AT_ONCE]]

    def segments(self, down: Collection[str]) -> list[Posting]:
        """Segments that were asked for long enough ago, and that nobody is at, on hosts that are up."""
        query = (
            sa.select(segments.c.id, segments.c.operation, segments.c.host, claims.c.owner, claims.c.touched_at)
            .outerjoin(claims, claims.c.subject == segments.c.id)
            .where(segments.c.state.in_(segment_states.UNANSWERED), segments.c.host.not_in(list(down)))
            .where(segments.c.updated_at < self._stale(), self._may_be_lost())
            .order_by(segments.c.created_at)
            .limit(_LOOKED_AT)
        )
        found = [row for row in self._rows(query) if not self._held(row)]
        return [Posting(host_topic(row.host), row.operation, row.id) for row in found[:_AT_ONCE]]

    def debts(self, down: Collection[str]) -> list[Posting]:
        """Finished operations that owe something which could be paid now, or whose last debt was paid elsewhere."""
        anywhere = ledger.c.flow == ledger.c.operation  # of the parent flow, which is bound to no host
        payable = sa.or_(anywhere, ledger.c.host.not_in(list(down)))
        owing = sa.select(ledger.c.operation).where(ledger.c.state == "DEBT")
        settled = sa.select(operations.c.id).where(
            operations.c.outcome == ops.REVERTED_WITH_DEBT, operations.c.id.not_in(owing)
        )
        failed = sa.select(operations.c.id).where(operations.c.outcome == ops.FAILED_FORWARD)
        # Each part is found by an index, however many operations there have been.
        found = sa.union(owing.where(payable), settled, failed).subquery()
        query = (
            sa.select(operations.c.id)
            .join(found, found.c[0] == operations.c.id)
            .where(operations.c.state == ops.FINISHED)
            .order_by(operations.c.finished_at)
            .limit(_AT_ONCE)
        )
        return [Posting(OPERATIONS, row.id, priority="low") for row in self._rows(query)]

    def hosts_waited_for(self) -> list[str]:
        """Hosts that something unfinished, or a debt, is on."""
        waited = sa.select(segments.c.host).where(segments.c.state.in_(segment_states.UNANSWERED))
        owed = sa.select(ledger.c.host).where(ledger.c.state == "DEBT")
        return [row[0] for row in self._rows(sa.union(waited, owed))]

    def _stale(self) -> int:
        return self._database.clock.now() - int(self._lease * 1_000_000)

    def _held(self, row: Any) -> bool:
        return holds(row.owner, row.touched_at, self._lease, self._database.clock.now())

    def _may_be_lost(self) -> sa.ColumnElement[bool]:
        """No sign of life for a lease, or owned by a process of this machine, which can be looked for."""
        silent = sa.func.coalesce(claims.c.touched_at, 0) < self._stale()
        return sa.or_(silent, claims.c.owner.contains(this_machine(), autoescape=True))

    def _rows(self, query: Any) -> list[Any]:
        with self._database.connect() as connection:
            return list(connection.execute(query))
