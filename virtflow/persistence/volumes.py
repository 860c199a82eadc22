"""Volumes, their snapshots, and the instances that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from virtflow.errors import Conflict, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.volumes import volume_attachments, volume_snapshots, volumes
from virtflow.persistence.volume_rows import HeldRows


@dataclass(frozen=True, kw_only=True)
class Volume:
    """``source`` is what it was made from: empty, or an id under ``image``, ``snapshot`` or ``volume``.

    Times in microseconds since the epoch. ``operation`` is the one that created it.
    """

    id: str
    name: str
    project: str
    size_gib: int
    state: str
    held_by: str | None = None
    resting: str | None = None
    backend: str | None = None
    host: str | None = None
    type: str | None = None
    zone: str | None = None
    bootable: bool = False
    encryption: str | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    operation: str
    created_at: int = field(default_factory=now)
    deleted_at: int | None = None
    deleted_by: str | None = None
    purged_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """``volume`` is the id of the volume that it was taken of."""

    id: str
    name: str
    project: str
    volume: str
    size_gib: int
    state: str
    held_by: str | None = None
    resting: str | None = None
    backend: str | None = None
    host: str | None = None
    bootable: bool = False
    encryption: str | None = None
    operation: str
    created_at: int = field(default_factory=now)
    deleted_at: int | None = None
    deleted_by: str | None = None
    purged_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """``connection`` is how the instance's host reaches the volume; ``device`` the guest's name for it.

    ``delete_volume``: the volume is deleted together with the instance.
    """

    id: str
    volume: str
    instance: str
    host: str
    device: str | None = None
    connection: Mapping[str, Any] | None = None
    delete_volume: bool = False
    operation: str
    created_at: int = field(default_factory=now)


class VolumeRepository(HeldRows[Volume]):
    """One live volume of a name per project."""

    table = volumes
    kind = "volume"
    record = Volume


class SnapshotRepository(HeldRows[Snapshot]):
    """One live snapshot of a name per project."""

    table = volume_snapshots
    kind = "volume snapshot"
    record = Snapshot


class AttachmentRepository:
    """At most one attachment of a volume: the database's unique key is what guarantees it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, attachment: Attachment) -> None:
        """Insert, or find the same one. Conflict when another has the volume."""
        with self._database.transaction() as connection:
            if insert_unless_taken(connection, volume_attachments, attachment.__dict__):
                return
            found = connection.execute(_of(volume=attachment.volume)).first()
            if found is None or found.id != attachment.id:
                reason = "another instance has it"
                raise Conflict(action="attach", kind="volume", name=attachment.volume, reason=reason)

    def set(self, identity: str, **changes: Any) -> None:
        """Write what is known by now. NotFound."""
        statement = volume_attachments.update().where(volume_attachments.c.id == identity).values(**changes)
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                raise NotFound(kind="volume attachment", name=identity)

    def drop(self, identity: str) -> bool:
        """Remove it; say whether it was there."""
        statement = volume_attachments.delete().where(volume_attachments.c.id == identity)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def list(self, **given: Any) -> Sequence[Attachment]:
        """Those that match, oldest first."""
        with self._database.connect() as connection:
            return [Attachment(**row._mapping) for row in connection.execute(_of(**given))]

    def of_volume(self, volume: str) -> Attachment | None:
        found = self.list(volume=volume)
        return found[0] if found else None


def _of(**given: Any) -> sa.Select[Any]:
    query = sa.select(volume_attachments).filter_by(**given)
    return query.order_by(volume_attachments.c.created_at, volume_attachments.c.id)
