"""What a host can run, as the scheduler is told."""

from __future__ import annotations

from typing import Any

from virtflow.errors import HostLacks
from virtflow.hypervisor.capabilities import HostCapabilities
from virtflow.hypervisor.firmware import find_uefi


def describe(capabilities: HostCapabilities) -> dict[str, Any]:
    """Plain data. ``machines`` are names of machine types with their versions, ``firmware`` bios and perhaps uefi."""
    return {
        "arch": capabilities.arch,
        "virt_types": list(capabilities.virt_types),
        "machines": list(capabilities.machines),
        "firmware": ["bios", "uefi"] if _has_uefi(capabilities.arch) else ["bios"],
        "nwfilter": capabilities.has_nwfilter,
        "libvirt_version": capabilities.libvirt_version,
        "qemu_version": capabilities.qemu_version,
    }


def _has_uefi(arch: str) -> bool:
    try:
        find_uefi(arch)
    except HostLacks:
        return False
    return True
