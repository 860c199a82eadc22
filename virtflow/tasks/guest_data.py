"""How what a request carries reaches the guest: on a config drive, or injected into its disk. One of them, never both.

Worked out before anything is made, and kept in the specification, so that a resumed operation goes on with the same.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.hypervisor.disk_mapping import map_disks
from virtflow.metadata.instance_metadata import RANDOM_SEED_BYTES, InjectedFile, InstanceMetadata
from virtflow.metadata.network_template import render_network

LOG = logging.getLogger(__name__)

INJECTION_OFF = -2
_WHOLE_DISK = 0
_ITEM_OF = {"ssh_keys": "key", "admin_password": "admin_password", "files": "files", "user_data": None}
"""The fields of a request that a guest has to be told, and what injects them."""


def guest_data_fields(
    request: Mapping[str, Any], image: Any, settings: Any, *, kernel: bool = False, volume: bool = False
) -> dict[str, Any]:
    """The fields ``config_drive``, ``config_drive_format`` and ``injection`` of the specification.

    ``injection`` is None, or the ``partition``, the ``items`` that are switched on, and the ``mandatory`` ones of them.
    ``kernel``: the image brings a kernel of its own, so that its disk has no partitions; ``volume``: the root disk is
    no file of ours. Raises InvalidRequest for what could not reach the guest.
    """
    drive = drive_wanted(request, image, settings.force_config_drive)
    partition = settings.injection_partition
    injection: dict[str, Any] | None = None
    if not drive and partition != INJECTION_OFF:
        if volume:
            LOG.warning("nothing is injected into an instance that boots from a volume")
        else:
            injection = {
                "partition": _WHOLE_DISK if kernel else partition,
                "items": list(settings.injection_items),
                "mandatory": [item for item in settings.injection_mandatory if item in settings.injection_items],
            }
    if not drive:
        _check_ways(request, injection["items"] if injection else (), volume=volume)
    return {"config_drive": drive, "config_drive_format": settings.config_drive_format, "injection": injection}


def drive_wanted(request: Mapping[str, Any], image: Any, force: bool) -> bool:
    """Whether the instance gets a config drive: by its request, its image, or the configuration."""
    wanted: bool | None = request["config_drive"]
    if image.properties.get("img_config_drive") == "mandatory":
        if wanted is False:
            raise InvalidRequest(field="config_drive", reason=f"image {image.name!r} cannot do without one")
        return True
    return force if wanted is None else wanted


def _check_ways(request: Mapping[str, Any], items: Sequence[str], *, volume: bool) -> None:
    for field, item in _ITEM_OF.items():
        if request.get(field) and item not in items:
            why = "its disk is a volume" if volume else "injection of it is off"
            raise InvalidRequest(field=field, reason=f"would not reach the guest: it has no config drive, and {why}")


def instance_metadata(
    spec: Mapping[str, Any],
    instance_uuid: str,
    project: str,
    vifs: Sequence[Mapping[str, Any]],
    secrets: Mapping[str, bytes],
    contents: Any,
) -> InstanceMetadata:
    """What the config drive tells; ``secrets`` are the values of the request's secret fields."""
    password = secrets.get("admin_password")
    kernel, ramdisk = spec.get("kernel"), spec.get("ramdisk")
    return InstanceMetadata(
        uuid=instance_uuid,
        name=spec["name"],
        hostname=spec["name"],
        project=project,
        random_seed=os.urandom(RANDOM_SEED_BYTES),
        availability_zone=spec["availability_zone"],
        launch_index=spec["launch_index"],
        public_keys={f"key-{number}": key for number, key in enumerate(guest_keys(secrets))},
        meta=spec["meta"],
        user_data=secrets.get("user_data"),
        files=tuple(InjectedFile(path, content) for path, content in guest_files(secrets).items()),
        admin_password=password.decode() if password is not None else None,
        vifs=vifs,  # type: ignore[arg-type]  # plain data of the store, in the shape of metadata.network_data.Vif
        vendor_data=contents.vendor_data,
        vendor_data2={"static": contents.vendor_data} if contents.vendor_data else None,
        network_config=network_config(vifs, contents),
        image_id=spec["image"]["id"],
        kernel_id=kernel["id"] if kernel else None,
        ramdisk_id=ramdisk["id"] if ramdisk else None,
        instance_type=spec["flavor"] or "",
        block_devices=_block_devices(spec),
    )


def network_config(vifs: Sequence[Mapping[str, Any]], contents: Any) -> bytes | None:
    """The guest's /etc/network/interfaces, or None without an address."""
    return render_network(vifs, contents.network_template)  # type: ignore[arg-type]  # as above


def guest_keys(secrets: Mapping[str, bytes]) -> list[str]:
    """The public keys of the request, in its order."""
    return secrets["ssh_keys"].decode().splitlines() if "ssh_keys" in secrets else []


def guest_files(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of the request: content by path."""
    files = json.loads(secrets["files"]) if "files" in secrets else []
    return {file["path"]: base64.b64decode(file["content"]) for file in files}


def _block_devices(spec: Mapping[str, Any]) -> dict[str, str]:
    """EC2's names of the disks. Letters do not depend on the machine: pc has every bus."""
    bus = spec["hardware"]["disk_bus"] or "virtio"
    mapping = map_disks(machine="pc", bus=bus, ephemeral=len(spec["ephemerals"]), swap=spec["swap_mib"] > 0)
    devices = {"ami": mapping.root.target, "root": f"/dev/{mapping.root.target}"}
    devices |= {f"ephemeral{number}": f"/dev/{slot.target}" for number, slot in enumerate(mapping.ephemeral)}
    if mapping.swap is not None:
        devices["swap"] = f"/dev/{mapping.swap.target}"
    return devices
