"""Which disk gets which target device: pure arithmetic on what exists, so that the same request always maps the same.

libvirt's target names order devices and, on IDE, SCSI and SATA, fix their address; what the guest calls them is its own
affair (https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from virtflow.errors import InvalidRequest

_PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
_LIMITS = {"ide": 4, "sata": 6}
"""Ports of the controller that a machine brings along: two IDE channels on pc, one AHCI on q35."""


@dataclass(frozen=True)
class DiskSlot:
    """``role`` is root, ephemeral, swap, volume or config_drive; ``target`` is unique in its domain."""

    role: str
    bus: str
    target: str
    device: str = "disk"


@dataclass(frozen=True)
class DiskMapping:
    root: DiskSlot
    ephemeral: tuple[DiskSlot, ...] = ()
    swap: DiskSlot | None = None
    volumes: tuple[DiskSlot, ...] = ()
    config_drive: DiskSlot | None = None

    def slots(self) -> tuple[DiskSlot, ...]:
        """In the order in which the disks stand in the domain, the root disk first."""
        optional = [slot for slot in (self.swap,) if slot is not None]
        last = [slot for slot in (self.config_drive,) if slot is not None]
        return (self.root, *self.ephemeral, *optional, *self.volumes, *last)

    def by_file(self, suffix: str = "") -> dict[str, DiskSlot]:
        """The slots by the names of their files in the instance's directory; a rescue has files with a suffix."""
        files = {root_file(suffix): self.root}
        files |= {ephemeral_file(number, suffix): slot for number, slot in enumerate(self.ephemeral)}
        if self.swap is not None:
            files[swap_file(suffix)] = self.swap
        if self.config_drive is not None:
            files[config_drive_file(suffix)] = self.config_drive
        return files


def root_file(suffix: str = "") -> str:
    return f"disk{suffix}"


def ephemeral_file(number: int, suffix: str = "") -> str:
    """The first ephemeral disk is the instance's local disk; those after it count from zero."""
    return f"disk.eph{number - 1}{suffix}" if number else f"disk.local{suffix}"


def swap_file(suffix: str = "") -> str:
    return f"disk.swap{suffix}"


def config_drive_file(suffix: str = "") -> str:
    return f"disk.config{suffix}"


def default_bus(virt_type: str, device: str, machine: str) -> str:
    """The bus of a disk or cdrom whose image wants no other. Raises InvalidRequest (``virt_type``)."""
    if virt_type not in ("qemu", "kvm"):
        raise InvalidRequest(field="virt_type", reason=f"{virt_type!r} is neither qemu nor kvm")
    return default_cdrom_bus(machine) if device == "cdrom" else "virtio"


def map_disks(
    *,
    machine: str,
    bus: str = "virtio",
    config_drive: bool = False,
    drive_format: str = "iso9660",
    cdrom_bus: str | None = None,
    ephemeral: int = 0,
    swap: bool = False,
    volumes: Sequence[str | None] = (),
) -> DiskMapping:
    """Give every disk its target: root, then ephemerals, swap, volumes, and the config drive last.

    ``volumes`` are the targets that they have already; None is one that has none. No other disk gets such a target.

    A config drive is a CD-ROM, or with ``drive_format`` vfat a disk: FAT has sectors that no CD-ROM has.
    Raises InvalidRequest (``disk_bus``, ``cdrom_bus``) for a bus that the machine does not have or that is full.
    """
    letters = _Letters(machine, [target for target in volumes if target is not None])
    root = letters.slot("root", bus)
    ephemerals = tuple(letters.slot("ephemeral", bus) for _ in range(ephemeral))
    swap_slot = letters.slot("swap", bus) if swap else None
    volume_slots = tuple(letters.slot("volume", bus) if each is None else letters.kept(bus, each) for each in volumes)
    drive = None
    if config_drive and drive_format == "vfat":
        drive = letters.slot("config_drive", bus)
    elif config_drive:
        drive = letters.slot("config_drive", cdrom_bus or default_cdrom_bus(machine), field="cdrom_bus", device="cdrom")
    return DiskMapping(root, ephemerals, swap_slot, volume_slots, drive)


def default_cdrom_bus(machine: str) -> str:
    """IDE where the machine has it. Elsewhere virtio-scsi: small guest kernels have no AHCI driver for a SATA drive."""
    return "ide" if _has_ide(machine) else "scsi"


def target_name(prefix: str, index: int) -> str:
    """``vd`` and 0 make vda, 25 vdz, 26 vdaa: the kernel's way to count."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return prefix + letters


def _has_ide(machine: str) -> bool:
    return machine == "pc" or machine.startswith("pc-i440fx")


class _Letters:
    """Counts targets per prefix, because SCSI, SATA and USB disks share theirs, and devices per bus."""

    def __init__(self, machine: str, taken: Iterable[str] = ()) -> None:
        self._machine = machine
        self._taken = frozenset(taken)
        self._by_prefix: dict[str, int] = {}
        self._by_bus: dict[str, int] = {}

    def slot(self, role: str, bus: str, *, field: str = "disk_bus", device: str = "disk") -> DiskSlot:
        prefix = _PREFIXES.get(bus)
        if prefix is None:
            raise InvalidRequest(field=field, reason=f"{bus!r} is none of {', '.join(_PREFIXES)}")
        if bus == "virtio" and device == "cdrom":
            raise InvalidRequest(field=field, reason="a CD-ROM drive cannot be on virtio")
        if bus == "ide" and not _has_ide(self._machine):
            raise InvalidRequest(field=field, reason=f"machine {self._machine} has no IDE")
        self._plug(bus, field)
        index = self._by_prefix.get(prefix, 0)
        while target_name(prefix, index) in self._taken:
            index += 1
        self._by_prefix[prefix] = index + 1
        return DiskSlot(role, bus, target_name(prefix, index), device)

    def kept(self, bus: str, target: str) -> DiskSlot:
        """Of a volume that has this target. One that was attached later is on virtio, whatever the others are on."""
        own = bus if target.startswith(_PREFIXES[bus]) else "virtio"
        self._plug(own, "disk_bus")
        return DiskSlot("volume", own, target)

    def _plug(self, bus: str, field: str) -> None:
        used, limit = self._by_bus.get(bus, 0), _LIMITS.get(bus)
        if limit is not None and used >= limit:
            raise InvalidRequest(field=field, reason=f"{bus} takes at most {limit} disks")
        self._by_bus[bus] = used + 1
