"""Instances: who they are, where they are, and in which state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from virtflow.errors import AlreadyExists, Conflict, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import instances as table
from virtflow.persistence.models.volumes import volume_attachments, volumes

GOING_ON = "GOING_ON"
"""The task state while its host's worker lets its halted guest run: nobody else begins anything meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """``memory_mib`` in MiB, ``disk_gib`` in GiB, times in microseconds since the epoch.

    ``operation`` is the one that created it; ``deleted_at`` alone says whether it is deleted (``vm_state`` keeps what
    it was, so that an undone delete loses nothing).
    """

    uuid: str
    name: str
    project: str
    host: str | None = None
    vm_state: str
    task_state: str | None = None
    vcpus: int
    memory_mib: int
    disk_gib: int
    image_id: str | None = None
    image_name: str | None = None
    flavor: str | None = None
    meta: dict[str, str] = field(default_factory=dict)
    operation: str
    fault: str | None = None
    created_at: int = field(default_factory=now)
    launched_at: int | None = None
    deleted_at: int | None = None
    deleted_by: str | None = None


_FIXED = {"uuid", "name", "project", "operation", "created_at", "deleted_at", "deleted_by"}
_CHANGEABLE = frozenset(Instance.__dataclass_fields__) - _FIXED


class InstanceRepository:
    """One live instance of a name per project; the database's unique constraint is what guarantees it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, instance: Instance) -> None:
        """Create the row, or write it again if the same operation created it.

        AlreadyExists: another live instance has the name, or another operation created the uuid.
        """
        values = asdict(instance) | {"live_name": instance.name if instance.deleted_at is None else None}
        with self._database.transaction() as connection:
            if insert_unless_taken(connection, table, values):
                return
            del values["created_at"]
            own = table.update().where(table.c.uuid == instance.uuid, table.c.operation == instance.operation)
            with _name_taken(instance.name):
                if connection.execute(own.values(**values)).rowcount:
                    return
            raise AlreadyExists(kind="instance", name=instance.name)

    def get(self, uuid: str) -> Instance:
        """By uuid, deleted or not. NotFound."""
        with self._database.connect() as connection:
            return _get(connection, uuid)

    def is_live(self, uuid: str) -> bool:
        """Whether there is such an instance, and it is not deleted."""
        query = sa.select(table.c.uuid).where(table.c.uuid == uuid, table.c.deleted_at.is_(None))
        with self._database.connect() as connection:
            return connection.execute(query).first() is not None

    def find(self, name_or_uuid: str, project: str, *, include_deleted: bool = False) -> Instance:
        """By uuid or live name within a project. Deleted ones are found by their uuid, and only if asked for."""
        live = sa.true() if include_deleted else table.c.deleted_at.is_(None)
        query = sa.select(table).where(
            table.c.project == project,
            sa.or_(sa.and_(table.c.uuid == name_or_uuid, live), table.c.live_name == name_or_uuid),
        )
        with self._database.connect() as connection:
            found = [_instance(row) for row in connection.execute(query)]
        if not found:
            raise NotFound(kind="instance", name=name_or_uuid)
        # An instance may bear the uuid of another as its name: the uuid wins.
        return max(found, key=lambda instance: instance.uuid == name_or_uuid)

    def list(self, project: str | None = None, include_deleted: bool = False) -> Sequence[Instance]:
        """Oldest first."""
        query = sa.select(table).order_by(table.c.created_at, table.c.uuid)
        if project is not None:
            query = query.where(table.c.project == project)
        if not include_deleted:
            query = query.where(table.c.deleted_at.is_(None))
        with self._database.connect() as connection:
            return [_instance(row) for row in connection.execute(query)]

    def compare_and_set(self, uuid: str, expected: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
        """Write ``changes`` if every column in ``expected`` has that value, or one of those in a tuple; say whether.

        A step that may run twice names what it sets among what it expects: ``{"task_state": (None, "DELETING")}``.
        Identity, name and deletion cannot be changed here (ValueError).
        """
        if not changes.keys() <= _CHANGEABLE:
            raise ValueError(f"not changeable: {', '.join(sorted(changes.keys() - _CHANGEABLE))}")
        statement = table.update().where(table.c.uuid == uuid)
        for column, value in expected.items():
            allowed = value if isinstance(value, tuple) else (value,)
            statement = statement.where(sa.or_(*(table.c[column].is_not_distinct_from(each) for each in allowed)))
        with self._database.transaction() as connection:
            return connection.execute(statement.values(**changes)).rowcount == 1

    def attached_volumes(self, uuid: str) -> Sequence[str]:
        """The names of the volumes that it has, or is getting."""
        joined = volume_attachments.join(volumes, volumes.c.id == volume_attachments.c.volume)
        query = sa.select(volumes.c.name).select_from(joined).where(volume_attachments.c.instance == uuid)
        with self._database.connect() as connection:
            return list(connection.execute(query.order_by(volumes.c.name)).scalars())

    def mark_deleted(self, uuid: str, operation: str) -> None:
        """Free the name and keep the row. NotFound; Conflict if another operation deleted it."""
        with self._database.transaction() as connection:
            marked = connection.execute(
                table.update()
                .where(table.c.uuid == uuid, table.c.deleted_at.is_(None))
                .values(live_name=None, deleted_at=now(), deleted_by=operation)
            )
            if marked.rowcount:
                return
            instance = _get(connection, uuid)
        if instance.deleted_by != operation:
            reason = f"operation {instance.deleted_by} has deleted it"
            raise Conflict(action="delete", kind="instance", name=instance.name, reason=reason)

    def restore(self, uuid: str) -> None:
        """Take a deletion back; one that lives is fine. NotFound; AlreadyExists if its name was taken meanwhile."""
        with self._database.transaction() as connection:
            instance = _get(connection, uuid)
            restored = table.update().where(table.c.uuid == uuid)
            with _name_taken(instance.name):
                connection.execute(restored.values(live_name=table.c.name, deleted_at=None, deleted_by=None))

    def remove(self, uuid: str, operation: str) -> bool:
        """Remove the row if ``operation`` created it; say whether it was there."""
        statement = table.delete().where(table.c.uuid == uuid, table.c.operation == operation)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists(kind="instance", name=name) from error


def _get(connection: sa.Connection, uuid: str) -> Instance:
    row = connection.execute(sa.select(table).where(table.c.uuid == uuid)).first()
    if row is None:
        raise NotFound(kind="instance", name=uuid)
    return _instance(row)


def _instance(row: sa.Row[Any]) -> Instance:
    values = dict(row._mapping)
    del values["live_name"]
    return Instance(**values)
