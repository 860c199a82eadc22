"""Hosts: what each has, who looks after it, and whether instances may go there.

What a worker finds out (inventory, capabilities) is registered again and again; what people decide (enabled, draining,
zone, labels) stays as they left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from virtflow.errors import NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import isoformat, now
from virtflow.persistence.models.engine import operations
from virtflow.persistence.models.inventory import allocations, hosts

UP = "UP"
DOWN = "DOWN"
FENCED = "FENCED"
"""An operator has said that nothing runs there any more. The next heartbeat ends it."""

_DETAILS = ("capabilities", "labels")
"""Large columns that change only when a host is registered or set: kept in memory by ``updated_at``."""
_NOTHING: tuple[Any, ...] = (None,)


@dataclass(frozen=True)
class HostRecord:
    """A host and what is claimed of it. Sizes: vcpus in pieces, MiB, GiB; a ratio over 1 overcommits.

    Times in microseconds since the epoch. ``worker`` owns the heartbeat; None where only an embedded runner works.
    """

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    cpu_ratio: float
    memory_ratio: float
    disk_ratio: float
    vcpus_used: int
    memory_mib_used: int
    disk_gib_used: int
    generation: int
    state: str
    zone: str
    enabled: bool
    disabled_reason: str | None
    draining: bool
    worker: str | None
    heartbeat_at: int | None
    uri: str | None
    updated_at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    def capacity(self) -> tuple[int, int, int]:
        """What may be claimed in all (vcpus, MiB, GiB): the size times its ratio, rounded down."""
        return (
            int(self.vcpus * self.cpu_ratio),
            int(self.memory_mib * self.memory_ratio),
            int(self.disk_gib * self.disk_ratio),
        )

    def used(self) -> tuple[int, int, int]:
        """What is claimed (vcpus, MiB, GiB)."""
        return self.vcpus_used, self.memory_mib_used, self.disk_gib_used

    def down(self, limit: float, at: int) -> str | None:
        """Why it counts as down, or None. ``limit`` is how many seconds a heartbeat holds, ``at`` the time now."""
        if self.state == FENCED:
            return "declared fenced"
        if self.worker is None or self.heartbeat_at is None:
            return "no worker runs on it"
        age = (at - self.heartbeat_at) / 1_000_000
        if self.state == DOWN or age > limit:
            return f"no heartbeat since {isoformat(self.heartbeat_at)}"
        return None


class HostRepository:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._details: dict[str, tuple[int, Mapping[str, Any], Mapping[str, str]]] = {}
        self._records: dict[str, tuple[tuple[Any, ...], HostRecord]] = {}
        """What was last read, and what was made of it: of a thousand hosts few have changed since the last decision."""

    def now(self) -> int:
        """The time that heartbeats are measured by, in microseconds since the epoch."""
        return self._database.clock.now()

    # -- what a worker says

    def register(
        self,
        name: str,
        vcpus: int,
        memory_mib: int,
        disk_gib: int,
        *,
        cpu_ratio: float = 1.0,
        memory_ratio: float = 1.0,
        disk_ratio: float = 1.0,
        capabilities: Mapping[str, Any] | None = None,
        zone: str = "nova",
        uri: str | None = None,
        worker: str | None = None,
    ) -> None:
        """Record what a host has, or has now. ``zone`` counts only for a host that is new.

        ``worker`` makes it the worker's: its heartbeat begins, and it is up. Without one, nothing is written if nothing
        has changed. ``capabilities`` None leaves them as they are.
        """
        values: dict[str, Any] = {
            "vcpus": vcpus,
            "memory_mib": memory_mib,
            "disk_gib": disk_gib,
            "cpu_ratio": cpu_ratio,
            "memory_ratio": memory_ratio,
            "disk_ratio": disk_ratio,
        }
        if capabilities is not None:
            values["capabilities"] = dict(capabilities)
        if worker is not None:
            values |= {"uri": uri, "worker": worker}
        known = self._row(name)
        changed = known is None or not values.items() <= known.items()
        if not changed and worker is None:
            return
        if changed:
            values["updated_at"] = now()
        if worker is not None:
            values |= {"state": UP, "heartbeat_at": self.now()}
        with self._database.transaction() as connection:
            if known is None and insert_unless_taken(
                connection, hosts, _NEW | {"zone": zone} | values | {"name": name}
            ):
                return
            if changed:
                values["generation"] = hosts.c.generation + 1
            connection.execute(hosts.update().where(hosts.c.name == name).values(**values))

    def heartbeat(self, name: str, worker: str) -> bool:
        """The host's worker lives. False: another worker has registered the host since; this one has lost it."""
        values = {"heartbeat_at": self.now(), "state": UP}
        return self._change(name, values, hosts.c.worker == worker)

    def sign_off(self, name: str, worker: str) -> bool:
        """The host's worker ends in peace: nobody looks after the host. False if it was not the host's any more.

        Its last heartbeat stays: what waits for the host goes on waiting as long as for one that may soon be back.
        """
        return self._change(name, {"worker": None}, hosts.c.worker == worker)

    def mark_down(self, older_than: float) -> list[str]:
        """Mark hosts as down whose last heartbeat is older than that many seconds.

        Gives the names of those that this call has marked: of several callers, each host is told to one.
        """
        limit = self.now() - int(older_than * 1_000_000)
        stale = hosts.c.state == UP, hosts.c.worker.is_not(None), hosts.c.heartbeat_at < limit
        with self._database.connect() as connection:
            names = list(connection.execute(sa.select(hosts.c.name).where(*stale)).scalars())
        return [name for name in names if self._change(name, {"state": DOWN}, *stale)]

    def why_silent(self, name: str, limit: float) -> str | None:
        """Why nothing can be expected of the host at present, for one who waits for it; None when it is up.

        A worker that ended in peace is missed only when it has not been replaced for ``limit`` seconds.
        """
        query = sa.select(hosts.c.state, hosts.c.heartbeat_at).where(hosts.c.name == name)
        with self._database.connect() as connection:
            found = connection.execute(query).first()
        if found is None:
            return f"host {name} is not registered"
        if found.state == FENCED:
            return f"host {name} was declared fenced"
        if found.heartbeat_at is None:
            return f"no worker has ever run on host {name}"
        if found.state == DOWN or self.now() - found.heartbeat_at > limit * 1_000_000:
            return f"no heartbeat of host {name} since {isoformat(found.heartbeat_at)}"
        return None

    def is_fenced(self, name: str) -> bool:
        """Whether an operator vouches for it that nothing runs there any more."""
        query = sa.select(hosts.c.name).where(hosts.c.name == name, hosts.c.state == FENCED)
        with self._database.connect() as connection:
            return connection.execute(query).first() is not None

    # -- what people decide

    def enable(self, name: str) -> None:
        """Instances may go there, also after a drain. NotFound."""
        self._set(name, {"enabled": True, "disabled_reason": None, "draining": False})

    def disable(self, name: str, reason: str | None = None) -> None:
        """No new instances; those that are there stay. NotFound."""
        self._set(name, {"enabled": False, "disabled_reason": reason})

    def drain(self, name: str, draining: bool = True) -> None:
        """No new instances, and those that are there are to leave. NotFound."""
        self._set(name, {"draining": draining})

    def fence(self, name: str) -> None:
        """Take the operator's word that nothing runs there any more. NotFound."""
        self._set(name, {"state": FENCED})

    def configure(self, name: str, *, zone: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Change the zone, or all labels. NotFound."""
        values: dict[str, Any] = {} if zone is None else {"zone": zone}
        if labels is not None:
            values["labels"] = dict(labels)
        self._set(name, values | {"updated_at": now()})

    # -- reading

    def get(self, name: str) -> HostRecord:
        """NotFound."""
        found = self.list([name])
        if not found:
            raise NotFound(kind="host", name=name)
        return found[0]

    def list(self, names: Iterable[str] | None = None) -> list[HostRecord]:
        """All, by name; or those of these names that exist, in their order."""
        columns = [column for column in hosts.columns if column.name not in _DETAILS]
        query = sa.select(*columns).order_by(hosts.c.name)
        order = None if names is None else list(names)
        if order is not None:
            query = query.where(hosts.c.name.in_(order))
        with self._database.connect() as connection:
            rows = connection.execute(query).all()
            changed = [row for row in rows if self._records.get(row[0], _NOTHING)[0] != tuple(row)]
            self._learn(connection, changed)
        for row in changed:
            _updated, capabilities, labels = self._details[row.name]
            self._records[row.name] = tuple(row), HostRecord(**row._mapping, capabilities=capabilities, labels=labels)
        records = [self._records[row[0]][1] for row in rows]
        if order is None:
            return records
        by_name = {record.name: record for record in records}
        return [by_name[name] for name in order if name in by_name]

    def in_flight(self) -> dict[str, int]:
        """By host, how many of its claims belong to operations that have not ended."""
        query = (
            sa.select(allocations.c.host, sa.func.count())
            .join(operations, operations.c.id == allocations.c.operation)
            .where(operations.c.state != "FINISHED")
            .group_by(allocations.c.host)
        )
        with self._database.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    # -- inside

    def _learn(self, connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> None:
        """Fetch the details of those hosts whose details are not the ones in memory."""
        details = self._details
        stale = [row.name for row in rows if details.get(row.name, _NOTHING)[0] != row.updated_at]
        for first in range(0, len(stale), 500):
            query = sa.select(hosts.c.name, hosts.c.updated_at, hosts.c.capabilities, hosts.c.labels)
            for row in connection.execute(query.where(hosts.c.name.in_(stale[first : first + 500]))):
                details[row.name] = (row.updated_at, row.capabilities, row.labels)

    def _row(self, name: str) -> dict[str, Any] | None:
        with self._database.connect() as connection:
            row = connection.execute(sa.select(hosts).where(hosts.c.name == name)).first()
        return None if row is None else dict(row._mapping)

    def _change(self, name: str, values: Mapping[str, Any], *conditions: sa.ColumnElement[bool]) -> bool:
        with self._database.transaction() as connection:
            return bool(
                connection.execute(hosts.update().where(hosts.c.name == name, *conditions).values(values)).rowcount
            )

    def _set(self, name: str, values: Mapping[str, Any]) -> None:
        if not self._change(name, values):
            raise NotFound(kind="host", name=name)


_NEW: dict[str, Any] = {
    "vcpus_used": 0,
    "memory_mib_used": 0,
    "disk_gib_used": 0,
    "generation": 1,
    "state": UP,
    "enabled": True,
    "disabled_reason": None,
    "draining": False,
    "worker": None,
    "heartbeat_at": None,
    "uri": None,
    "labels": {},
    "capabilities": {},
}
