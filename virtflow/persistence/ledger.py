"""The ledger: what tasks were about to make, written before they made it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.models.base import encode, now
from virtflow.persistence.models.engine import ledger
from virtflow.persistence.recorder import Recorder
from virtflow.persistence.writer import Writer

INTENDED = "INTENDED"
PRESENT = "PRESENT"
CLEARED = "CLEARED"
DEBT = "DEBT"

_OPEN = (INTENDED, PRESENT)

REVERT = "revert"
"""Kind of a debt whose task had announced nothing: its revert failed, and that is all that is known."""

SEGMENT = "segment"
"""Kind of a debt that is a whole segment: its host was down when it should have been taken back."""


@dataclass(frozen=True)
class LedgerRow:
    """One thing. Times in microseconds since the epoch."""

    id: int
    operation: str
    flow: str
    task: str
    kind: str
    identity: str
    host: str
    state: str
    detail: Mapping[str, Any] | None
    error: str | None
    attempts: int
    created_at: int
    updated_at: int

    def to_dict(self) -> dict[str, Any]:
        names = ("task", "kind", "identity", "host", "state", "error", "attempts")
        return {"id": self.id, **{name: getattr(self, name) for name in names}}


class LedgerStatements:
    """The ledger's part of a barrier, compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        columns = [column for column in ledger.columns if column.name != "id"]
        parameters = [sa.bindparam(f"new_{column.name}", type_=_plain_type(column)) for column in columns]
        there: Any = (
            sa.select(sa.literal_column("1"))
            .select_from(ledger)
            .where(*(ledger.c[name] == sa.bindparam(f"same_{name}") for name in ("flow", "task", "kind", "identity")))
        )
        self.add = writer.compile(
            sa.insert(ledger).values({c.name: p for c, p in zip(columns, parameters, strict=True)})
        )
        self.add_missing = writer.compile(
            sa.insert(ledger).from_select([c.name for c in columns], sa.select(*parameters).where(~there.exists()))
        )
        self.settle = writer.compile(
            sa.update(ledger)
            .where(
                ledger.c.flow == sa.bindparam("its_flow"),
                ledger.c.task == sa.bindparam("its_task"),
                # What an earlier attempt has cleared or owes, on another host, is no business of this one.
                ledger.c.state.in_([sa.literal_column(f"'{state}'") for state in _OPEN]),
            )
            .values(
                state=sa.bindparam("new_state"),
                error=sa.bindparam("new_error"),
                attempts=ledger.c.attempts + sa.literal_column("1"),
                updated_at=sa.bindparam("new_updated_at"),
            )
        )
        self.pay = writer.compile(
            sa.update(ledger)
            .where(
                ledger.c.flow == sa.bindparam("its_flow"),
                ledger.c.task == sa.bindparam("its_task"),
                ledger.c.state == sa.literal_column(f"'{DEBT}'"),
            )
            .values(state=sa.literal_column(f"'{CLEARED}'"), error=sa.null(), updated_at=sa.bindparam("new_updated_at"))
        )
        self.reopen = writer.compile(
            sa.update(ledger)
            .where(
                *(ledger.c[name] == sa.bindparam(f"same_{name}") for name in ("flow", "task", "kind", "identity")),
                ledger.c.state.not_in([sa.literal_column(f"'{state}'") for state in _OPEN]),
            )
            .values(state=sa.bindparam("new_state"), updated_at=sa.bindparam("new_updated_at"))
        )


def record_intent(
    recorder: Recorder,
    statements: LedgerStatements,
    row: tuple[str, str, str, str, str, str],
    detail: Mapping[str, Any],
    *,
    again: bool,
    state: str = INTENDED,
    error: str | None = None,
) -> None:
    """Record an intent: ``row`` is (operation, flow, task, kind, identity, host). ``again``: it may exist."""
    at = now()
    values = (*row, state, encode(dict(detail)) if detail else None, error, 0, at, at)
    if again:
        _operation, flow, task, kind, identity, _host = row
        recorder.also(statements.reopen, (state, at, flow, task, kind, identity))
        recorder.also(statements.add_missing, (*values, flow, task, kind, identity))
    else:
        recorder.also(statements.add, values)


def record_state(
    recorder: Recorder, statements: LedgerStatements, flow: str, task: str, state: str, error: str | None = None
) -> None:
    """Record what became of a task's rows of this attempt."""
    recorder.also(statements.settle, (state, error, now(), flow, task))


def record_payment(recorder: Recorder, statements: LedgerStatements, flow: str, task: str) -> None:
    """Record that a task's debts are paid."""
    recorder.also(statements.pay, (now(), flow, task))


class Ledger:
    """Reading the ledger, and settling a debt that was paid outside a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(
        self, *, operation: str | None = None, state: str | None = None, host: str | None = None
    ) -> list[LedgerRow]:
        """Rows in the order in which they were announced."""
        query = sa.select(ledger).order_by(ledger.c.id)
        for column, value in ((ledger.c.operation, operation), (ledger.c.state, state), (ledger.c.host, host)):
            if value is not None:
                query = query.where(column == value)
        with self._database.connect() as connection:
            return [LedgerRow(**row._mapping) for row in connection.execute(query)]

    def debts(self, operation: str | None = None) -> list[LedgerRow]:
        return self.rows(operation=operation, state=DEBT)

    def settle(self, flow: str, task: str, state: str, error: str | None = None) -> None:
        """Set the state of all debts of a task."""
        values = {"state": state, "error": error, "updated_at": now(), "attempts": ledger.c.attempts + 1}
        with self._database.transaction() as connection:
            owed = ledger.c.flow == flow, ledger.c.task == task, ledger.c.state == DEBT
            connection.execute(sa.update(ledger).where(*owed).values(**values))


def _plain_type(column: sa.Column[Any]) -> Any:
    return sa.Text() if column.name == "detail" else column.type
