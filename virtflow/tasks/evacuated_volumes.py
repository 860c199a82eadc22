"""The volumes of an instance that leaves a dead host. That host may come back, and may never have been dead: it knows a
user and a password for each volume, so its next host gets others, and these are taken away first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from virtflow.errors import Conflict, NotFound
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.moved_volumes import KEPT, Moved, disconnect_left
from virtflow.tasks.volume_exports import export, new_reach
from virtflow.volumes.driver import volume_name


class MakeNewCredentials(Task):
    """Make up the attachments that the volumes will have on the destination, each with a user and, where the backend is
    elsewhere, a password of its own. Provides the volumes with them, and what the exports start from.

    Reverts: purges the passwords. Ids are those of operation and destination; each password is made up once.
    """

    default_provides = ("new_volumes", "exports")

    def intents(self, moved_volumes: Moved, operation: str, destination: str, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(
            Intent("secrets", each["attachment_id"]) for each in _with_ids(moved_volumes, operation, destination)
        )

    def execute(
        self, moved_volumes: Moved, operation: str, source_host: str, destination: str, secrets: Any
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        new = _with_ids(moved_volumes, operation, destination)
        exports = [
            {
                "host": each["host"],
                "place": f"{each['id']}/{destination}",
                "volume": {name: each[name] for name in KEPT},
                "attachment_id": taken["attachment_id"],
                "reach": new_reach(taken["attachment_id"], each["host"], destination, secrets),
                "source_reach": new_reach(each["attachment_id"], each["host"], source_host, secrets),
            }
            for each, taken in zip(moved_volumes, new, strict=True)
        ]
        return new, exports

    def revert(self, moved_volumes: Moved, operation: str, destination: str, secrets: Any, **_kwargs: Any) -> None:
        for each in _with_ids(moved_volumes, operation, destination):
            secrets.purge(each["attachment_id"])


class ReplaceAttachments(Task):
    """The destination has the volumes; how it reaches them is not known yet, and the dead host is served no more by
    whoever puts back what a server has lost.

    Reverts: the dead host has them, as before. Each row is changed at once, and found under either id.
    """

    def execute(
        self,
        moved_volumes: Moved,
        new_volumes: Moved,
        destination: str,
        volume_attachments: Any,
    ) -> None:
        for each, taken in zip(moved_volumes, new_volumes, strict=True):
            found = volume_attachments.of_volume(each["id"])
            if found is None or found.id != taken["attachment_id"]:
                changes = {"id": taken["attachment_id"], "host": destination, "connection": None}
                volume_attachments.set(each["attachment_id"], **changes)

    def revert(
        self,
        moved_volumes: Moved,
        new_volumes: Moved,
        source_host: str,
        volume_attachments: Any,
        **_kwargs: Any,
    ) -> None:
        for each, taken in zip(moved_volumes, new_volumes, strict=True):
            before = {"id": each["attachment_id"], "host": source_host, "connection": dict(each["connection"])}
            with suppress(NotFound):
                volume_attachments.set(taken["attachment_id"], **before)


class ExportAnew(Task):
    """Let the destination reach the volume, and nobody else: whoever is connected is cut off first, and does not get in
    again. Provides how.

    Reverts: cuts the destination off, and lets the dead host in again, should it come back. Nobody is connected yet
    when it is executed twice.
    """

    default_provides = "connection"
    timeout = "disk"

    def intents(self, volume: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_export", f"{volume['backend']}/{volume['id']}"),)

    def execute(
        self, volume: Mapping[str, Any], reach: Mapping[str, Any], volume_drivers: Any, secrets: Any
    ) -> dict[str, Any]:
        return _export_alone(volume, reach, volume_drivers, secrets)

    def revert(
        self, volume: Mapping[str, Any], source_reach: Mapping[str, Any], volume_drivers: Any, secrets: Any, **_kw: Any
    ) -> None:
        _export_alone(volume, source_reach, volume_drivers, secrets)


class PurgeOldCredentials(Task):
    """Forget the passwords with which the dead host logged in. Reverts: makes up new ones for it. Absent is purged."""

    def execute(self, moved_volumes: Moved, secrets: Any) -> None:
        for each in moved_volumes:
            secrets.purge(each["attachment_id"])

    def revert(self, moved_volumes: Moved, source_host: str, secrets: Any, **_kwargs: Any) -> None:
        for each in moved_volumes:
            new_reach(each["attachment_id"], each["host"], source_host, secrets)


class DisconnectLeftVolumes(Task):
    """A host that is back reaches the volumes of an evacuated instance no more, and libvirt forgets their passwords and
    keys. What an instance of this host has got since stays. Past the pivot: not reverted. Absent is disconnected.
    """

    timeout = "disk"

    def execute(
        self,
        left: Mapping[str, Any],
        retired: bool,  # noqa: ARG002 - the order
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        settings: Any,
    ) -> None:
        reaching = (volume_attachments, volume_connector, libvirt_secrets, self.activity)
        disconnect_left(left["volumes"], settings.host, *reaching)


def check_not_lost(instance: Any, moved: Moved) -> None:
    """Raise Conflict where a volume's backend is on the dead host."""
    for each in moved:
        if each["host"] == instance.host:
            reason = f"its volume {each['name']} is on that host, {each['host']}, and cannot be reached without it"
            raise Conflict(action="evacuate", kind="instance", name=instance.name, reason=reason)


def _with_ids(moved: Moved, operation: str, destination: str) -> list[dict[str, Any]]:
    """The volumes with the attachments that the operation gives them on this destination."""
    space = uuid.UUID(operation)
    return [
        {**each, "attachment_id": str(uuid.uuid5(space, f"attachment/{destination}/{each['id']}"))} for each in moved
    ]


def _export_alone(
    volume: Mapping[str, Any], reach: Mapping[str, Any], volume_drivers: Any, secrets: Any
) -> dict[str, Any]:
    """Only who logs in from now on, as this user, reaches it."""
    volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))
    return export(volume, reach, volume_drivers, secrets)
