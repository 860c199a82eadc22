"""Disks that come and go while the domain stays: in the running guest, in its definition, or both.

A disk is found by its serial, the volume's id. Reference: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from lxml import etree

from virtflow.activity import IDLE, Activity
from virtflow.errors import HypervisorError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.domain_state import DomainState, status_of
from virtflow.hypervisor.domain_xml import disk_element
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.safe_xml import parse
from virtflow.hypervisor.volume_disks import Source, volume_disk

_POLL_SECONDS = 0.2
_ASK_AGAIN_SECONDS = 5.0
"""How often a guest is asked to let go: one that is still booting has not heard it."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class GuestDisk:
    """``xml`` is libvirt's description of the device."""

    target: str
    xml: str


class GuestDisks:
    """Of the domains of one libvirt. Every call may be repeated. HypervisorError when libvirt or the guest refuses."""

    def __init__(self, hypervisor: Hypervisor, cache: str, detach_seconds: float) -> None:
        """``cache`` is QEMU's word; a guest has ``detach_seconds`` to let go of a disk."""
        self._hypervisor = hypervisor
        self._cache = cache
        self._detach_seconds = detach_seconds

    def free_target(self, domain: str) -> str:
        """The first name vdX that neither the running guest nor the definition has."""
        described = (self._description(domain, live=live) for live in (True, False))
        found = [root for root in described if root is not None]
        taken = {target.get("dev") for root in found for target in root.iterfind("devices/disk/target")}
        for letter in _LETTERS:
            if f"vd{letter}" not in taken:
                return f"vd{letter}"
        raise HypervisorError(action="attach to", domain=domain, reason="it has no room for another disk", code=0)

    def find(self, domain: str, serial: str, *, live: bool) -> GuestDisk | None:
        """The disk in the running guest, or in the definition. None also when there is no such domain or guest."""
        root = self._description(domain, live=live)
        return None if root is None else _disk_of(root, serial)

    def description(self, source: Source, target: str, serial: str) -> str:
        """The XML of a disk to attach."""
        return etree.tostring(
            disk_element(volume_disk(source, "virtio", target, serial, self._cache)), encoding="unicode"
        )

    def attach(self, domain: str, serial: str, xml: str, *, live: bool) -> None:
        """Into the running guest, if one runs, or into the definition."""
        root = self._description(domain, live=live)
        if (root is None and live) or (root is not None and _disk_of(root, serial) is not None):
            return
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG

        def plug(found: Any) -> bool:
            return bool(found.attachDeviceFlags(xml, flags) == 0)

        if not self._hypervisor.with_domain("attach to", domain, plug):
            raise HypervisorError(action="attach to", domain=domain, reason="it is gone", code=0)

    def detach_persistent(self, domain: str, serial: str) -> None:
        """Out of the definition."""
        disk = self.find(domain, serial, live=False)
        if disk is not None:
            flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
            self._hypervisor.with_domain("detach from", domain, lambda each: each.detachDeviceFlags(disk.xml, flags))

    def detach_live(self, domain: str, serial: str, activity: Activity = IDLE) -> None:
        """Ask the running guest to let go, and wait until the device is gone; a guest that has stopped has let go, and
        one that was halted because of this disk goes on, so that it can.

        HypervisorError when it has not in time: the device is still there.
        """
        deadline = time.monotonic() + self._detach_seconds
        asked = float("-inf")
        while (disk := self.find(domain, serial, live=True)) is not None:
            now = time.monotonic()
            if now >= deadline:
                reason = f"the guest has not let go of {disk.target} in {self._detach_seconds:.0f} s"
                raise HypervisorError(action="detach from", domain=domain, reason=reason, code=0)
            self.let_go_on(domain, (serial,))
            if now - asked >= _ASK_AGAIN_SECONDS:
                self._ask(domain, disk.xml)
                asked = now
                continue
            activity.sleep(_POLL_SECONDS)

    def resize(self, domain: str, serial: str, size: int) -> bool:
        """Tell the running guest that the disk has ``size`` bytes; whether there was one to tell."""
        disk = self.find(domain, serial, live=True)
        if disk is None:
            return False
        target, flags = disk.target, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self._hypervisor.with_domain("resize a disk of", domain, lambda each: each.blockResize(target, size, flags))
        return True

    def failed(self, domain: str) -> set[str]:
        """The serials of the disks because of whose errors QEMU has halted the guest: not for want of room."""

        def targets(found: Any) -> set[str]:
            status = status_of(found)
            if (status.state, status.reason) != (DomainState.PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
                return set()
            errors = found.diskErrors().items()
            return {target for target, error in errors if error == libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC}

        broken = self._hypervisor.with_domain("look at the disks of", domain, targets)
        root = self._description(domain, live=True) if broken else None
        if root is None or not broken:
            return set()
        disks = {disk.find("target").get("dev"): disk.findtext("serial") for disk in root.iterfind("devices/disk")}
        return {disks.get(target) or target for target in broken}

    def let_go_on(self, domain: str, serials: Container[str]) -> bool:
        """Let a guest run that QEMU has halted because of these disks, and of no other; whether it runs on.

        What it was about to read and write is tried again, and halts it again where that fails: QEMU's NBD client looks
        for its server by itself, after 1, 2, 4, 8 and then every 16 seconds, and fails everything until it has it.
        """
        failed = self.failed(domain)
        if not failed or not all(serial in serials for serial in failed):
            return False
        self._hypervisor.resume(domain)
        time.sleep(_POLL_SECONDS)
        return not self.failed(domain)

    def _ask(self, domain: str, xml: str) -> None:
        """A request that is pending already, or a device that has just gone, is no error."""

        def ask(found: Any) -> None:
            try:
                found.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _PENDING_OR_GONE:
                    raise

        self._hypervisor.with_domain("detach from", domain, ask)

    def _description(self, domain: str, *, live: bool) -> Any:
        """None when there is no such domain, or no guest where one is asked for."""

        def describe(found: Any) -> str:
            if live and not found.isActive():
                return ""
            return str(found.XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE))

        text = self._hypervisor.with_domain("describe", domain, describe)
        return parse(text) if text else None


def _disk_of(root: Any, serial: str) -> GuestDisk | None:
    for disk in root.iterfind("devices/disk"):
        if disk.findtext("serial") == serial:
            target = disk.find("target")
            assert target is not None  # libvirt gives every disk one
            return GuestDisk(str(target.get("dev")), etree.tostring(disk, encoding="unicode"))
    return None


_PENDING_OR_GONE = (
    libvirt.VIR_ERR_DEVICE_MISSING,
    libvirt.VIR_ERR_OPERATION_FAILED,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
)
