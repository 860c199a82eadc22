"""Where volumes can be, and what is left there; and the types that say what they want of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from virtflow.errors import AlreadyExists, HostFull, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.volumes import volume_backends as backends
from virtflow.persistence.models.volumes import volume_snapshots, volume_types, volumes


@dataclass(frozen=True, kw_only=True)
class Backend:
    """``total_gib`` is what may be allocated in all, ``allocated_gib`` what is."""

    name: str
    host: str
    driver: str
    zone: str
    enabled: bool = True
    total_gib: int
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    updated_at: int = field(default_factory=now)
    allocated_gib: int = 0

    @property
    def free_gib(self) -> int:
        return self.total_gib - self.allocated_gib


@dataclass(frozen=True)
class VolumeType:
    """``capabilities`` are wanted of the backend: values as in a flavor's ``capabilities:`` properties."""

    name: str
    capabilities: Mapping[str, str]
    created_at: int


class BackendRepository:
    """A volume claims its place by naming the backend; whoever claims locks the backend's row first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, backend: Backend) -> None:
        """Write what its host says of it. Whether it is enabled is left as a person has set it."""
        values = {name: value for name, value in backend.__dict__.items() if name != "allocated_gib"}
        with self._database.transaction() as connection:
            if not insert_unless_taken(connection, backends, values):
                del values["enabled"]
                connection.execute(backends.update().where(backends.c.name == backend.name).values(**values))

    def get(self, name: str) -> Backend:
        """NotFound."""
        found = self.list([name])
        if not found:
            raise NotFound(kind="volume backend", name=name)
        return found[0]

    def is_shared(self, name: str) -> bool:
        """Whether it serves other hosts than its own. NotFound."""
        query = sa.select(backends.c.capabilities).where(backends.c.name == name)
        with self._database.connect() as connection:
            found = connection.execute(query).first()
        if found is None:
            raise NotFound(kind="volume backend", name=name)
        return bool(found.capabilities.get("shared"))

    def list(self, names: Sequence[str] | None = None, host: str | None = None) -> Sequence[Backend]:
        """By name."""
        query = sa.select(backends).order_by(backends.c.name)
        if names is not None:
            query = query.where(backends.c.name.in_(list(names)))
        if host is not None:
            query = query.where(backends.c.host == host)
        with self._database.connect() as connection:
            allocated = _allocated(connection)
            rows = list(connection.execute(query))
        return [Backend(**row._mapping, allocated_gib=allocated.get(row.name, 0)) for row in rows]

    def claim(self, name: str, volume: str, operation: str) -> Backend:
        """Give the volume its place. A second claim of the same volume there is the same one.

        HostFull when there is not enough room, NotFound when the backend is gone.
        """
        with self._locked(name, besides=volume) as (connection, backend):
            wanted = connection.execute(sa.select(volumes.c.size_gib).where(volumes.c.id == volume)).scalar_one()
            _check_room(backend, wanted)
            mine = volumes.update().where(volumes.c.id == volume, volumes.c.operation == operation)
            connection.execute(mine.values(backend=name, host=backend.host))
        return backend

    def resize(self, name: str, volume: str, operation: str, size_gib: int) -> None:
        """Let a volume that this operation holds be of that size. HostFull when there is not enough room."""
        with self._locked(name, besides=volume) as (connection, backend):
            _check_room(backend, size_gib)
            mine = volumes.update().where(volumes.c.id == volume, volumes.c.held_by == operation)
            connection.execute(mine.values(size_gib=size_gib))

    def check_room(self, name: str, wanted: int) -> None:
        """Raise HostFull when there is no room for ``wanted`` GiB more."""
        _check_room(self.get(name), wanted)

    def unclaim(self, name: str, volume: str, operation: str) -> None:
        """Undo ``claim``; nothing to undo is fine."""
        mine = volumes.update().where(
            volumes.c.id == volume, volumes.c.operation == operation, volumes.c.backend == name
        )
        with self._database.transaction() as connection:
            connection.execute(mine.values(backend=None, host=None))

    @contextmanager
    def _locked(self, name: str, *, besides: str) -> Iterator[tuple[sa.Connection, Backend]]:
        """The backend, with what all volumes but one have of it. The update locks the row, on every database."""
        with self._database.transaction() as connection:
            if not connection.execute(
                backends.update().where(backends.c.name == name).values(updated_at=now())
            ).rowcount:
                raise NotFound(kind="volume backend", name=name)
            row = connection.execute(sa.select(backends).where(backends.c.name == name)).one()
            yield connection, Backend(**row._mapping, allocated_gib=_allocated(connection, besides).get(name, 0))


class VolumeTypeRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, capabilities: Mapping[str, str]) -> VolumeType:
        """AlreadyExists."""
        found = VolumeType(name, dict(capabilities), now())
        with self._database.transaction() as connection:
            if not insert_unless_taken(connection, volume_types, found.__dict__):
                raise AlreadyExists(kind="volume type", name=name)
        return found

    def get(self, name: str) -> VolumeType:
        """NotFound."""
        for each in self.list():
            if each.name == name:
                return each
        raise NotFound(kind="volume type", name=name)

    def list(self) -> Sequence[VolumeType]:
        """By name."""
        with self._database.connect() as connection:
            query = sa.select(volume_types).order_by(volume_types.c.name)
            return [VolumeType(**row._mapping) for row in connection.execute(query)]


def _check_room(backend: Backend, wanted: int) -> None:
    if wanted > backend.free_gib:
        fields = {"resource": "volume_gib", "requested": wanted, "available": max(backend.free_gib, 0)}
        raise HostFull(host=backend.name, **fields)


def _allocated(connection: sa.Connection, besides: str = "") -> dict[str, int]:
    """GiB of what is on each backend, or in its trash."""
    total: dict[str, int] = {}
    for table in (volumes, volume_snapshots):
        query = (
            sa.select(table.c.backend, sa.func.sum(table.c.size_gib))
            .where(table.c.backend.is_not(None), table.c.purged_at.is_(None), table.c.id != besides)
            .group_by(table.c.backend)
        )
        for name, amount in connection.execute(query):
            total[name] = total.get(name, 0) + int(amount)
    return total
