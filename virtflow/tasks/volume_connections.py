"""On the instance's host: reaching a volume that is exported, and what libvirt has to know for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import Conflict
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.volume_encryption import key_of
from virtflow.tasks.volume_exports import password_of
from virtflow.volumes.connectors.connector import NETWORK
from virtflow.volumes.driver import Connection


class ConnectVolume(Task):
    """Let this host reach the volume; provides what its guest's disk stands on. The password goes to whoever logs in:
    the connector, or QEMU, which gets it from libvirt; and from there the key of an encrypted one.

    Reverts: forgets password and key, and lets the volume go. Connecting twice is connecting once.
    """

    default_provides = "disk_source"
    timeout = "disk"

    def intents(self, instance_uuid: str, volume_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_connection", f"{instance_uuid}/{volume_id}"),)

    def execute(
        self,
        volume_id: str,
        attachment_id: str,
        instance_uuid: str,  # noqa: ARG002 - whose volume it is, for the intent
        connection: Mapping[str, Any],
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
    ) -> dict[str, Any]:
        reaching = (volume_connector, libvirt_secrets, secrets, self.activity)
        return connect(volume_id, attachment_id, connection, *reaching)

    def revert(
        self,
        volume_id: str,
        connection: Mapping[str, Any],
        volume_connector: Any,
        libvirt_secrets: Any,
        **_kwargs: Any,
    ) -> None:
        disconnect(volume_id, connection, volume_connector, libvirt_secrets, self.activity)


class DisconnectVolume(Task):
    """This host reaches the volume no more, and libvirt forgets its password and its key. No guest has it by now.

    Reverts: connects again, as the attachment says now. Absent is disconnected.
    """

    timeout = "disk"

    def execute(
        self,
        volume_id: str,
        attachment: Mapping[str, Any],
        undefined: bool,  # noqa: ARG002 - the order
        volume_connector: Any,
        libvirt_secrets: Any,
    ) -> None:
        if attachment["connection"]:
            disconnect(volume_id, attachment["connection"], volume_connector, libvirt_secrets, self.activity)

    def revert(
        self,
        volume_id: str,
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        reach_again(volume_id, volume_attachments, volume_connector, libvirt_secrets, secrets, self.activity)


def connect(
    volume_id: str,
    attachment_id: str,
    connection: Mapping[str, Any],
    volume_connector: Any,
    libvirt_secrets: Any,
    secrets: Any,
    activity: Any,
) -> dict[str, Any]:
    """What the guest's disk stands on: a file or device of this host, or the connection itself. By then libvirt has
    what QEMU needs to log in, and to open what is encrypted."""
    encryption = connection.get("encryption", "")
    if encryption:
        libvirt_secrets.keep_key(volume_id, key_of(secrets, volume_id))
    password = password_of(attachment_id, connection, secrets)
    found = volume_connector.connect(Connection.from_dict(connection), password, activity)
    if found.kind != NETWORK:
        return {**found.to_dict(), "encryption": encryption}
    if password:
        libvirt_secrets.keep(volume_id, password.encode())
    return {**connection, "reconnect": found.reconnect} if found.reconnect else dict(connection)


def disconnect(
    volume_id: str, connection: Mapping[str, Any], volume_connector: Any, libvirt_secrets: Any, activity: Any
) -> None:
    """The opposite, whether or not it was connected."""
    if connection.get("user"):
        libvirt_secrets.forget(volume_id)
    volume_connector.disconnect(Connection.from_dict(connection), activity)
    if connection.get("encryption"):
        libvirt_secrets.forget_key(volume_id)


def reach_again(
    volume_id: str,
    volume_attachments: Any,
    volume_connector: Any,
    libvirt_secrets: Any,
    secrets: Any,
    activity: Any,
) -> dict[str, Any] | None:
    """Connect as the attachment says; what the guest's disk stands on. None where there is no attachment."""
    found = volume_attachments.of_volume(volume_id)
    if found is None or not found.connection:
        return None
    return connect(volume_id, found.id, found.connection, volume_connector, libvirt_secrets, secrets, activity)


def reach_as_before(
    volume: Mapping[str, Any],
    connection: Mapping[str, Any],
    volume_attachments: Any,
    volume_connector: Any,
    libvirt_secrets: Any,
    secrets: Any,
    activity: Any,
) -> None:
    """Connect as the attachment says. Conflict where that is not this connection, by which the domain's definition
    looks for the volume."""
    found = volume_attachments.of_volume(volume["id"])
    if found is None or found.connection != connection:
        reason = "it is not reached as before, and the domain would look for it where it was"
        raise Conflict(action="connect", kind="volume", name=volume["name"], reason=reason)
    reach_again(volume["id"], volume_attachments, volume_connector, libvirt_secrets, secrets, activity)
