"""Tables of volumes: where they can be (backends), what they can be (types), what they are, and who uses them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from virtflow.persistence.models.base import MICROSECONDS, NAME, UUID, PlainJSON, metadata

volume_backends = Table(
    "volume_backends",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("host", NAME, nullable=False),
    Column("driver", NAME, nullable=False),
    Column("zone", NAME, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("total_gib", Integer, nullable=False),
    Column("capabilities", PlainJSON, nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
)
"""A place for volumes, ``HOST@NAME``. ``total_gib`` is what may be allocated in all; what is allocated is the sum over
the volumes and snapshots that name the backend and are not purged."""

volume_types = Table(
    "volume_types",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("capabilities", PlainJSON, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
)
"""What volumes of a type want of their backend, by capability."""

volumes = Table(
    "volumes",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", NAME, nullable=False),
    Column("live_name", NAME, nullable=True),
    Column("project", NAME, nullable=False),
    Column("size_gib", Integer, nullable=False),
    Column("state", String(32), nullable=False),
    Column("held_by", UUID, nullable=True),
    Column("resting", String(32), nullable=True),
    Column("backend", NAME, nullable=True),
    Column("host", NAME, nullable=True),
    Column("type", NAME, nullable=True),
    Column("zone", NAME, nullable=True),
    Column("bootable", Boolean, nullable=False),
    Column("encryption", String(16), nullable=True),
    Column("source", PlainJSON, nullable=False),
    Column("meta", PlainJSON, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("deleted_at", MICROSECONDS, nullable=True),
    Column("deleted_by", UUID, nullable=True),
    Column("purged_at", MICROSECONDS, nullable=True),
    UniqueConstraint("project", "live_name"),
    Index("ix_volumes_backend", "backend"),
)
"""One row per volume, kept when it is deleted, as for instances. ``held_by`` is the operation that has brought it into
a state in which nothing else may be done with it, and ``resting`` the state from which; null in a state of rest."""

volume_snapshots = Table(
    "volume_snapshots",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", NAME, nullable=False),
    Column("live_name", NAME, nullable=True),
    Column("project", NAME, nullable=False),
    Column("volume", UUID, ForeignKey("volumes.id"), nullable=False),
    Column("size_gib", Integer, nullable=False),
    Column("state", String(32), nullable=False),
    Column("held_by", UUID, nullable=True),
    Column("resting", String(32), nullable=True),
    Column("backend", NAME, nullable=True),
    Column("host", NAME, nullable=True),
    Column("bootable", Boolean, nullable=False),
    Column("encryption", String(16), nullable=True),
    Column("operation", UUID, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("deleted_at", MICROSECONDS, nullable=True),
    Column("deleted_by", UUID, nullable=True),
    Column("purged_at", MICROSECONDS, nullable=True),
    UniqueConstraint("project", "live_name"),
    Index("ix_volume_snapshots_volume", "volume"),
)
"""A volume as it was at one moment, on the backend of the volume."""

volume_attachments = Table(
    "volume_attachments",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("volume", UUID, ForeignKey("volumes.id"), nullable=False),
    Column("instance", UUID, nullable=False),
    Column("host", NAME, nullable=False),
    Column("device", NAME, nullable=True),
    Column("connection", PlainJSON, nullable=True),
    Column("delete_volume", Boolean, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    UniqueConstraint("volume"),
    Index("ix_volume_attachments_instance", "instance"),
    Index("ix_volume_attachments_host", "host"),
)
"""Which instance has a volume, or is getting it: the unique key is what keeps a second writer out. ``connection`` says
how the instance's host reaches it, and is saved before anybody connects. ``delete_volume``: the volume goes with the
instance."""
