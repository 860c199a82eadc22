"""Whether the cables of an instance's ports are in. Durable: what was said before a crash, or before anybody waited
for it, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from virtflow.errors import NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import ports
from virtflow.persistence.models.inventory import vif_events as table

EXPECTED, PLUGGED, FAILED = "EXPECTED", "PLUGGED", "FAILED"


class VifEventRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def expect(self, instance: str, ports: Iterable[str]) -> None:
        """Register what will be waited for. What was said about a port already stands."""
        with self._database.transaction() as connection:
            for port in ports:
                row = {"port": port, "instance": instance, "state": EXPECTED, "updated_at": now()}
                insert_unless_taken(connection, table, row)

    def receive(self, instance: str, port: str, *, failed: bool = False) -> None:
        """Record that a port's cable is in, or that it could not be put in. The last word counts. NotFound."""
        values = {"state": FAILED if failed else PLUGGED, "updated_at": now()}
        with self._database.transaction() as connection:
            if insert_unless_taken(connection, table, values | {"port": port, "instance": instance}):
                return
            if not connection.execute(table.update().where(table.c.port == port).values(**values)).rowcount:
                raise NotFound(kind="port", name=port)

    def states(self, instance: str) -> Mapping[str, str]:
        """State by port, of every port about which something was said or is expected."""
        query = sa.select(table.c.port, table.c.state).where(table.c.instance == instance)
        with self._database.connect() as connection:
            return {row.port: row.state for row in connection.execute(query)}

    def forget(self, instance: str, host: str | None = None) -> None:
        """Nobody waits for this instance's cables any more, or not on this host, to which its ports belong."""
        statement = table.delete().where(table.c.instance == instance)
        if host is not None:
            statement = statement.where(table.c.port.in_(sa.select(ports.c.id).where(ports.c.host == host)))
        with self._database.transaction() as connection:
            connection.execute(statement)
