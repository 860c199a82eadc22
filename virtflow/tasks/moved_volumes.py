"""The volumes of an instance that moves to another host: held, reached from there, and left on the host it was on.

A volume of a third host is reached from both in the same way: connection, user and password are the attachment's. Only
where one of the two has the volume's backend, and opens it without a server, is there anything to export, or to take
away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence import volume_rows as states
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.volume_connections import connect, disconnect, reach_as_before
from virtflow.tasks.volume_exports import export, is_by_nbd, new_reach
from virtflow.tasks.volume_holds import owed
from virtflow.volumes.driver import volume_name

Moved = Sequence[Mapping[str, Any]]
"""What ``moved_volumes`` gives: each with its ``attachment_id``, the ``host`` of its backend, its ``device`` in the
guest, whether the instance boots from it (``boot``), and the ``connection`` by which the source reaches it."""
KEPT = ("id", "name", "backend", "host", "size_gib", "encryption")
"""What of a volume the host of its backend has to know, among others."""


class HoldMovedVolumes(Task):
    """Hold every volume of the instance as MOVING: nobody extends, detaches or copies one meanwhile.

    Reverts: lets them go, IN_USE as before; not before everything that came after it was taken back: ``before`` names
    the tasks that came first. What it holds already, it holds.
    """

    def __init__(self, *before: str) -> None:
        super().__init__()
        self.before = before

    def execute(self, moved_volumes: Moved, operation: str, volumes: Any) -> None:
        for each in moved_volumes:
            if not volumes.hold(each["id"], (states.IN_USE,), states.MOVING, operation):
                now = volumes.get(each["id"]).state
                raise Conflict(action="move", kind="volume", name=each["name"], reason=f"it is {now}")

    def revert(self, moved_volumes: Moved, operation: str, volumes: Any, ledger: Any, **_kwargs: Any) -> Debt | None:
        if owed(ledger, operation, self.name, *self.before):
            return Debt(error="what comes after it is not taken back yet")
        for each in moved_volumes:
            volumes.let_go(each["id"], operation)
        return None


class LetMovedVolumesGo(Task):
    """Let the volumes go, IN_USE.

    Reverts: holds them again; a Conflict where somebody is at work on one. A second execution finds that nothing is
    held.
    """

    def execute(self, moved_volumes: Moved, operation: str, volumes: Any) -> None:
        for each in moved_volumes:
            volumes.let_go(each["id"], operation, states.IN_USE)

    def revert(self, moved_volumes: Moved, operation: str, volumes: Any, **_kwargs: Any) -> None:
        for each in moved_volumes:
            left = (states.IN_USE,)
            if not volumes.hold_again(each["id"], left, states.MOVING, operation, states.IN_USE):
                now = volumes.get(each["id"]).state
                raise Conflict(action="take back", kind="volume", name=each["name"], reason=f"it is {now}")


class MakeMovedCredentials(Task):
    """Make up a password for each volume that the destination needs a server for, and the source does not. Provides
    what the exports start from: the volumes that the destination reaches in another way than the source.

    ``left``: the source has let go of them by then. Where it has not, a volume that is reached by NBD is reached so by
    the backend's own host, too: its server locks it.

    Reverts: purges the passwords. Each is made up once: a second execution keeps the first one's.
    """

    default_provides = "exports"

    def __init__(self, *, left: bool) -> None:
        super().__init__()
        self.left = left

    def intents(
        self, moved_volumes: Moved, source_host: str, destination: str, **_arguments: Any
    ) -> tuple[Intent, ...]:
        return tuple(Intent("secrets", each["attachment_id"]) for each in _new(moved_volumes, source_host, destination))

    def execute(self, moved_volumes: Moved, source_host: str, destination: str, secrets: Any) -> list[dict[str, Any]]:
        return [
            {
                "host": each["host"],
                "place": f"{each['id']}/{destination}",
                "volume": {name: each[name] for name in KEPT},
                "attachment_id": each["attachment_id"],
                "reach": new_reach(each["attachment_id"], each["host"], destination, secrets),
                "source_reach": new_reach(
                    each["attachment_id"], each["host"], source_host, secrets, served=is_by_nbd(each["connection"])
                ),
                "left": self.left,
            }
            for each in moved_volumes
            if (each["host"] == source_host) != (each["host"] == destination)
            and (self.left or not is_by_nbd(each["connection"]))
        ]

    def revert(self, moved_volumes: Moved, source_host: str, destination: str, secrets: Any, **_kwargs: Any) -> None:
        for each in _new(moved_volumes, source_host, destination):
            secrets.purge(each["attachment_id"])


class ExportToDestination(Task):
    """Let the instance's next host reach the volume; provides how. The attachment says how it was reached before. Where
    that host has the backend, and the one that was served has let go (``left``), nobody is served any more, and the
    attachment says nothing: nobody serves it again by himself.

    Reverts: whoever has reached it before does so again, and the attachment says how. Exporting what is exported
    changes nothing.
    """

    default_provides = "connection"
    timeout = "disk"

    def intents(self, volume: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_export", f"{volume['backend']}/{volume['id']}"),)

    def execute(
        self,
        volume: Mapping[str, Any],
        attachment_id: str,
        reach: Mapping[str, Any],
        left: bool,
        volume_drivers: Any,
        volume_attachments: Any,
        secrets: Any,
    ) -> dict[str, Any]:
        if reach["local"] and left:
            volume_attachments.set(attachment_id, connection=None)
            volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))
        return export(volume, reach, volume_drivers, secrets)

    def revert(
        self,
        volume: Mapping[str, Any],
        attachment_id: str,
        source_reach: Mapping[str, Any],
        volume_drivers: Any,
        volume_attachments: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        if source_reach["local"]:
            volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))
            return
        connection = export(volume, source_reach, volume_drivers, secrets)
        with suppress(NotFound):
            volume_attachments.set(attachment_id, connection=connection)


class CollectConnections(Task):
    """Provide how the destination reaches each volume: as it was exported, or else as the source does. It only reads;
    nothing to revert."""

    default_provides = "connections"

    def execute(
        self, moved_volumes: Moved, exports: Sequence[Mapping[str, Any]], exported: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        found = {item["volume"]["id"]: made["connection"] for item, made in zip(exports, exported, strict=True)}
        return [{"connection": found.get(each["id"], each["connection"])} for each in moved_volumes]

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ConnectMovedVolumes(Task):
    """Let this host reach the volumes; provides the disks that they are, as which the guest has had them.

    Reverts: lets them go, and forgets their passwords and keys; a debt as long as a guest of the instance runs here.
    Connecting twice is connecting once.
    """

    default_provides = "volume_disks"
    timeout = "disk"

    def intents(self, moved_volumes: Moved, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(Intent("volume_connection", f"{instance_uuid}/{each['id']}") for each in moved_volumes)

    def execute(
        self,
        moved_volumes: Moved,
        connections: Sequence[Mapping[str, Any]],
        instance_uuid: str,  # noqa: ARG002 - whose they are, for the intents
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
    ) -> list[dict[str, Any]]:
        disks = []
        for each, exported in zip(moved_volumes, connections, strict=True):
            reaching = (volume_connector, libvirt_secrets, secrets, self.activity)
            source = connect(each["id"], each["attachment_id"], exported["connection"], *reaching)
            disks.append({"source": source, "serial": each["id"], "boot": each["boot"], "device": each["device"]})
        return disks

    def revert(
        self,
        moved_volumes: Moved,
        connections: Sequence[Mapping[str, Any]],
        instance_uuid: str,
        hypervisor: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        state = hypervisor.state(instance_uuid)
        if state is not None and state.is_active:
            return Debt(error="a guest that has them runs here")
        for each, exported in zip(moved_volumes, connections, strict=True):
            disconnect(each["id"], exported["connection"], volume_connector, libvirt_secrets, self.activity)
        return None


class KeepVolumes(ConnectMovedVolumes):
    """ConnectMovedVolumes where the instance stays on its host: it reaches them, and that is only made sure of.

    Reverts: nothing. They are those of before.
    """

    def intents(self, *_args: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return ()

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """They are those of before."""


class DisconnectMovedVolumes(Task):
    """The host that the instance leaves reaches the volumes no more, and libvirt forgets their passwords and keys. No
    guest has them there by now: ``after`` names the result that says so.

    Reverts: connects them again, as their attachments say; a Conflict where one is reached in another way by now,
    because the domain's definition names the old one. Absent is disconnected.
    """

    default_provides = "disconnected"
    timeout = "disk"

    def __init__(self, after: str = "stopped") -> None:
        super().__init__(rebind={"stopped": after})

    def execute(self, moved_volumes: Moved, stopped: bool, volume_connector: Any, libvirt_secrets: Any) -> bool:
        for each in moved_volumes:
            disconnect(each["id"], each["connection"], volume_connector, libvirt_secrets, self.activity)
        return stopped

    def revert(
        self,
        moved_volumes: Moved,
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> None:
        reaching = (volume_attachments, volume_connector, libvirt_secrets, secrets, self.activity)
        for each in moved_volumes:
            reach_as_before(each, each["connection"], *reaching)


class SwitchAttachments(Task):
    """The destination has the volumes now, and how it reaches them is what their attachments say.

    Reverts: the source has them, as before. Both directions set what the rows say.
    """

    def execute(
        self,
        moved_volumes: Moved,
        connections: Sequence[Mapping[str, Any]],
        destination: str,
        volume_attachments: Any,
    ) -> None:
        for each, exported in zip(moved_volumes, connections, strict=True):
            volume_attachments.set(each["attachment_id"], host=destination, connection=dict(exported["connection"]))

    def revert(self, moved_volumes: Moved, source_host: str, volume_attachments: Any, **_kwargs: Any) -> None:
        for each in moved_volumes:
            with suppress(NotFound):
                volume_attachments.set(each["attachment_id"], host=source_host, connection=dict(each["connection"]))


class PurgeLeftCredentials(Task):
    """Forget the passwords with which nobody logs in any more: the instance is on the host of the backend.

    Reverts: makes up new ones, for the host that the instance has left. Absent is purged.
    """

    def execute(self, moved_volumes: Moved, source_host: str, destination: str, secrets: Any) -> None:
        for each in _new(moved_volumes, destination, source_host):
            secrets.purge(each["attachment_id"])

    def revert(self, moved_volumes: Moved, source_host: str, destination: str, secrets: Any, **_kwargs: Any) -> None:
        for each in _new(moved_volumes, destination, source_host):
            new_reach(each["attachment_id"], each["host"], source_host, secrets)


def moved_volumes(
    instance: Any, spec: Mapping[str, Any], action: str, volumes: Any, volume_attachments: Any
) -> list[dict[str, Any]]:
    """The volumes of an instance of this specification, in the order in which it got them. None is attached or detached
    meanwhile: whoever asks has marked the instance. Conflict when the one that it boots from is detached."""
    boots_from = {each["id"] for each in spec.get("volumes", ()) if each["boot"]}
    found = []
    for attachment in volume_attachments.list(instance=instance.uuid):
        volume = volumes.get(attachment.volume)
        kept = {name: getattr(volume, name) for name in KEPT}
        how = {name: getattr(attachment, name) for name in ("device", "connection")}
        found.append({**kept, "boot": volume.id in boots_from, "attachment_id": attachment.id, **how})
    if not boots_from <= {each["id"] for each in found}:
        reason = "the volume that it boots from is not attached"
        raise Conflict(action=action, kind="instance", name=instance.name, reason=reason)
    return found


def with_volumes(spec: Mapping[str, Any], moved: Moved) -> dict[str, Any]:
    """The specification of the instance with the volumes that it has now, each as the device that it is."""
    kept = (*KEPT, "boot", "device")
    return {**spec, "volumes": [{name: each[name] for name in kept} for each in moved]}


def reachable_host(
    instance: Any, moved: Moved, wanted: str | None, excluded: Mapping[Any, str], action: str, volume_backends: Any
) -> str | None:
    """The host that was asked for, or the only one from which the volumes can be reached; None is any.

    InvalidRequest where they cannot be reached from the host that was asked for, Conflict where only from one that will
    not do.
    """
    for each in moved:
        if volume_backends.is_shared(each["backend"]):
            continue
        reason = f"volume {each['name']} can only be reached on {each['host']}"
        if each["host"] in excluded:
            raise Conflict(action=action, kind="instance", name=instance.name, reason=f"its {reason}")
        if wanted not in (None, each["host"]):
            raise InvalidRequest(field="host", reason=reason)
        wanted = each["host"]
    return wanted


def not_as_moved(moved: Moved, instance_uuid: str, volumes: Any, volume_attachments: Any) -> str | None:
    """Why the instance cannot be brought back with these volumes: it has others, or somebody is at work on one."""
    if {each["attachment_id"] for each in moved} != {
        each.id for each in volume_attachments.list(instance=instance_uuid)
    }:
        return "its volumes are others by now"
    for each in moved:
        volume = volumes.get(each["id"])
        if volume.state != states.IN_USE:
            return f"its volume {volume.name} is {volume.state}"
    return None


def left_volumes(moved: Moved) -> list[dict[str, Any]]:
    """What the host that the instance has left has of them."""
    return [{"id": each["id"], "connection": each["connection"]} for each in moved]


def disconnect_left(
    left: Moved, host: str, volume_attachments: Any, volume_connector: Any, libvirt_secrets: Any, activity: Any
) -> None:
    """This host reaches them no more, but for those that an instance of it has got since."""
    for each in left:
        found = volume_attachments.of_volume(each["id"])
        if found is None or found.host != host:
            disconnect(each["id"], each["connection"], volume_connector, libvirt_secrets, activity)


def _new(moved: Moved, source_host: str, destination: str) -> list[Mapping[str, Any]]:
    """Those that the destination needs a server for, and the source does not."""
    return [each for each in moved if each["host"] == source_host != destination]
