"""The XML with which a guest arrives on another host: what it runs with, with that host's paths.

libvirt compares it with what the guest has and refuses whatever the guest would see; file names, the emulator and
metadata are the host's own affair. Reference: https://libvirt.org/migration.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from virtflow.hypervisor.domain_xml import METADATA_NAMESPACE, disk_element
from virtflow.hypervisor.safe_xml import parse
from virtflow.hypervisor.volume_disks import Source, volume_disk

_PATHS = ("devices/disk/source/@file", "devices/serial/source/@path", "devices/console/source/@path")
_CHAIN = ("devices/disk/backingStore", "devices/disk/mirror")


@dataclass(frozen=True)
class Relocation:
    """From the directory of the instance on one host to that on another. None leaves what the source has.

    ``operation`` and ``host`` go into the domain's metadata: by these it is known whose it is. ``volumes`` are what the
    disks of these serials stand on there.
    """

    source: str
    target: str
    operation: str
    host: str
    emulator: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    volumes: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class MovingDisk:
    """A disk of type ``file``; ``writable`` is whether the guest can have changed it. ``cache`` is QEMU's word."""

    target: str
    path: str
    writable: bool
    serial: str | None = None
    cache: str | None = None


def relocate(xml: str, move: Relocation) -> str:
    """The domain's XML as the other host needs it."""
    root = parse(xml)
    for parent, attribute in _places(root):
        parent.set(attribute, _moved(parent.get(attribute) or "", move))
    for path in _CHAIN:  # as the source's libvirt has found them; the other one looks for itself
        for element in root.findall(path):
            element.getparent().remove(element)  # type: ignore[union-attr]
    for disk in root.iterfind("devices/disk"):
        serial = disk.findtext("serial") or ""
        if serial in move.volumes:
            _stand_on(disk, serial, move.volumes[serial])
    texts = (("os/kernel", move.kernel), ("os/initrd", move.initrd), ("devices/emulator", move.emulator))
    for path, text in texts:
        found = root.find(path)
        if found is not None and text is not None:
            found.text = text
    nvram = root.find("os/nvram")
    if nvram is not None and nvram.text:
        nvram.text = _moved(nvram.text, move)
    mark = root.find(f"metadata/{{{METADATA_NAMESPACE}}}instance")
    if mark is not None:
        mark.set("operation", move.operation)
        mark.set("host", move.host)
    return str(etree.tostring(root, encoding="unicode"))


def moving_disks(xml: str) -> list[MovingDisk]:
    """The disks that lie in files, in the domain's order; a drive without a medium is none."""
    found = []
    for disk in parse(xml).iterfind("devices/disk[@type='file']"):
        source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
        path = None if source is None else source.get("file")
        if path is None or target is None:
            continue
        writable = disk.get("device", "disk") == "disk" and disk.find("readonly") is None
        cache = None if driver is None else driver.get("cache")
        found.append(MovingDisk(str(target.get("dev")), path, writable, disk.findtext("serial"), cache))
    return found


def cpu_of(xml: str) -> str | None:
    """The guest's CPU, for a comparison with another host's; None where it has QEMU's default."""
    cpu = parse(xml).find("cpu")
    return None if cpu is None else str(etree.tostring(cpu, encoding="unicode"))


def machine_of(xml: str) -> tuple[str, str, str]:
    """What the guest runs as: (domain type, architecture, machine type)."""
    root = parse(xml)
    element = root.find("os/type")
    assert element is not None  # libvirt gives every domain one
    return str(root.get("type")), str(element.get("arch")), str(element.get("machine"))


def _stand_on(disk: etree._Element, serial: str, source: Source) -> None:
    """What the guest sees of the disk stays: bus, address and serial."""
    there = disk_element(volume_disk(source, "", "", serial, ""))
    disk.set("type", str(there.get("type")))
    disk.replace(_part(disk, "source"), _part(there, "source"))
    driver, then = _part(disk, "driver"), _part(there, "driver")
    driver.set("type", str(then.get("type")))
    if (policy := then.get("error_policy")) is not None:
        driver.set("error_policy", policy)
    elif "error_policy" in driver.attrib:
        del driver.attrib["error_policy"]


def _part(disk: etree._Element, name: str) -> etree._Element:
    found = disk.find(name)
    assert found is not None  # every disk that we make has both
    return found


def _places(root: etree._Element) -> Iterator[tuple[Any, str]]:
    for path in _PATHS:
        where, _slash, attribute = path.rpartition("/@")
        for element in root.findall(where):
            if element.get(attribute) is not None:
                yield element, attribute


def _moved(path: str, move: Relocation) -> str:
    below = path.removeprefix(f"{move.source}/")
    return path if below == path else f"{move.target}/{below}"
