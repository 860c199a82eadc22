"""Which bases of the image caches are in use: a base that a disk is backed by must not be pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import base_references as table


@dataclass(frozen=True)
class BaseReference:
    """The disk of ``consumer`` on ``host`` is backed by ``base_path``. ``created_at``: microseconds since the epoch."""

    base_path: str
    host: str
    consumer: str
    image_id: str
    operation: str
    created_at: int


class BaseReferenceRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add_reference(self, base_path: str, image_id: str, host: str, consumer: str, operation: str) -> None:
        """Record that the base is in use; one that is recorded already is fine."""
        values = {
            "base_path": base_path,
            "host": host,
            "consumer": consumer,
            "image_id": image_id,
            "operation": operation,
            "created_at": now(),
        }
        with self._database.transaction() as connection:
            insert_unless_taken(connection, table, values)

    def drop_reference(self, base_path: str, host: str, consumer: str, operation: str | None = None) -> bool:
        """Forget it, if ``operation`` (when given) has recorded it; say whether it was there."""
        statement = table.delete().where(
            table.c.base_path == base_path, table.c.host == host, table.c.consumer == consumer
        )
        if operation is not None:
            statement = statement.where(table.c.operation == operation)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def references(
        self, base_path: str | None = None, host: str | None = None, consumer: str | None = None
    ) -> Sequence[BaseReference]:
        """All that match what is given."""
        query = sa.select(table).order_by(table.c.base_path, table.c.host, table.c.consumer)
        given = {"base_path": base_path, "host": host, "consumer": consumer}
        query = query.filter_by(**{column: value for column, value in given.items() if value is not None})
        with self._database.connect() as connection:
            return [BaseReference(**row._mapping) for row in connection.execute(query)]
