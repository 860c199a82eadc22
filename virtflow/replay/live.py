"""What is asked now, not read from a recording: whether somebody is at work on an operation. It changes nothing."""

from __future__ import annotations

import sqlalchemy as sa

from virtflow.persistence.claim import owner_alive, owner_host
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import claims
from virtflow.replay.look.lines import span


def owner_now(database: Database, subject: str) -> str | None:
    """A sentence about who runs an operation or a segment now; None when it was never claimed on its own."""
    with database.connect() as connection:
        row = connection.execute(sa.select(claims).where(claims.c.subject == subject)).first()
    if row is None:
        return None
    if row.owner is None:
        return "nobody runs it now"
    if owner_alive(row.owner):
        return f"a process of this machine runs it now (epoch {row.epoch})"
    silent = span(max(0, now() - row.touched_at))
    return f"its owner, on {owner_host(row.owner)}, is not alive here and was last heard of {silent} ago"
