"""The volumes of an instance that is deleted: they are let go of, and nothing is done to what is on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from virtflow.errors import Conflict, NotFound
from virtflow.persistence import volume_rows as states
from virtflow.persistence.volumes import Attachment
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.volume_connections import disconnect, reach_as_before
from virtflow.tasks.volume_exports import new_reach
from virtflow.tasks.volume_holds import check_no_snapshots, owed

Taken = Sequence[Mapping[str, Any]]
"""Each with its ``volume``, its ``attachment``, and the ``host`` of its backend, on which it is exported."""
_KEPT = ("id", "name", "backend", "host", "size_gib", "encryption")


class TakeVolumes(Task):
    """Hold every volume of the instance as DETACHING; provides them. None is no volume.

    Reverts: lets them go, IN_USE as before; not before everything that came after it was taken back. What it holds
    already, it holds.
    """

    default_provides = "instance_volumes"

    def execute(
        self,
        instance: Mapping[str, Any],
        operation: str,
        volumes: Any,
        volume_attachments: Any,
        volume_snapshots: Any,
    ) -> list[dict[str, Any]]:
        taken = []
        for found in volume_attachments.list(instance=instance["uuid"]):
            volume = volumes.get(found.volume)
            if found.delete_volume:
                check_no_snapshots(volume, volume_snapshots)
            if not volumes.hold(volume.id, (states.IN_USE,), states.DETACHING, operation):
                reason = f"its volume {volume.name} is {volumes.get(volume.id).state}"
                raise Conflict(action="delete", kind="instance", name=instance["name"], reason=reason)
            kept = {name: getattr(volume, name) for name in _KEPT}
            taken.append({"volume": kept, "attachment": asdict(found), "host": volume.host, "place": volume.id})
        return taken

    def revert(
        self,
        instance: Mapping[str, Any],
        operation: str,
        volumes: Any,
        volume_attachments: Any,
        ledger: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if owed(ledger, operation, self.name, "LockInstance", "NotifyStart"):
            return Debt(error="what comes after it is not taken back yet")
        for found in volume_attachments.list(instance=instance["uuid"]):
            volumes.let_go(found.volume, operation)
        return None


class DisconnectVolumes(Task):
    """This host reaches the volumes no more, and libvirt forgets their passwords and keys. The domain is gone by now.

    Reverts: connects them again, as their attachments say; a debt where one is reached in another way by now, because
    the domain's definition names the old one. Absent is disconnected.
    """

    default_provides = "disconnected"
    timeout = "disk"

    def execute(
        self,
        instance_volumes: Taken,
        undefined: bool,
        volume_connector: Any,
        libvirt_secrets: Any,
    ) -> bool:
        for each in instance_volumes:
            if connection := each["attachment"]["connection"]:
                disconnect(each["volume"]["id"], connection, volume_connector, libvirt_secrets, self.activity)
        return undefined

    def revert(
        self,
        instance_volumes: Taken,
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        reaching = (volume_attachments, volume_connector, libvirt_secrets, secrets, self.activity)
        for each in instance_volumes:
            reach_as_before(each["volume"], each["attachment"]["connection"], *reaching)


class DropAttachments(Task):
    """The instance has the volumes no more, and nobody logs in to them: their passwords go with the rows.

    Reverts: writes the rows again, as they were, with new passwords where there were any. Absent is removed.
    """

    def execute(self, instance_volumes: Taken, volume_attachments: Any, secrets: Any) -> None:
        for each in instance_volumes:
            volume_attachments.drop(each["attachment"]["id"])
            secrets.purge(each["attachment"]["id"])

    def revert(self, instance_volumes: Taken, volume_attachments: Any, secrets: Any, **_kwargs: Any) -> None:
        for each in instance_volumes:
            attachment = each["attachment"]
            volume_attachments.reserve(Attachment(**attachment))
            new_reach(attachment["id"], each["host"], attachment["host"], secrets)


class GiveVolumesBack(Task):
    """Let the volumes go, AVAILABLE.

    Reverts: holds them again; a Conflict where somebody else has one by now. A second execution finds that nothing is
    held.
    """

    def execute(self, instance_volumes: Taken, operation: str, volumes: Any) -> None:
        for each in instance_volumes:
            volumes.let_go(each["volume"]["id"], operation, states.AVAILABLE)

    def revert(self, instance_volumes: Taken, operation: str, volumes: Any, **_kwargs: Any) -> None:
        for each in instance_volumes:
            identity, left = each["volume"]["id"], (states.AVAILABLE,)
            with suppress(NotFound):
                if not volumes.hold_again(identity, left, states.DETACHING, operation, states.IN_USE):
                    reason = f"it is {volumes.get(identity).state}"
                    raise Conflict(action="take back", kind="volume", name=each["volume"]["name"], reason=reason)


class DeleteVolumes(Task):
    """Delete the volumes that go with the instance, each by an operation of its own, whose trash is purged in its own
    time.

    Reverts: undoes these operations, the last one first; one whose trash is purged is a debt. A second execution goes
    on with the first one's.
    """

    timeout = 0.0  # each of their tasks has its own

    def intents(self, instance_volumes: Taken, operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(Intent("child_operation", f"{operation}/{child}") for child, _volume in _going(instance_volumes))

    def execute(
        self,
        instance_volumes: Taken,
        operation: str,  # noqa: ARG002 - whose children they are, for the intents
        project: str,
        child_operations: Any,
    ) -> None:
        for child, volume in _going(instance_volumes):
            target, request = f"volume:{volume['name']}", {"name": volume["name"]}
            child_operations.run(child, "volume-delete", target, request, project, activity=self.activity)

    def revert(self, instance_volumes: Taken, child_operations: Any, **_kwargs: Any) -> None:
        for child, _volume in reversed(_going(instance_volumes)):
            child_operations.take_back(child, activity=self.activity)


def _going(taken: Taken) -> list[tuple[str, Mapping[str, Any]]]:
    """The volumes that go with the instance, each with the name of the operation that deletes it."""
    going = [each["volume"] for each in taken if each["attachment"].get("delete_volume")]
    return [(f"delete-volume/{number}", volume) for number, volume in enumerate(going)]
