"""What puts a new operation into the database: one batch that reads nothing, so that creations share their commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from virtflow.persistence.models.base import encode, now
from virtflow.persistence.models.engine import claims, logbooks, operations, targets
from virtflow.persistence.models.inventory import secrets as secrets_table
from virtflow.persistence.writer import Batch, Writer

if TYPE_CHECKING:
    from virtflow.persistence.operations import Operation

_NAMES = [column.name for column in operations.columns if column.name != "number"]


class CreationStatements:
    """Compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        self.clock = writer.database.clock
        given = [
            sa.bindparam(f"new_{name}", type_=sa.Text() if name == "request" else operations.c[name].type)
            for name in _NAMES
        ]
        last = sa.func.coalesce(sa.func.max(operations.c.number), sa.literal_column("0"))
        self.add_operation = writer.compile(
            sa.insert(operations).from_select([*_NAMES, "number"], sa.select(*given, last + sa.literal_column("1")))
        )
        self.hold = writer.compile(sa.insert(targets))
        self.add_logbook = writer.compile(
            sa.insert(logbooks).values({name: sa.bindparam(name) for name in ("uuid", "name", "created_at")})
        )
        self.add_claim = writer.compile(sa.insert(claims))
        self.add_secret = writer.compile(sa.insert(secrets_table))


def creation(
    statements: CreationStatements,
    operation: Operation,
    owner: str | None,
    secrets: Sequence[Mapping[str, Any]],
) -> Batch:
    """The operation with the next free number, its target, logbook and first claim; ``secrets`` are sealed rows.

    One that is queued holds no target yet, and nobody owns it.

    The database refuses it when the target is held, or when another process has just taken the number.
    """
    moment = now()
    row = {name: getattr(operation, name) for name in _NAMES} | {"request": encode(dict(operation.request))}
    return [
        (statements.add_operation, tuple(row[name] for name in _NAMES)),
        *([] if operation.state == "QUEUED" else [(statements.hold, (operation.target, operation.id))]),
        (statements.add_logbook, (operation.id, operation.kind, moment)),
        (statements.add_claim, (operation.id, 1, owner, statements.clock.now())),
        *((statements.add_secret, tuple(secret[name] for name in statements.add_secret.columns)) for secret in secrets),
    ]
