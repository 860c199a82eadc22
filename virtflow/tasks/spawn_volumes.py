"""The volumes of an instance that is being made: held, reserved and exported, and connected on its host."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.images.records import ImageRecord
from virtflow.persistence import volume_rows as states
from virtflow.persistence.volumes import Attachment
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.domain_description import disk_mapping, volume_slots
from virtflow.tasks.volume_connections import connect, disconnect
from virtflow.tasks.volume_exports import new_reach
from virtflow.tasks.volume_holds import owed

Volumes = Sequence[Mapping[str, Any]]


class HoldVolumes(Task):
    """Hold every volume of the request as ATTACHING: nothing else is done with one meanwhile. Provides them, each with
    the id that its attachment will have.

    Reverts: lets them go; not before everything that came after it was taken back. What it holds already, it holds.
    """

    default_provides = "spawn_volumes"

    def execute(self, spec: Mapping[str, Any], operation: str, volumes: Any) -> list[dict[str, Any]]:
        for each in spec["volumes"]:
            if not volumes.hold(each["id"], (states.AVAILABLE,), states.ATTACHING, operation):
                now = volumes.get(each["id"]).state
                raise Conflict(action="attach", kind="volume", name=each["name"], reason=f"it is {now}")
        return [
            {**each, "attachment_id": spawned_attachment_id(operation, number)}
            for number, each in enumerate(spec["volumes"])
        ]

    def revert(self, spec: Mapping[str, Any], operation: str, volumes: Any, ledger: Any, **_kwargs: Any) -> Debt | None:
        if owed(ledger, operation, self.name, "CreateInstanceEntry", "CreateBootVolume"):
            return Debt(error="what comes after it is not taken back yet")
        for each in spec["volumes"]:
            with suppress(NotFound):
                volumes.let_go(each["id"], operation)
        return None


class ReserveAttachments(Task):
    """Write down that the instance is getting the volumes, on this host: the database refuses a second one.

    Reverts: removes the rows. Their ids are the operation's, so writing again is the same rows.
    """

    def intents(self, spawn_volumes: Volumes, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(Intent("volume_attachment", each["attachment_id"]) for each in spawn_volumes)

    def execute(
        self, spawn_volumes: Volumes, instance_uuid: str, host: str, operation: str, volume_attachments: Any
    ) -> None:
        for each in spawn_volumes:
            volume_attachments.reserve(
                Attachment(
                    id=each["attachment_id"],
                    volume=each["id"],
                    instance=instance_uuid,
                    host=host,
                    delete_volume=each.get("delete", False),
                    operation=operation,
                )
            )

    def revert(self, spawn_volumes: Volumes, volume_attachments: Any, **_kwargs: Any) -> None:
        for each in spawn_volumes:
            volume_attachments.drop(each["attachment_id"])


class MakeCredentialsOfAll(Task):
    """Make up a password for each volume whose backend is on another host; they are kept, encrypted, as long as the
    attachments live. Provides what the exports start from, for each host anew.

    Reverts: purges them. Each is made up once: a second execution keeps the first one's.
    """

    default_provides = "exports"

    def intents(self, spawn_volumes: Volumes, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(Intent("secrets", each["attachment_id"]) for each in spawn_volumes)

    def execute(self, spawn_volumes: Volumes, host: str, secrets: Any) -> list[dict[str, Any]]:
        return [
            {
                "host": each["host"],
                "place": f"{each['id']}/{host}",
                "volume": dict(each),
                "attachment_id": each["attachment_id"],
                "reach": new_reach(each["attachment_id"], each["host"], host, secrets),
            }
            for each in spawn_volumes
        ]

    def revert(self, spawn_volumes: Volumes, secrets: Any, **_kwargs: Any) -> None:
        for each in spawn_volumes:
            secrets.purge(each["attachment_id"])


class ConnectVolumes(Task):
    """Let this host reach the volumes, and write down which devices they will be; provides the disks that they are.

    Reverts: lets them go, and forgets their passwords and keys. Connecting twice is connecting once.
    """

    default_provides = "volume_disks"
    timeout = "disk"

    def intents(self, spawn_volumes: Volumes, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return tuple(Intent("volume_connection", f"{instance_uuid}/{each['id']}") for each in spawn_volumes)

    def execute(
        self,
        spec: Mapping[str, Any],
        hardware: Mapping[str, Any],
        spawn_volumes: Volumes,
        connections: Sequence[Mapping[str, Any]],
        instance_uuid: str,  # noqa: ARG002 - whose they are, for the intents
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
    ) -> list[dict[str, Any]]:
        disks = []
        slots = volume_slots(disk_mapping(spec, hardware), spawn_volumes)
        for each, exported, slot in zip(spawn_volumes, connections, slots, strict=True):
            volume_attachments.set(each["attachment_id"], device=slot.target)
            reaching = (volume_connector, libvirt_secrets, secrets, self.activity)
            source = connect(each["id"], each["attachment_id"], exported["connection"], *reaching)
            disks.append({"source": source, "serial": each["id"], "boot": each["boot"]})
        return disks

    def revert(
        self,
        spawn_volumes: Volumes,
        connections: Sequence[Mapping[str, Any]],
        volume_connector: Any,
        libvirt_secrets: Any,
        **_kwargs: Any,
    ) -> None:
        for each, exported in zip(spawn_volumes, connections, strict=True):
            disconnect(each["id"], exported["connection"], volume_connector, libvirt_secrets, self.activity)


class LetVolumesGo(Task):
    """Let the volumes go, IN_USE. Reverts: holds them again. A second execution finds that nothing is held."""

    def execute(self, spawn_volumes: Volumes, operation: str, volumes: Any) -> None:
        for each in spawn_volumes:
            volumes.let_go(each["id"], operation, states.IN_USE)

    def revert(self, spawn_volumes: Volumes, operation: str, volumes: Any, **_kwargs: Any) -> None:
        for each in spawn_volumes:
            left = (states.IN_USE,)
            if not volumes.hold_again(each["id"], left, states.ATTACHING, operation, states.AVAILABLE):
                now = volumes.get(each["id"]).state
                raise Conflict(action="take back", kind="volume", name=each["name"], reason=f"it is {now}")


def wanted_volumes(request: Mapping[str, Any], project: str, volumes: Any) -> list[dict[str, Any]]:
    """The volumes that the request names, the one to boot from first; one that is still to be made has no id. NotFound,
    InvalidRequest."""
    names = [("boot_volume", request["boot_volume"])] if request.get("boot_volume") else []
    names += [("volumes", name) for name in request.get("volumes") or ()]
    found: list[dict[str, Any]] = []
    for field, name in names:
        volume = volumes.find(name, project)
        if any(volume.id == each["id"] for each in found):
            raise InvalidRequest(field=field, reason=f"has volume {volume.name} twice")
        boot = field == "boot_volume"
        if boot and not volume.bootable:
            raise InvalidRequest(field=field, reason=f"volume {volume.name} is not bootable: it was made of no image")
        kept = ("id", "name", "backend", "host", "size_gib", "encryption")
        image = volume.source.get("image", volume.id)
        found.append({name: getattr(volume, name) for name in kept} | {"boot": boot, "image": image})
    if request.get("boot_volume_gib"):
        found.insert(0, _to_be_made(request))
    if request.get("delete_volume"):
        found[0]["delete"] = True
    return found


def _to_be_made(request: Mapping[str, Any]) -> dict[str, Any]:
    made = {"id": None, "name": f"{request['name']}-root", "size_gib": request["boot_volume_gib"]}
    return {**made, "backend": None, "host": None, "encryption": None, "boot": True, "image": request["image"]}


def volume_fields(request: Mapping[str, Any], wanted: Volumes, volume_backends: Any) -> dict[str, Any]:
    """The field ``volumes`` of the specification; and the one host that can reach them, where only one can. Of one that
    is still to be made that is not known yet."""
    if not wanted:
        return {}
    there = [each for each in wanted if each["id"] is not None]
    only = {each["host"] for each in there if not volume_backends.is_shared(each["backend"])}
    if request["host"] is not None:
        only.add(request["host"])
    if len(only) > 1:
        reason = f"no host reaches all of them: {', '.join(sorted(only))}"
        raise InvalidRequest(field="volumes", reason=reason)
    return {"volumes": list(wanted), "host": next(iter(only), None)}


def volume_as_image(volume: Mapping[str, Any]) -> ImageRecord:
    """What an instance that boots from the volume is made of."""
    return ImageRecord(volume["image"], f"volume {volume['name']}", "volume", "raw")


def spawned_attachment_id(operation: str, number: int) -> str:
    """Of the operation's volumes in their order."""
    return str(uuid.uuid5(uuid.UUID(operation), f"attachment/{number}"))
