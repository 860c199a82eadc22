"""From how an operation ended to what its caller gets: the operation, or the error that fits."""

from __future__ import annotations

import sqlalchemy as sa

from virtflow.errors import OperationFailed, Refusal, RevertIncomplete
from virtflow.persistence import operations as ops
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import flows, journal
from virtflow.persistence.operations import Operation


def raise_outcome(operation: Operation, error: BaseException | None, *, allow: tuple[str, ...] = ()) -> Operation:
    """The operation if it did what was asked; otherwise raise. Each error carries the operation as ``operation``."""
    fine = (None, ops.SUCCESS, ops.UNDONE, *allow)
    if operation.outcome in fine:
        return operation
    if isinstance(error, Refusal) and not operation.debts:
        error.fields["operation"] = operation
        raise error
    fields = {"kind": operation.kind, "target": operation.target, "operation": operation}
    cause = operation.error or operation.outcome
    if operation.outcome == ops.REVERTED_WITH_DEBT:
        raise RevertIncomplete(**fields, cause=cause, debts=operation.debts) from error
    raise OperationFailed(**fields, cause=cause) from error


def failure_of(database: Database, operation: str) -> str | None:
    """The first failure in the journal of an operation, as ``Task: text``."""
    query = (
        sa.select(journal.c.atom, journal.c.data)
        .join(flows, flows.c.uuid == journal.c.flow)
        .where(flows.c.logbook == operation, journal.c.event == "FAILURE", journal.c.atom.is_not(None))
        .order_by(journal.c.at, journal.c.sequence)
        .limit(1)
    )
    with database.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else f"{row.atom}: {row.data['failure']['exception_str']}"
