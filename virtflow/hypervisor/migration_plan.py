"""How a running guest is to go to another libvirt, and how far it is: plain data.

What libvirt makes of it: https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainMigrateToURI3
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from virtflow.hypervisor.binding import libvirt


@dataclass(frozen=True)
class MigrationPlan:
    """How a guest is to go. ``disks`` are the targets of those that are copied; none where storage is shared. With
    ``unsafe`` libvirt is told that the other ones, whatever it takes them for, are the same on both hosts.

    ``uri`` is the other libvirt's, ``migrate_uri`` and ``disks_port`` where memory and disks go (None and 0: libvirt
    decides). ``bandwidth_mib`` in MiB/s and ``timeout`` in seconds, 0 for no limit; ``downtime_ms`` is what QEMU aims
    at. After ``timeout`` the migration is given up (``abort``), or the guest halted so that it ends (``force``).
    """

    uri: str
    destination_xml: str
    persistent_xml: str
    disks: tuple[str, ...] = ()
    unsafe: bool = False
    migrate_uri: str | None = None
    disks_port: int = 0
    listen_address: str | None = None
    bandwidth_mib: int = 0
    downtime_ms: int = 0
    native_tls: bool = False
    auto_converge: bool = False
    post_copy: bool = False
    timeout: float = 0.0
    on_timeout: str = "abort"

    def flags(self) -> int:
        """libvirt's. The source stays defined: what is left of it is cleaned up once its successor is known to run."""
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC if self.disks else 0
        flags |= libvirt.VIR_MIGRATE_UNSAFE if self.unsafe else 0
        flags |= libvirt.VIR_MIGRATE_TLS if self.native_tls else 0
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE if self.auto_converge else 0
        flags |= libvirt.VIR_MIGRATE_POSTCOPY if self.post_copy else 0
        return int(flags)

    def parameters(self) -> dict[str, Any]:
        found = {
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: self.destination_xml,
            libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: self.persistent_xml,
            libvirt.VIR_MIGRATE_PARAM_URI: self.migrate_uri,
            libvirt.VIR_MIGRATE_PARAM_DISKS_PORT: self.disks_port,
            libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: self.listen_address,
            libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: self.bandwidth_mib,
            libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: list(self.disks),
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class MigrationStats:
    """How far a migration is; bytes, bytes per second, milliseconds. ``throttle`` is auto-converge's, in percent."""

    elapsed_ms: int
    memory_total: int
    memory_processed: int
    memory_remaining: int
    disk_total: int
    disk_processed: int
    disk_remaining: int
    dirty_rate: int
    iteration: int
    downtime_ms: int
    throttle: int

    @classmethod
    def read(cls, raw: dict[str, Any]) -> MigrationStats:
        """From libvirt's job statistics, in which whatever does not apply is missing."""

        def number(name: str) -> int:
            return int(raw.get(name) or 0)

        return cls(
            elapsed_ms=number("time_elapsed"),
            memory_total=number("memory_total"),
            memory_processed=number("memory_processed"),
            memory_remaining=number("memory_remaining"),
            disk_total=number("disk_total"),
            disk_processed=number("disk_processed"),
            disk_remaining=number("disk_remaining"),
            dirty_rate=number("memory_dirty_rate") * number("memory_page_size"),
            iteration=number("memory_iteration"),
            downtime_ms=number("downtime"),
            throttle=number("auto_converge_throttle"),
        )

    def to_dict(self) -> dict[str, int]:
        """Plain JSON data."""
        return asdict(self)

    @property
    def done(self) -> int:
        """What need not be sent any more; it falls when the guest writes to what was sent."""
        return max(0, self.total - self.memory_remaining - self.disk_remaining)

    @property
    def total(self) -> int:
        return self.memory_total + self.disk_total
