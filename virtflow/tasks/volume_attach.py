"""A volume and its instance: who has it, and the device in the guest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence.volumes import Attachment
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.volume_connections import reach_again
from virtflow.tasks.volume_exports import new_reach
from virtflow.tasks.volume_holds import owed
from virtflow.volumes.connectors.connector import check_server
from virtflow.volumes.driver import Connection

ATTACHING, DETACHING = "ATTACHING_VOLUME", "DETACHING_VOLUME"
SNAPSHOTTING, HALTING = "SNAPSHOTTING", "HALTING"
_DETACHABLE = ("ACTIVE", "ERROR")
_OF_ANY_USE = (DETACHING, HALTING)
"""What can be done with an instance that has failed, too."""


class FindInstance(Task):
    """Find the instance that is to have the volume, and its host, which the volume's backend has to serve.

    It only reads.
    """

    default_provides = ("instance_uuid", "instance_host")

    def execute(
        self, request: Mapping[str, Any], project: str, volume: Mapping[str, Any], instances: Any, volume_backends: Any
    ) -> tuple[str, str]:
        instance = instances.find(request["instance"], project)
        if instance.host is None:
            raise InvalidRequest(field="instance", reason="is on no host")
        check_reachable(volume, instance.host, volume_backends, field="instance")
        return str(instance.uuid), str(instance.host)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class FindAttachment(Task):
    """Which instance has the volume, and how it is reached. It only reads; a second execution reads the same."""

    default_provides = ("attachment", "instance_uuid", "instance_host")

    def execute(self, volume_id: str, volume_attachments: Any) -> tuple[dict[str, Any], str, str]:
        found = volume_attachments.of_volume(volume_id)
        if found is None:
            raise NotFound(kind="attachment of volume", name=volume_id)
        return asdict(found), str(found.instance), str(found.host)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class HoldInstance(Task):
    """Mark what is being done on the instance, with this operation: nothing else is done with it meanwhile.

    Reverts: takes the mark away; not before everything that came after it was taken back. Its own mark it finds.
    """

    def __init__(self, doing: str, action: str = "change the volumes of") -> None:
        """``action`` is what errors say that cannot be done."""
        super().__init__()
        self.doing = doing
        self.action = action

    def execute(self, instance_uuid: str, operation: str, instances: Any) -> None:
        mark = _mark(self.doing, operation)
        expected = {"vm_state": _DETACHABLE if self.doing in _OF_ANY_USE else "ACTIVE", "task_state": (None, mark)}
        if not instances.compare_and_set(instance_uuid, expected, {"task_state": mark}):
            instance = instances.get(instance_uuid)
            reason = f"it is {instance.vm_state} ({instance.task_state})"
            raise Conflict(action=self.action, kind="instance", name=instance.name, reason=reason)

    def revert(self, instance_uuid: str, operation: str, instances: Any, ledger: Any, **_kwargs: Any) -> Debt | None:
        if owed(ledger, operation, self.name, "HoldVolume"):
            return Debt(error="what comes after it is not taken back yet")
        _unmark(instances, instance_uuid, _mark(self.doing, operation))
        return None


class LetInstanceGo(Task):
    """Take the mark away.

    Reverts: marks it again; a Conflict where somebody else is at work on the instance by now.
    """

    def __init__(self, doing: str) -> None:
        super().__init__()
        self.doing = doing

    def execute(self, instance_uuid: str, operation: str, instances: Any) -> None:
        _unmark(instances, instance_uuid, _mark(self.doing, operation))

    def revert(self, instance_uuid: str, operation: str, instances: Any, **_kwargs: Any) -> None:
        mark = _mark(self.doing, operation)
        with suppress(NotFound):
            instance = instances.get(instance_uuid)
            if not instances.compare_and_set(instance_uuid, {"task_state": (None, mark)}, {"task_state": mark}):
                reason = f"it is {instance.vm_state} ({instance.task_state})"
                raise Conflict(action="take back on", kind="instance", name=instance.name, reason=reason)


class ReserveAttachment(Task):
    """Write down that the instance is getting the volume: a second one is refused by the database.

    Reverts: removes the row. Its id is the operation's, so writing again is the same row.
    """

    def intents(self, attachment_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_attachment", attachment_id),)

    def execute(
        self,
        attachment_id: str,
        volume_id: str,
        instance_uuid: str,
        instance_host: str,
        operation: str,
        volume_attachments: Any,
    ) -> None:
        row = Attachment(
            id=attachment_id, volume=volume_id, instance=instance_uuid, host=instance_host, operation=operation
        )
        volume_attachments.reserve(row)

    def revert(self, attachment_id: str, volume_attachments: Any, **_kwargs: Any) -> None:
        volume_attachments.drop(attachment_id)


class DropAttachment(Task):
    """The instance has the volume no more, and nobody logs in to it: its password goes with the row.

    Reverts: writes the row again, as it was, and makes up a new password where it had one. Absent is removed.
    """

    def execute(self, attachment: Mapping[str, Any], volume_attachments: Any, secrets: Any) -> None:
        volume_attachments.drop(attachment["id"])
        secrets.purge(attachment["id"])

    def revert(
        self, attachment: Mapping[str, Any], host: str, volume_attachments: Any, secrets: Any, **_kwargs: Any
    ) -> None:
        volume_attachments.reserve(Attachment(**attachment))
        new_reach(attachment["id"], host, attachment["host"], secrets)


class ChooseDevice(Task):
    """Choose which device it will be in the guest, and save that before anybody plugs it in.

    Reverts: forgets it. It is chosen once: a second execution that finds one keeps it.
    """

    default_provides = "device"

    def execute(
        self, attachment_id: str, volume_id: str, instance_uuid: str, volume_attachments: Any, guest_disks: Any
    ) -> str:
        known = volume_attachments.of_volume(volume_id)
        device = known.device if known is not None and known.device else guest_disks.free_target(instance_uuid)
        volume_attachments.set(attachment_id, device=device)
        return str(device)

    def revert(self, attachment_id: str, volume_attachments: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            volume_attachments.set(attachment_id, device=None)


class AttachLive(Task):
    """Plug the disk into the guest, where one runs. Its serial is the volume's id.

    Reverts: asks the guest to let go and waits until it has, before anybody disconnects the volume; one that does not
    is a debt, and so is one whose volume is not served. A disk of that serial is plugged in already.
    """

    default_provides = "plugged_live"
    timeout = "boot"

    def intents(self, instance_uuid: str, volume_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("guest_disk", f"{instance_uuid}/{volume_id}"),)

    def execute(
        self, instance_uuid: str, volume_id: str, disk_source: Mapping[str, Any], device: str, guest_disks: Any
    ) -> bool:
        xml = guest_disks.description(disk_source, device, volume_id)
        guest_disks.attach(instance_uuid, volume_id, xml, live=True)
        return True

    def revert(
        self, instance_uuid: str, volume_id: str, connection: Mapping[str, Any], guest_disks: Any, **_kwargs: Any
    ) -> None:
        _let_go(instance_uuid, volume_id, connection, guest_disks, self.activity)


class AttachPersistent(Task):
    """Add the disk to the domain's definition, after the guest has taken it.

    Reverts: removes it from there. A disk of that serial is there already.
    """

    def execute(
        self,
        instance_uuid: str,
        volume_id: str,
        disk_source: Mapping[str, Any],
        device: str,
        plugged_live: bool,  # noqa: ARG002 - the order
        guest_disks: Any,
    ) -> None:
        xml = guest_disks.description(disk_source, device, volume_id)
        guest_disks.attach(instance_uuid, volume_id, xml, live=False)

    def revert(self, instance_uuid: str, volume_id: str, guest_disks: Any, **_kwargs: Any) -> None:
        guest_disks.detach_persistent(instance_uuid, volume_id)


class RecordDevice(Task):
    """Provide as which device the guest and the definition have the volume, before anything is done to it.

    It only reads.
    """

    default_provides = "device_record"

    def execute(self, instance_uuid: str, volume_id: str, guest_disks: Any) -> dict[str, Any]:
        found = {name: guest_disks.find(instance_uuid, volume_id, live=name == "live") for name in ("live", "defined")}
        return {name: None if disk is None else disk.target for name, disk in found.items()}

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class _Detaches(Task):
    """Takes the disk from the guest, or from the definition: ``where`` says from which, as in ``device_record``.

    Reverts: it has the disk again as which it was, if it had one, and as its attachment says now.
    """

    where: ClassVar[str]

    def revert(
        self,
        instance_uuid: str,
        volume_id: str,
        device_record: Mapping[str, Any],
        guest_disks: Any,
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        if device_record[self.where] is None:
            return
        reaching = (volume_attachments, volume_connector, libvirt_secrets, secrets)
        source = reach_again(volume_id, *reaching, self.activity)
        if source is None:
            raise NotFound(kind="attachment of volume", name=volume_id)
        xml = guest_disks.description(source, device_record[self.where], volume_id)
        guest_disks.attach(instance_uuid, volume_id, xml, live=self.where == "live")


class DetachLive(_Detaches):
    """Ask the guest to let go of the disk, and wait until it has. One that does not keeps its volume, and so does one
    whose volume is not served: the definition is only changed afterwards.

    Reverts: plugs it in again, where it was and a guest still runs. A disk that is gone is let go of.
    """

    default_provides = "unplugged"
    where = "live"
    timeout = "boot"

    def execute(
        self,
        instance_uuid: str,
        volume_id: str,
        attachment: Mapping[str, Any],
        device_record: Mapping[str, Any],  # noqa: ARG002 - the order
        guest_disks: Any,
    ) -> bool:
        _let_go(instance_uuid, volume_id, attachment["connection"], guest_disks, self.activity)
        return True


class DetachPersistent(_Detaches):
    """Remove the disk from the domain's definition, after the guest has let go.

    Reverts: adds it again, where it was. A disk that is not there is removed.
    """

    default_provides = "undefined"
    where = "defined"

    def execute(
        self,
        instance_uuid: str,
        volume_id: str,
        unplugged: bool,
        guest_disks: Any,
    ) -> bool:
        guest_disks.detach_persistent(instance_uuid, volume_id)
        return unplugged


def not_there(instance_uuid: str, host: str, instances: Any) -> str | None:
    """Why what was done to a volume of an instance on this host cannot be taken back there."""
    instance = instances.get(instance_uuid)
    if instance.host != host:
        return f"instance {instance.name} is on {instance.host} by now"
    if instance.vm_state not in _DETACHABLE:
        return f"instance {instance.name} is {instance.vm_state}"
    return None


def check_reachable(volume: Mapping[str, Any], host: str, volume_backends: Any, *, field: str) -> None:
    """Raise InvalidRequest when an instance on this host cannot have the volume, because its backend does not serve
    other hosts."""
    if volume["host"] == host or volume_backends.is_shared(volume["backend"]):
        return
    reason = f"is on host {host}, and volume {volume['name']} can only be reached on {volume['host']}"
    raise InvalidRequest(field=field, reason=reason)


def _let_go(
    instance_uuid: str, volume_id: str, connection: Mapping[str, Any] | None, guest_disks: Any, activity: Any
) -> None:
    """QEMU writes all that the guest has written before it lets go, and is deaf until the volume's server has answered:
    it is only asked where one does."""
    if connection and guest_disks.find(instance_uuid, volume_id, live=True) is not None:
        check_server(Connection.from_dict(connection))
    guest_disks.detach_live(instance_uuid, volume_id, activity)


def _mark(doing: str, operation: str) -> str:
    return f"{doing}/{operation}"


def _unmark(instances: Any, instance_uuid: str, mark: str) -> None:
    instances.compare_and_set(instance_uuid, {"task_state": mark}, {"task_state": None})
