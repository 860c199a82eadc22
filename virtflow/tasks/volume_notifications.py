"""Telling others what happens to a volume or a snapshot of one. Nothing that cannot be told stops an operation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import NotFound
from virtflow.notifications.payloads import (
    END,
    ERROR,
    START,
    UNDONE,
    Fault,
    Payload,
    VolumeActionPayload,
    VolumeSnapshotActionPayload,
)
from virtflow.persistence.models.base import isoformat, now
from virtflow.persistence.volumes import Snapshot, Volume
from virtflow.tasks.base import Task
from virtflow.tasks.failures import fault_of

VOLUME, SNAPSHOT = "volume", "snapshot"
_SAME = ("id", "name", "project", "size_gib", "state", "backend", "host", "bootable", "operation")
_TIMES = ("created_at", "deleted_at")


class NotifyVolumeStart(Task):
    """Tell that something begins to happen to the volume, such as ``volume.create``, or to a snapshot.

    Reverts: tells that it failed, with the fault, or was undone. By then everything that came after it is taken back.
    Said twice, it has the same message id.
    """

    def __init__(self, action: str, kind: str = VOLUME) -> None:
        super().__init__(rebind={"identity": f"{kind}_id"}, revert_rebind={"identity": f"{kind}_id"})
        self.action = action
        self.kind = kind

    def execute(
        self,
        identity: str,
        operation: str,
        volumes: Any,
        volume_snapshots: Any,
        volume_attachments: Any,
        notifier: Any,
    ) -> None:
        document = self._payload(identity, volumes, volume_snapshots, volume_attachments)
        notifier.notify(self.action, START, document, operation=operation, timestamp=isoformat(now()))

    def revert(
        self,
        identity: str,
        operation: str,
        volumes: Any,
        volume_snapshots: Any,
        volume_attachments: Any,
        notifier: Any,
        flow_failures: Mapping[str, Failure],
        **_kwargs: Any,
    ) -> None:
        fault = fault_of(flow_failures)
        with suppress(NotFound):
            document = self._payload(identity, volumes, volume_snapshots, volume_attachments, fault)
            phase = UNDONE if fault is None else ERROR
            notifier.notify(self.action, phase, document, operation=operation, timestamp=isoformat(now()))

    def _payload(
        self, identity: str, volumes: Any, volume_snapshots: Any, volume_attachments: Any, fault: Fault | None = None
    ) -> Payload:
        if self.kind == VOLUME:
            return volume_payload(volumes.get(identity), volume_attachments, fault)
        return snapshot_payload(volume_snapshots.get(identity), fault)


class NotifyVolumeEnd(NotifyVolumeStart):
    """Tell that what was begun has succeeded.

    Reverts: nothing. It was true when it was said; NotifyVolumeStart's revert tells what became of it.
    """

    def execute(
        self,
        identity: str,
        operation: str,
        volumes: Any,
        volume_snapshots: Any,
        volume_attachments: Any,
        notifier: Any,
    ) -> None:
        document = self._payload(identity, volumes, volume_snapshots, volume_attachments)
        notifier.notify(self.action, END, document, operation=operation, timestamp=isoformat(now()))

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """Nothing was made."""


def volume_payload(volume: Volume, volume_attachments: Any, fault: Fault | None = None) -> VolumeActionPayload:
    """The volume as others may know it, with the instance that has it, or is getting it."""
    attachment = volume_attachments.of_volume(volume.id)
    return VolumeActionPayload(
        **_plain(volume),
        type=volume.type,
        zone=volume.zone,
        instance=None if attachment is None else attachment.instance,
        device=None if attachment is None else attachment.device,
        fault=fault,
    )


def snapshot_payload(snapshot: Snapshot, fault: Fault | None = None) -> VolumeSnapshotActionPayload:
    """The snapshot as others may know it."""
    return VolumeSnapshotActionPayload(**_plain(snapshot), volume=snapshot.volume, fault=fault)


def _plain(row: Volume | Snapshot) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(row, name) for name in _SAME}
    return values | {name: isoformat(getattr(row, name)) for name in _TIMES}
