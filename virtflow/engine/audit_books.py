"""What the database says, read at once, in the form in which the audit asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from virtflow.persistence import operations as ops
from virtflow.persistence.claim import owner_alive, owner_host
from virtflow.persistence.database import Database
from virtflow.persistence.models import engine, inventory, volumes

Row = sa.Row[Any]
_TAKEN_BACK = (ops.REVERTED, ops.CANCELLED, ops.UNDONE)


@dataclass(frozen=True, order=True)
class Finding:
    """Something that nobody answers for. ``reason`` is one line that ends with what to do about it."""

    kind: str
    identity: str
    reason: str
    operation: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Books:
    """All rows that matter, of this host where a row has one."""

    host: str
    operations: dict[str, Row]
    """With ``owner`` of the claim, by id."""
    instances: dict[str, Row]
    targets: Sequence[Row]
    ports: Sequence[Row]
    networks: Sequence[Row]
    allocations: Sequence[Row]
    charges: Sequence[Row]
    secrets: Sequence[Row]
    references: Sequence[Row]
    members: Sequence[Row]
    ledger: Sequence[Row]
    volumes: dict[str, Row]
    snapshots: dict[str, Row]
    """Of volumes; deleted ones too, on all hosts."""
    attachments: Sequence[Row]

    def unfinished(self, operation: str | None) -> bool:
        """Whether the operation goes on, or would if somebody resumed it: then it answers for what it has made."""
        row = self.operations.get(operation or "")
        return row is not None and row.state != ops.FINISHED

    def lives(self, instance: str) -> bool:
        row = self.instances.get(instance)
        return row is not None and row.deleted_at is None

    def busy(self, instance: str) -> bool:
        """Whether an operation that is not over works on the instance."""
        row = self.instances.get(instance)
        return row is not None and (self.unfinished(row.operation) or f"instance:{row.name}" in self._held)

    def answered_for(self, instance: str, operation: str | None) -> bool:
        """Whether a thing of this instance, made by this operation, has somebody who answers for it."""
        return self.lives(instance) or self.unfinished(operation) or self.busy(instance)

    def answered_for_here(self, instance: str, operation: str | None) -> bool:
        """``answered_for`` of a thing that is on this host, or is about it.

        Nobody answers for what an operation has made that was taken back, where the instance lives on another host.
        """
        made_by = self.operations.get(operation or "")
        left = made_by is not None and made_by.outcome in _TAKEN_BACK
        if left and self.lives(instance) and self.instances[instance].host != self.host:
            return False
        return self.answered_for(instance, operation)

    def unanswered(self, instance: str) -> str:
        """Why nobody answers for a thing of this instance."""
        return "which was taken back" if self.lives(instance) else "and no instance of that uuid lives"

    def storage(self, consumer: str) -> Row | None:
        """The volume or snapshot of that id."""
        return self.volumes.get(consumer, self.snapshots.get(consumer))

    def keeps_secrets(self, owner: str) -> bool:
        """Whether it is a volume or a snapshot that is not purged yet, or an attachment: what lives longer than an
        operation."""
        stored = self.storage(owner)
        return (stored is not None and stored.purged_at is None) or any(row.id == owner for row in self.attachments)

    def number(self, operation: str | None) -> str:
        """How a person calls the operation."""
        row = self.operations.get(operation or "")
        return "an unknown operation" if row is None else f"operation {row.number} ({row.kind}, {_end(row)})"

    def interrupted(self, row: Row) -> bool:
        """Whether the process that ran the operation is dead. Of another host nobody here can know."""
        if row.owner is None:
            return row.state in (ops.RUNNING, ops.UNDOING)
        return owner_host(row.owner) == self.host and not owner_alive(row.owner)

    @property
    def quiet(self) -> bool:
        """Whether no operation is under way at all."""
        return all(row.state == ops.FINISHED for row in self.operations.values())

    @cached_property
    def purging(self) -> set[str]:
        """Operations whose trash a purge is at: it answers for what else the instance has until it is through."""
        targets = (row.target for row in self.operations.values() if row.outcome in (None, ops.FAILED_FORWARD))
        return {target.removeprefix("trash:") for target in targets if target.startswith("trash:")}

    @cached_property
    def purged(self) -> set[str]:
        """Operations whose trash is gone for good."""
        rows = self.operations.values()
        return {
            row.target.removeprefix("trash:") for row in rows if row.kind in ops.PURGES and row.outcome == ops.SUCCESS
        }

    @cached_property
    def _held(self) -> set[str]:
        return {row.target for row in self.targets if self.unfinished(row.operation)}


def read_books(database: Database, host: str) -> Books:
    """One snapshot of the database."""
    operations = sa.select(engine.operations, engine.claims.c.owner).join_from(
        engine.operations, engine.claims, engine.claims.c.subject == engine.operations.c.id, isouter=True
    )
    with database.connect() as connection:

        def rows(query: sa.Select[Any]) -> Sequence[Row]:
            return connection.execute(query).all()

        def here(table: sa.Table) -> Sequence[Row]:
            return rows(sa.select(table).where(table.c.host == host))

        secrets = inventory.secrets.c
        return Books(
            host=host,
            operations={row.id: row for row in rows(operations)},
            instances={row.uuid: row for row in rows(sa.select(inventory.instances))},
            targets=rows(sa.select(engine.targets)),
            ports=rows(sa.select(inventory.ports)),
            networks=rows(sa.select(inventory.networks)),
            allocations=here(inventory.allocations),
            charges=rows(sa.select(inventory.quota_charges)),
            secrets=rows(sa.select(secrets.ref, secrets.name, secrets.owner)),
            references=here(inventory.base_references),
            members=rows(sa.select(inventory.server_group_members)),
            volumes={row.id: row for row in rows(sa.select(volumes.volumes))},
            snapshots={row.id: row for row in rows(sa.select(volumes.volume_snapshots))},
            attachments=rows(sa.select(volumes.volume_attachments)),
            ledger=here(engine.ledger),
        )


def _end(row: Row) -> str:
    return str(row.outcome or row.state)
