"""Whoever does not own an operation any more changes nothing: not in the rows that tasks write either.

What the engine records carries its epoch (``writer.fence_statement``). While a task's body runs, every transaction of
its thread begins with the same question, and holds the answer until it ends: whoever takes the operation over waits for
that moment, and what comes later is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import sqlalchemy as sa

from virtflow.errors import StaleEpoch
from virtflow.persistence.claim import Claim
from virtflow.persistence.models.engine import claims

_holding: ContextVar[Claim | None] = ContextVar("virtflow_holding", default=None)
_EPOCH = sa.select(claims.c.epoch).where(claims.c.subject == sa.bindparam("claimed")).with_for_update(read=True)


@contextmanager
def holding(claim: Claim | None) -> Iterator[None]:
    """Transactions of this thread belong to the claim while the block runs."""
    token = _holding.set(claim)
    try:
        yield
    finally:
        _holding.reset(token)


def check(connection: sa.Connection) -> None:
    """The first statement of a transaction: StaleEpoch when the claim that it belongs to was raised by somebody else.

    The claim's row comes before all others, so that transactions that lock it cannot deadlock over it.
    """
    claim = _holding.get()
    if claim is None:
        return
    epoch = connection.execute(_EPOCH, {"claimed": claim.subject}).scalar()
    if epoch is not None and epoch != claim.epoch:
        raise StaleEpoch(operation=claim.subject, epoch=claim.epoch)
