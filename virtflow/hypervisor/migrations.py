"""Live migrations from this host and to it, as it is configured: addresses, limits, and what has to fit."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostLacks, HypervisorError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.connection import embed_root_of
from virtflow.hypervisor.domain_state import DomainState
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.migration import Migration, dismiss_incoming, settle_arrived
from virtflow.hypervisor.migration_plan import MigrationPlan
from virtflow.hypervisor.migration_xml import MovingDisk, Relocation, cpu_of, machine_of, moving_disks, relocate

_POLL_SECONDS = 0.1
_PAST_PAGE_CACHE = ("none", "directsync")
_CANNOT_SAY = (
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
)


@dataclass(frozen=True, kw_only=True)
class MigrationSettings:
    """What is configured; see ``[live_migration]``."""

    address: str | None
    transport: str
    native_tls: bool
    port: int
    disks_port: int
    bandwidth: int
    downtime: int
    timeout: float
    on_timeout: str
    auto_converge: bool
    post_copy: bool


class Migrations:
    """Of the guests of one libvirt. Every call may be repeated."""

    def __init__(self, hypervisor: Hypervisor, embed_root: Path | None, host: str, options: MigrationSettings) -> None:
        self._hypervisor = hypervisor
        self._embed_root = embed_root
        self._host = host
        self._options = options

    # -- where a guest comes from

    def runs(self, uuid: str) -> bool:
        """Whether the guest runs: one that is halted stays so."""
        return self._hypervisor.state(uuid) is DomainState.RUNNING

    def describe(self, uuid: str) -> dict[str, Any]:
        """What the guest runs as: its CPU, machine, architecture and type. HypervisorError when it is not there."""
        xml = self._xml(uuid)
        virt_type, arch, machine = machine_of(xml)
        return {"cpu": cpu_of(xml), "virt_type": virt_type, "arch": arch, "machine": machine}

    def pull(self, uuid: str, files: Sequence[str], activity: Activity = IDLE) -> None:
        """Let these disks of the running guest, by the names of their files, stand on nothing any more."""
        for disk in moving_disks(self._xml(uuid)):
            if Path(disk.path).name in files:
                self._pull(uuid, disk.target, activity)

    def carry(
        self, uuid: str, landing: Mapping[str, Any], wanted: Mapping[str, Any], activity: Activity = IDLE
    ) -> dict[str, Any]:
        """Let the guest go where ``landing`` says; how it went, in numbers. See ``Migration.carry``.

        ``wanted`` is what was asked for this time; what is None there is as it is configured.
        """
        with contextlib.closing(self._elsewhere(landing)) as there:
            migration = Migration(self._hypervisor, there, uuid)
            return migration.carry(self._plan(uuid, landing, wanted), activity)

    def keep(self, uuid: str, landing: Mapping[str, Any]) -> bool:
        """Make sure that the guest runs here; False when it has gone. See ``Migration.keep``."""
        with contextlib.closing(self._elsewhere(landing)) as there:
            return Migration(self._hypervisor, there, uuid).keep()

    # -- where it goes

    def address_here(self) -> dict[str, Any]:
        """How another host's libvirt reaches this one. HostLacks where it cannot."""
        if embed_root_of(self._hypervisor.uri, self._embed_root) is not None:
            raise HostLacks(
                action="receive a running guest",
                missing="a libvirt daemon",
                remedy="qemu:///embed only sends: run libvirtd, and set [libvirt] uri to qemu:///system",
            )
        options = self._options
        address = options.address or self._host
        named = f"[{address}]" if ":" in address else address
        port = f":{options.port}" if options.port else ""
        return {
            "uri": f"qemu+{options.transport}://{named}/system",
            "migrate_uri": f"tcp://{named}{port}",
            "listen_address": address if _is_ip(address) else None,
            "disks_port": options.disks_port,
            "emulator": self._hypervisor.capabilities().emulator,
        }

    def check_fits(self, guest: Mapping[str, Any]) -> None:
        """HypervisorError when the guest, as ``describe`` tells of it, cannot run here."""
        capabilities = self._hypervisor.capabilities()
        for what in ("libvirt", "qemu"):
            here, there = getattr(capabilities, f"{what}_version"), guest[f"{what}_version"]
            if _number(here) < _number(there):
                raise _unfit(f"{what} {here} here is older than {there} where the guest runs")
        if guest["arch"] != capabilities.arch:
            raise _unfit(f"its architecture is {guest['arch']}, this host's {capabilities.arch}")
        if guest["virt_type"] not in capabilities.virt_types:
            raise _unfit(f"it runs on {guest['virt_type']}, which this host has not")
        if guest["machine"] not in capabilities.machines:
            raise _unfit(f"this host has no machine type {guest['machine']}")
        if guest["cpu"] is not None and not self._has_cpu(guest):
            raise _unfit("this host's CPU lacks something that the guest's has")

    def clear_for_removal(self, uuid: str) -> bool:
        """Whether no guest runs here, so that what it would need may go; what waits for one is removed."""
        return dismiss_incoming(self._hypervisor, uuid)

    def settle_here(self, uuid: str) -> bool:
        """Whether the guest has come here from a host that is dead; then it runs. See ``settle_arrived``."""
        return settle_arrived(self._hypervisor, uuid)

    # -- inside

    def _plan(self, uuid: str, landing: Mapping[str, Any], wanted: Mapping[str, Any]) -> MigrationPlan:
        options = self._options
        move = Relocation(
            source=landing["source_directory"],
            target=landing["directory"],
            operation=landing["operation"],
            host=landing["host"],
            emulator=landing["emulator"],
            kernel=landing["kernel"],
            initrd=landing["initrd"],
            volumes=landing["volumes"],
        )
        live = self._xml(uuid, libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        stored = self._xml(uuid, libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        files = moving_disks(live)
        volumes = [disk for disk in files if disk.serial in move.volumes]
        local = [disk for disk in files if disk.writable and disk.serial not in move.volumes]
        copied = () if landing["shared"] else tuple(disk.target for disk in local)

        def choice(name: str, configured: Any) -> Any:
            return configured if wanted[name] is None else wanted[name]

        return MigrationPlan(
            uri=landing["uri"],
            destination_xml=relocate(live, move),
            persistent_xml=relocate(stored, move),
            disks=copied,
            unsafe=_is_same_on_both(volumes) and len(copied) == len(local),
            migrate_uri=landing["migrate_uri"],
            disks_port=landing["disks_port"] if copied else 0,
            listen_address=landing["listen_address"],
            bandwidth_mib=choice("bandwidth", options.bandwidth),
            downtime_ms=options.downtime,
            native_tls=options.native_tls,
            auto_converge=choice("auto_converge", options.auto_converge),
            post_copy=choice("post_copy", options.post_copy),
            timeout=choice("complete_within", options.timeout),
            on_timeout=choice("on_timeout", options.on_timeout),
        )

    def _elsewhere(self, landing: Mapping[str, Any]) -> Hypervisor:
        return Hypervisor(landing["uri"])

    def _xml(self, uuid: str, flags: int = 0) -> str:
        text = self._hypervisor.with_domain("describe", uuid, lambda domain: str(domain.XMLDesc(flags)))
        if text is None:
            raise HypervisorError(
                action="describe", domain=uuid, reason="it is not there", code=libvirt.VIR_ERR_NO_DOMAIN
            )
        return text

    def _pull(self, uuid: str, target: str, activity: Activity) -> None:
        """One that is being pulled already goes on; pulling what stands alone is done at once."""

        def pull(domain: Any) -> None:
            if not domain.blockJobInfo(target):
                domain.blockPull(target)

        self._hypervisor.with_domain("pull a disk of", uuid, pull)

        def progress(domain: Any) -> Any:
            return domain.blockJobInfo(target) or None

        while (job := self._hypervisor.with_domain("pull a disk of", uuid, progress)) is not None:
            activity.report(int(job["cur"]), int(job["end"]) or None)
            activity.check()
            time.sleep(_POLL_SECONDS)

    def _has_cpu(self, guest: Mapping[str, Any]) -> bool:
        emulator, arch, machine = self._hypervisor.capabilities().emulator, guest["arch"], guest["machine"]

        def compare(connection: Any) -> int:
            try:
                return int(
                    connection.compareHypervisorCPU(emulator, arch, machine, guest["virt_type"], guest["cpu"], 0)
                )
            except libvirt.libvirtError as error:
                if error.get_error_code() in _CANNOT_SAY:
                    return int(libvirt.VIR_CPU_COMPARE_IDENTICAL)  # libvirt looks again when the guest comes
                raise

        return self._hypervisor.with_connection("compare the CPU of", "a guest", compare) > 0


def _is_same_on_both(volumes: Sequence[MovingDisk]) -> bool:
    """Whether there are volumes here that libvirt takes for files which the other host lacks, and it has them, from a
    server of this one. Past the page cache, each host reads what the other one has written."""
    return bool(volumes) and all(disk.cache in _PAST_PAGE_CACHE for disk in volumes)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _unfit(reason: str) -> HypervisorError:
    return HypervisorError(action="receive", domain="of the other host", reason=reason, code=0)


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
