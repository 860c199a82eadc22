"""What the last barrier of a run carries besides the flow: the operation's state, its target and its claim."""

from __future__ import annotations

import sqlalchemy as sa

from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import claims, operations, targets
from virtflow.persistence.models.inventory import secrets
from virtflow.persistence.recorder import Recorder
from virtflow.persistence.writer import Writer


class OutcomeStatements:
    """Compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        its = operations.c.id == sa.bindparam("its_id")
        self.finish = writer.compile(
            sa.update(operations)
            .where(its)
            .values(
                state=sa.bindparam("new_state"),
                outcome=sa.bindparam("new_outcome"),
                error=sa.bindparam("new_error"),
                finished_at=sa.bindparam("new_finished_at"),
            )
        )
        self.free_target = writer.compile(sa.delete(targets).where(targets.c.operation == sa.bindparam("its_id")))
        self.purge_secrets = writer.compile(sa.delete(secrets).where(secrets.c.owner == sa.bindparam("its_id")))
        self.release = writer.compile(
            sa.update(claims).where(claims.c.subject == sa.bindparam("its_id")).values(owner=sa.null())
        )


def record_outcome(
    recorder: Recorder,
    statements: OutcomeStatements,
    operation: str,
    state: str,
    outcome: str | None,
    error: str | None,
) -> None:
    """Record the end of a run. With an outcome the operation is over and its target free; without, it is put down.

    What is over needs no secrets any more. They came with the operation, before any task: one that was refused or
    cancelled early has no task that would purge them.
    """
    finished_at = now() if outcome is not None else None
    recorder.also(statements.finish, (state, outcome, error, finished_at, operation))
    if outcome is not None:
        recorder.also(statements.free_target, (operation,))
        recorder.also(statements.purge_secrets, (operation,))
    recorder.also(statements.release, (operation,))
