"""The notifications' schema: a versioned payload in an envelope, as plain JSON data.

The payload's ``version`` is MAJOR.MINOR: a new field raises the second number, anything that could break a reader the
first. Samples of every event are in docs/reference/notifications. No user's metadata, user-data, password, key or file
is in a payload.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

START, END, ERROR, UNDONE = "start", "end", "error", "undone"
"""``error`` after everything was taken back; ``undone`` when a finished operation was taken back on request."""


@dataclass(frozen=True)
class Address:
    """One port of the instance."""

    address: str
    mac: str
    port: str
    network: str


@dataclass(frozen=True)
class Fault:
    """What went wrong. ``message`` is virtflow's own; of a foreign exception only its type is told."""

    exception: str
    message: str


class Payload(Protocol):
    """What a notification is about; every payload is a dataclass."""

    NAME: ClassVar[str]
    VERSION: ClassVar[str]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""


@dataclass(frozen=True, kw_only=True)
class InstanceActionPayload:
    """The instance at that moment. Sizes: MiB, GiB; times: ISO 8601, UTC."""

    NAME: ClassVar[str] = "InstanceActionPayload"
    VERSION: ClassVar[str] = "1.0"

    uuid: str
    name: str
    project: str
    host: str | None
    vm_state: str
    task_state: str | None
    vcpus: int
    memory_mib: int
    disk_gib: int
    flavor: str | None
    image_id: str | None
    image_name: str | None
    addresses: tuple[Address, ...]
    created_at: str | None
    launched_at: str | None
    deleted_at: str | None
    operation: str
    fault: Fault | None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"addresses": [asdict(each) for each in self.addresses]}


@dataclass(frozen=True, kw_only=True)
class InstanceSnapshotPayload(InstanceActionPayload):
    """The instance, and the image that is made of it."""

    NAME: ClassVar[str] = "InstanceSnapshotPayload"
    VERSION: ClassVar[str] = "1.0"

    snapshot_image_id: str
    snapshot_image_name: str


@dataclass(frozen=True, kw_only=True)
class VolumeActionPayload:
    """The volume at that moment. Sizes: GiB; times: ISO 8601, UTC. ``instance`` is the uuid of the one that has it, or
    is getting it."""

    NAME: ClassVar[str] = "VolumeActionPayload"
    VERSION: ClassVar[str] = "1.0"

    id: str
    name: str
    project: str
    size_gib: int
    state: str
    backend: str | None
    host: str | None
    type: str | None
    zone: str | None
    bootable: bool
    instance: str | None
    device: str | None
    created_at: str | None
    deleted_at: str | None
    operation: str
    fault: Fault | None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class VolumeSnapshotActionPayload:
    """The snapshot at that moment; ``volume`` is the id of the volume that it was taken of."""

    NAME: ClassVar[str] = "VolumeSnapshotActionPayload"
    VERSION: ClassVar[str] = "1.0"

    id: str
    name: str
    project: str
    volume: str
    size_gib: int
    state: str
    backend: str | None
    host: str | None
    bootable: bool
    created_at: str | None
    deleted_at: str | None
    operation: str
    fault: Fault | None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def notification(
    action: str, phase: str, payload: Payload, *, host: str, operation: str, timestamp: str
) -> dict[str, Any]:
    """The document. ``action`` is such as ``instance.create``, ``operation`` the one that acts.

    ``message_id`` follows from operation and event, so that a reader recognises one that was sent twice.
    """
    event_type = f"{action}.{phase}"
    return {
        "message_id": str(uuid.uuid5(uuid.UUID(operation), event_type)),
        "event_type": event_type,
        "publisher_id": f"virtflow:{host}",
        "priority": "ERROR" if phase == ERROR else "INFO",
        "timestamp": timestamp,
        "payload": {"name": payload.NAME, "version": payload.VERSION, "data": payload.to_plain()},
    }
