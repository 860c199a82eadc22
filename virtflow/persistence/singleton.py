"""Something that one process of all does: whoever holds its claim, as long as it gives signs of life."""

from __future__ import annotations

import sqlalchemy as sa

from virtflow.persistence.claim import Claim, holds
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.engine import claims


def hold_singleton(database: Database, subject: str, owner: str, lease: float, held: Claim | None) -> Claim | None:
    """Keep the claim, or take it when nobody alive has it; None when somebody else does.

    A third of a lease is the longest that may pass between two calls of its holder.
    """
    at = database.clock.now()
    with database.transaction() as connection:
        row = connection.execute(sa.select(claims).where(claims.c.subject == subject)).first()
        if row is None:
            values = {"subject": subject, "epoch": 1, "owner": owner, "touched_at": at}
            return Claim(subject, 1) if insert_unless_taken(connection, claims, values) else None
        mine = held is not None and row.epoch == held.epoch and row.owner == owner
        if not mine and holds(row.owner, row.touched_at, lease, at):
            return None
        epoch = row.epoch if mine else row.epoch + 1
        same = claims.c.subject == subject, claims.c.epoch == row.epoch
        taken = sa.update(claims).where(*same).values(epoch=epoch, owner=owner, touched_at=at)
        return Claim(subject, epoch) if connection.execute(taken).rowcount else None


def free_in(database: Database, subject: str, lease: float) -> float:
    """In how many seconds the claim runs out, if its holder gives no further sign of life; 0 when nobody holds it."""
    query = sa.select(claims.c.owner, claims.c.touched_at).where(claims.c.subject == subject)
    with database.connect() as connection:
        row = connection.execute(query).first()
    at = database.clock.now()
    if row is None or not holds(row.owner, row.touched_at, lease, at):
        return 0.0
    touched_at: int = row.touched_at
    return max(0.0, lease - (at - touched_at) / 1_000_000)


def release_singleton(database: Database, held: Claim) -> None:
    """Let another have it at once."""
    mine = claims.c.subject == held.subject, claims.c.epoch == held.epoch
    with database.transaction() as connection:
        connection.execute(sa.update(claims).where(*mine).values(owner=None))
