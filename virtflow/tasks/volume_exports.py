"""On the backend's host: who may reach a volume, and how."""

from __future__ import annotations

import secrets as random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from virtflow.errors import NotFound
from virtflow.tasks.base import Intent, Task
from virtflow.volumes.driver import Connection, Reach, volume_name

CHAP = "chap"
"""The name of an attachment's secret: the password with which the instance's host logs in."""


class MakeCredentials(Task):
    """Make up the password with which the instance's host will log in, and keep it, encrypted, as long as the
    attachment lives. An instance on the backend's own host needs none.

    Reverts: purges it. It is made up once: a second execution keeps the first one's.
    """

    default_provides = "reach"

    def intents(self, attachment_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("secrets", attachment_id),)

    def execute(self, attachment_id: str, host: str, instance_host: str, secrets: Any) -> dict[str, Any]:
        return new_reach(attachment_id, host, instance_host, secrets)

    def revert(self, attachment_id: str, secrets: Any, **_kwargs: Any) -> None:
        secrets.purge(attachment_id)


class ExportVolume(Task):
    """Let the instance's host reach the volume; provides how.

    Reverts: takes that back. Exporting what is exported changes nothing.
    """

    default_provides = "connection"
    timeout = "disk"

    def intents(self, volume: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_export", f"{volume['backend']}/{volume['id']}"),)

    def execute(
        self, volume: Mapping[str, Any], reach: Mapping[str, Any], volume_drivers: Any, secrets: Any
    ) -> dict[str, Any]:
        return export(volume, reach, volume_drivers, secrets)

    def revert(self, volume: Mapping[str, Any], volume_drivers: Any, **_kwargs: Any) -> None:
        volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))


class SaveConnection(Task):
    """Save how the volume is reached before anybody connects: whoever finds the row afterwards can take it away again.

    Reverts: forgets it. Saving it twice is saving it once.
    """

    def execute(self, attachment_id: str, connection: Mapping[str, Any], volume_attachments: Any) -> None:
        volume_attachments.set(attachment_id, connection=dict(connection))

    def revert(self, attachment_id: str, volume_attachments: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            volume_attachments.set(attachment_id, connection=None)


class ForgetConnection(Task):
    """Forget how the volume is reached before nobody reaches it any more: what has no connection is not exported again
    when its server is restarted.

    Reverts: saves it again. One that was saved meanwhile by somebody else is neither forgotten nor replaced.
    """

    default_provides = "forgotten"

    def execute(self, attachment: Mapping[str, Any], volume: Mapping[str, Any], volume_attachments: Any) -> bool:
        found = volume_attachments.of_volume(volume["id"])
        if found is not None and (found.id, found.connection) == (attachment["id"], attachment["connection"]):
            volume_attachments.set(found.id, connection=None)
        return True

    def revert(
        self, attachment: Mapping[str, Any], volume: Mapping[str, Any], volume_attachments: Any, **_kwargs: Any
    ) -> None:
        found = volume_attachments.of_volume(volume["id"])
        if found is not None and found.id == attachment["id"] and not found.connection:
            volume_attachments.set(found.id, connection=attachment["connection"])


class UnexportVolume(Task):
    """Nobody reaches the volume any more.

    Reverts: exports it again, to the host that had it, and saves how it is reached now. Twice is once.
    """

    timeout = "disk"

    def execute(
        self,
        volume: Mapping[str, Any],
        forgotten: bool,  # noqa: ARG002 - the order
        volume_drivers: Any,
    ) -> None:
        volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))

    def revert(
        self,
        volume: Mapping[str, Any],
        attachment: Mapping[str, Any],
        volume_drivers: Any,
        volume_attachments: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        served = is_by_nbd(attachment["connection"])
        reach = new_reach(attachment["id"], volume["host"], attachment["host"], secrets, served=served)
        volume_attachments.set(attachment["id"], connection=export(volume, reach, volume_drivers, secrets))


def new_reach(
    attachment_id: str, host: str, instance_host: str, secrets: Any, *, served: bool = False
) -> dict[str, Any]:
    """Who will reach a volume of ``host``: ``user``, and the reference of the password, where it is another host, or
    one that is ``served`` like another."""
    if host == instance_host and not served:
        return {"local": True, "user": "", "password": None}
    reference = secrets.put_once(attachment_id, CHAP, random.token_hex(16).encode())
    return {"local": False, "user": attachment_id, "password": reference}


def is_by_nbd(connection: Mapping[str, Any] | None) -> bool:
    """Whether this is NBD, by which a volume is reached on its backend's own host, too, when its guest has come there
    while it ran."""
    return (connection or {}).get("kind") == "nbd"


def export(volume: Mapping[str, Any], reach: Mapping[str, Any], volume_drivers: Any, secrets: Any) -> dict[str, Any]:
    """Export the volume to who will reach it; its connection, as plain data."""
    password = "" if reach["password"] is None else secrets.get(reach["password"]).decode()
    wanted = Reach(local=reach["local"], user=reach["user"], password=password)
    found: Connection = volume_drivers.get(volume["backend"]).export(volume_name(volume["id"]), wanted)
    return replace(found, encryption=volume.get("encryption") or "").to_dict()


def password_of(attachment_id: str, connection: Mapping[str, Any], secrets: Any) -> str:
    """What to log in with; empty where nobody asks."""
    if not connection.get("user"):
        return ""
    return str(secrets.get(secrets.reference(attachment_id, CHAP)).decode())
