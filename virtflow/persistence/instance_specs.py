"""What an instance was built to: the specification of its spawn, or of its last resize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from virtflow.errors import Conflict
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import atoms
from virtflow.persistence.models.specs import instance_specs as table


@dataclass(frozen=True)
class InstanceSpec:
    """``previous_spec`` and ``previous_host`` are None once the operation was confirmed."""

    instance: str
    operation: str
    spec: Mapping[str, Any]
    previous_spec: Mapping[str, Any] | None
    previous_host: str | None


class InstanceSpecRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, instance: str) -> InstanceSpec | None:
        """What its last resize has recorded; None for an instance that never was resized."""
        found = self._list(table.c.instance == instance)
        return found[0] if found else None

    def unconfirmed(self) -> Sequence[InstanceSpec]:
        """Every instance whose last resize can still be reverted."""
        return self._list(table.c.previous_host.is_not(None))

    def current(self, instance: str, spawn: str) -> dict[str, Any]:
        """The specification; ``spawn`` is the operation that made the instance. Conflict when nothing is known."""
        found = self.find(instance)
        if found is not None:
            return dict(found.spec)
        query = sa.select(atoms.c.results).where(atoms.c.flow == spawn, atoms.c.name == "ValidateRequest")
        with self._database.connect() as connection:
            recorded = connection.execute(query).scalar()
        if not isinstance(recorded, Mapping):
            reason = f"what operation {spawn} has recorded of it is gone"
            raise Conflict(action="resize", kind="instance", name=instance, reason=reason)
        return dict(recorded)

    def put(self, wanted: InstanceSpec) -> None:
        """Write the row, whatever was there."""
        with self._database.transaction() as connection:
            connection.execute(table.delete().where(table.c.instance == wanted.instance))
            connection.execute(table.insert().values(**wanted.__dict__))

    def remove(self, instance: str, operation: str) -> None:
        """Forget what ``operation`` has recorded. Absent is fine."""
        mine = table.c.instance == instance, table.c.operation == operation
        with self._database.transaction() as connection:
            connection.execute(table.delete().where(*mine))

    def _list(self, condition: sa.ColumnElement[bool]) -> list[InstanceSpec]:
        with self._database.connect() as connection:
            query = sa.select(table).where(condition).order_by(table.c.instance)
            return [InstanceSpec(**row._mapping) for row in connection.execute(query)]
