"""Flavors: named sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import sqlalchemy as sa

from virtflow.errors import AlreadyExists, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.inventory import flavors as table


@dataclass(frozen=True)
class Flavor:
    """``memory_mib`` in MiB, ``disk_gib`` in GiB."""

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    properties: dict[str, str] = field(default_factory=dict)


class FlavorRepository:
    """A flavor is never changed: instances keep the numbers they were made with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, flavor: Flavor) -> None:
        """AlreadyExists if the name is taken."""
        with self._database.transaction() as connection:
            if not insert_unless_taken(connection, table, asdict(flavor)):
                raise AlreadyExists(kind="flavor", name=flavor.name)

    def get(self, name: str) -> Flavor:
        """NotFound."""
        with self._database.connect() as connection:
            row = connection.execute(sa.select(table).where(table.c.name == name)).first()
        if row is None:
            raise NotFound(kind="flavor", name=name)
        return Flavor(**row._mapping)

    def list(self) -> Sequence[Flavor]:
        """Smallest first."""
        query = sa.select(table).order_by(table.c.memory_mib, table.c.vcpus, table.c.disk_gib, table.c.name)
        with self._database.connect() as connection:
            return [Flavor(**row._mapping) for row in connection.execute(query)]

    def delete(self, name: str) -> None:
        """NotFound."""
        with self._database.transaction() as connection:
            if not connection.execute(table.delete().where(table.c.name == name)).rowcount:
                raise NotFound(kind="flavor", name=name)
