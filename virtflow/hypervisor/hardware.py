"""What an image says about the hardware that its guest wants: the properties of Glance that people use.

Names and values are those of https://docs.openstack.org/glance/latest/admin/useful-image-properties.html. A property
that is not known here is no concern of ours (images carry many); a known one with an unknown value is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from virtflow.errors import InvalidRequest, VirtflowError
from virtflow.hypervisor.safe_xml import text_for_xml

DISK_BUSES = ("virtio", "scsi", "sata", "usb", "ide")
CDROM_BUSES = ("ide", "scsi", "sata", "usb")
VIF_MODELS = ("virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet")
VIDEO_MODELS = ("vga", "virtio", "cirrus", "qxl", "bochs", "none")
RNG_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")
FIRMWARE_TYPES = ("bios", "uefi")
_MACHINE = re.compile(r"(pc|q35|virt)(-(i440fx|q35))?(-[0-9]{1,2}\.[0-9]{1,2})?")
_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")
_LONGEST_CMDLINE = 2047
"""Characters; COMMAND_LINE_SIZE of Linux on x86 is 2048 with the final NUL."""


@dataclass(frozen=True)
class HardwareOptions:
    """What the image wants; None leaves the choice to the host."""

    machine: str | None = None
    disk_bus: str | None = None
    cdrom_bus: str | None = None
    vif_model: str | None = None
    video_model: str | None = None
    rng_model: str | None = None
    guest_agent: bool = False
    firmware: str = "bios"
    cmdline: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)


def image_properties(properties: Mapping[str, str]) -> HardwareOptions:
    """Read an image's properties. Raises InvalidRequest, naming the property, for a value that cannot be honoured."""
    _refuse_secure_boot(properties)
    return HardwareOptions(
        machine=_machine(properties),
        disk_bus=_one_of(properties, "hw_disk_bus", DISK_BUSES),
        cdrom_bus=_one_of(properties, "hw_cdrom_bus", CDROM_BUSES),
        vif_model=_one_of(properties, "hw_vif_model", VIF_MODELS),
        video_model=_one_of(properties, "hw_video_model", VIDEO_MODELS),
        rng_model=_one_of(properties, "hw_rng_model", RNG_MODELS),
        guest_agent=_yes_or_no(properties, "hw_qemu_guest_agent"),
        firmware=_one_of(properties, "hw_firmware_type", FIRMWARE_TYPES) or "bios",
        cmdline=_cmdline(properties),
    )


def _refused(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(field=f"image property {name}", reason=reason)


def _one_of(properties: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = properties.get(name)
    if value is None or value in known:
        return value
    raise _refused(name, f"{value[:40]!a} is none of {', '.join(known)}")


def _yes_or_no(properties: Mapping[str, str], name: str) -> bool:
    value = properties.get(name, "no").lower()
    if value not in (*_YES, *_NO):
        raise _refused(name, f"{value[:40]!a} is neither yes nor no")
    return value in _YES


def _machine(properties: Mapping[str, str]) -> str | None:
    value = properties.get("hw_machine_type")
    if value is not None and not _MACHINE.fullmatch(value):
        raise _refused(
            "hw_machine_type", f"{value[:40]!a} is none of pc, q35, virt, pc-i440fx-N.N, pc-q35-N.N, virt-N.N"
        )
    return value


def _cmdline(properties: Mapping[str, str]) -> str | None:
    value = properties.get("os_command_line")
    if value is None:
        return None
    if len(value) > _LONGEST_CMDLINE:
        raise _refused("os_command_line", f"must have at most {_LONGEST_CMDLINE} characters")
    try:
        return text_for_xml(value, "os_command_line")
    except VirtflowError as error:
        raise _refused("os_command_line", str(error.fields.get("reason", error))) from None


def _refuse_secure_boot(properties: Mapping[str, str]) -> None:
    """Rather no guest than one that believes that it was booted securely."""
    value = _one_of(properties, "os_secure_boot", ("disabled", "optional", "required"))
    if value == "required":
        raise _refused("os_secure_boot", "secure boot is not supported")
