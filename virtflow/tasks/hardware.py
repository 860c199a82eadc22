"""What the guest's hardware will be: what its image wants, where the image leaves the choice, what suits the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.hypervisor.disk_mapping import default_bus, default_cdrom_bus
from virtflow.hypervisor.firmware import find_uefi
from virtflow.hypervisor.hardware import HardwareOptions
from virtflow.tasks.base import Task
from virtflow.tasks.domain_description import disk_mapping


class ResolveHardware(Task):
    """Work out the guest's hardware, and refuse what this host cannot give, before anything is made on it.

    It only reads; nothing to revert. It provides plain data, with which the disks are mapped and the domain is built.
    """

    default_provides = "hardware"

    def execute(self, spec: Mapping[str, Any], hypervisor: Any, settings: Any) -> dict[str, Any]:
        found = resolve_hardware(HardwareOptions.from_dict(spec["hardware"]), hypervisor.capabilities(), settings)
        disk_mapping(spec, found)  # is there room for every disk?
        return found

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def resolve_hardware(options: HardwareOptions, capabilities: Any, settings: Any) -> dict[str, Any]:
    """Plain data; ``uefi`` is (code, template of the variables) or None. InvalidRequest, HostLacks."""
    own = capabilities.machine if settings.machine == "auto" else settings.machine
    machine = options.machine or own
    virt_type = capabilities.virt_types[0] if settings.virt_type == "auto" else settings.virt_type
    firmware = find_uefi(capabilities.arch) if options.firmware == "uefi" else None
    if machine.startswith("virt") != capabilities.arch.startswith("aarch64"):
        reason = f"{machine!r} is no machine of {capabilities.arch}"
        raise InvalidRequest(field="image property hw_machine_type", reason=reason)
    return {
        "machine": machine,
        "virt_type": virt_type,
        "cpu_model": settings.cpu_model,
        "disk_bus": options.disk_bus or default_bus(virt_type, "disk", machine),
        "cdrom_bus": options.cdrom_bus or default_cdrom_bus(machine),
        "vif_model": options.vif_model or "virtio",
        "video_model": options.video_model,
        "rng_model": options.rng_model or "virtio",
        "guest_agent": options.guest_agent,
        "uefi": None if firmware is None else [firmware.code, firmware.variables],
        "cmdline": options.cmdline,
        "vnc": settings.vnc,
    }
