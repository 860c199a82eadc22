"""What a host can run, read from libvirt's capabilities XML."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from virtflow.hypervisor.safe_xml import parse

SCHEMA_DIR = "/usr/share/libvirt/schemas"
"""Where the package of libvirt's client library puts the RelaxNG schemas."""

_PREFERRED_VIRT_TYPES = ("kvm", "qemu")
_NBD_RECONNECT = (9, 2)
"""https://libvirt.org/news.html#v9-2-0-2023-04-01"""
_PREFERRED_MACHINES = ("q35", "virt", "pc")


@dataclass(frozen=True)
class HostCapabilities:
    """``virt_types`` has the preferred one first; it is empty, and emulator and machine are None, without QEMU."""

    arch: str
    virt_types: tuple[str, ...]
    emulator: str | None
    machine: str | None
    has_nwfilter: bool
    libvirt_version: str
    qemu_version: str
    schema_dir: str = SCHEMA_DIR
    machines: tuple[str, ...] = ()
    """All machine types, by every name they have."""

    @property
    def nbd_reconnects(self) -> bool:
        """Whether libvirt can be told for how long QEMU waits for an NBD server that has gone."""
        return tuple(int(part) for part in self.libvirt_version.split(".")) >= _NBD_RECONNECT


def host_capabilities(
    xml: str, *, has_nwfilter: bool, libvirt_version: int, qemu_version: int, schema_dir: str = SCHEMA_DIR
) -> HostCapabilities:
    """Read the guests that the host's own architecture can run. The versions are libvirt's numbers (9.0.0: 9000000)."""
    root = parse(xml)
    arch = root.findtext("host/cpu/arch") or "x86_64"
    guest = _guest_arch(root, arch)
    offered = {domain.get("type") for domain in guest.findall("domain")} if guest is not None else set()
    machines = _machines(guest) if guest is not None else set()
    return HostCapabilities(
        arch=arch,
        virt_types=tuple(kind for kind in _PREFERRED_VIRT_TYPES if kind in offered),
        emulator=guest.findtext("emulator") if guest is not None else None,
        machine=next((machine for machine in _PREFERRED_MACHINES if machine in machines), None),
        has_nwfilter=has_nwfilter,
        libvirt_version=dotted(libvirt_version),
        qemu_version=dotted(qemu_version),
        schema_dir=schema_dir,
        machines=tuple(sorted(machines)),
    )


def _machines(guest: etree._Element) -> set[str]:
    found = guest.findall("machine")
    return {name for machine in found for name in (machine.text, machine.get("canonical")) if name}


def dotted(version: int) -> str:
    """libvirt's version number as people write it: 7002022 is 7.2.22."""
    return f"{version // 1_000_000}.{version // 1_000 % 1_000}.{version % 1_000}"


def _guest_arch(root: etree._Element, arch: str) -> etree._Element | None:
    for guest in root.findall("guest"):
        element = guest.find("arch")
        if element is not None and element.get("name") == arch and guest.findtext("os_type") == "hvm":
            return element
    return None
