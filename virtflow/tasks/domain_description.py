"""From what was made for an instance to the description of its domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from virtflow.hypervisor.direct_io import supports_direct_io
from virtflow.hypervisor.disk_mapping import (
    DiskMapping,
    DiskSlot,
    config_drive_file,
    ephemeral_file,
    map_disks,
    root_file,
    swap_file,
)
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, UefiSpec, VifSpec
from virtflow.hypervisor.volume_disks import volume_disk
from virtflow.tasks.settings import HostSettings

Disk = Mapping[str, Any]
"""A disk as its maker provides it: ``path``, ``format`` and ``size`` in bytes."""


class Identity(NamedTuple):
    """Whose domain it is."""

    instance_uuid: str
    operation: str
    host: str


@dataclass(frozen=True)
class DomainParts:
    """What the tasks before have made. ``vifs`` come with the names of their filters.

    A volume is its ``source``, its ``serial``, and whether the instance boots from it (``boot``): then there is no
    ``root``.
    """

    instance_dir: Path
    root: Disk | None
    vifs: Sequence[tuple[Mapping[str, Any], str | None]]
    ephemerals: Sequence[Disk] = ()
    swap: Disk | None = None
    config_drive: str | None = None
    kernel: str | None = None
    ramdisk: str | None = None
    volumes: Sequence[Mapping[str, Any]] = ()


def domain_spec(
    spec: Mapping[str, Any],
    identity: Identity,
    parts: DomainParts,
    hardware: Mapping[str, Any],
    capabilities: Any,
    settings: HostSettings,
) -> DomainSpec:
    """The description of the domain. Raises InvalidRequest where a bus has no room for a disk."""
    uefi = hardware["uefi"]
    directory = parts.instance_dir
    return DomainSpec(
        uuid=identity.instance_uuid,
        name=spec["name"],
        title=spec["title"],
        operation=identity.operation,
        host=identity.host,
        virt_type=hardware["virt_type"],
        arch=capabilities.arch,
        machine=hardware["machine"],
        emulator=capabilities.emulator,
        cpu_model=hardware["cpu_model"],
        vcpus=spec["vcpus"],
        memory_mib=spec["memory_mib"],
        console_log=f"{directory}/console.log",
        disks=tuple(_disks(spec, parts, hardware, _cache_mode(directory, settings.disk_cache))),
        vifs=tuple(_vif_spec(vif, name, hardware["vif_model"]) for vif, name in parts.vifs),
        kernel=parts.kernel,
        initrd=parts.ramdisk,
        cmdline=hardware["cmdline"] if parts.kernel is not None else None,
        uefi=None if uefi is None else UefiSpec(uefi[0], uefi[1], f"{directory}/nvram.fd"),
        vnc=hardware["vnc"],
        video_model=hardware["video_model"],
        rng_model=hardware["rng_model"],
        guest_agent=hardware["guest_agent"],
        hotplug_ports=settings.hotplug_ports,
    )


def disk_mapping(spec: Mapping[str, Any], hardware: Mapping[str, Any]) -> DiskMapping:
    """Where the disks will be. Raises InvalidRequest where a bus has no room for one."""
    return map_disks(
        machine=hardware["machine"],
        bus=hardware["disk_bus"],
        cdrom_bus=hardware["cdrom_bus"],
        config_drive=spec["config_drive"],
        drive_format=spec["config_drive_format"],
        ephemeral=len(spec["ephemerals"]),
        swap=spec["swap_mib"] > 0,
        volumes=[each.get("device") for each in spec.get("volumes", ()) if not each["boot"]],
    )


def boots_from_volume(spec: Mapping[str, Any]) -> bool:
    """Whether the root disk is a volume."""
    return any(each["boot"] for each in spec.get("volumes", ()))


def volume_slots(mapping: DiskMapping, volumes: Sequence[Mapping[str, Any]]) -> list[DiskSlot]:
    """Where each of these volumes will be."""
    free = iter(mapping.volumes)
    return [mapping.root if each["boot"] else next(free) for each in volumes]


def _disks(spec: Mapping[str, Any], parts: DomainParts, hardware: Mapping[str, Any], cache: str) -> list[DiskSpec]:
    mapping = disk_mapping(spec, hardware)
    files = {} if parts.root is None else {root_file(): parts.root}
    files |= {ephemeral_file(number): disk for number, disk in enumerate(parts.ephemerals)}
    if parts.swap is not None:
        files[swap_file()] = parts.swap
    if parts.config_drive is not None:
        files[config_drive_file()] = {"path": parts.config_drive, "format": "raw"}
    slots = {name: slot for name, slot in mapping.by_file().items() if name in files}
    found = {slot.target: _disk_spec(files[name], slot, cache) for name, slot in slots.items()}
    for volume, slot in zip(parts.volumes, volume_slots(mapping, parts.volumes), strict=True):
        found[slot.target] = volume_disk(volume["source"], slot.bus, slot.target, volume["serial"], cache)
    return [found[slot.target] for slot in mapping.slots()]


def _disk_spec(disk: Disk, slot: DiskSlot, cache: str) -> DiskSpec:
    drive = slot.role == "config_drive"
    return DiskSpec(disk["path"], disk["format"], slot.bus, slot.target, slot.device, cache=cache, readonly=drive)


def _vif_spec(vif: Mapping[str, Any], filter_name: str | None, model: str) -> VifSpec:
    addresses = tuple(address["address"] for address in vif["addresses"])
    return VifSpec(vif["mac"], vif["tap"], model, mtu=vif["mtu"], filter=filter_name, addresses=addresses)


def _cache_mode(directory: Path, wanted: str) -> str:
    """``none`` needs O_DIRECT, which some file systems refuse."""
    if wanted == "none" and directory.exists() and not supports_direct_io(directory):
        return "writeback"
    return wanted
