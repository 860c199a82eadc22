"""Which files a domain has as disks: read from its XML, as libvirt has it."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.hypervisor.safe_xml import parse


@dataclass(frozen=True)
class DiskFile:
    """``format`` is what the domain says, and so what QEMU takes it for; ``device`` is disk or cdrom;
    ``serial`` is the id of a volume."""

    path: str
    format: str
    device: str
    target: str
    serial: str | None = None


def disk_files(xml: str) -> list[DiskFile]:
    """Every disk of type ``file``, in the domain's order. One without a driver is raw (libvirt's own default)."""
    found = []
    for disk in parse(xml).iterfind("devices/disk[@type='file']"):
        source, driver, target = disk.find("source"), disk.find("driver"), disk.find("target")
        path = None if source is None else source.get("file")
        if path is None:
            continue  # an empty drive
        file_format = "raw" if driver is None else driver.get("type", "raw")
        name = "" if target is None else target.get("dev", "")
        found.append(DiskFile(path, file_format, disk.get("device", "disk"), name, disk.findtext("serial")))
    return found
