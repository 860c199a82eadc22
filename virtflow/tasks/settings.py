"""What tasks need to know of the host they run on, as one service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostSettings:
    """Resolved configuration of this host. ``virt_type`` and ``machine`` may be ``auto``; ratios are overcommit."""

    host: str
    instances_path: Path
    virt_type: str = "auto"
    machine: str = "auto"
    cpu_model: str | None = None
    disk_cache: str = "none"
    hotplug_ports: int = 8
    sized_bases: bool = True
    disk_backend: str = "qcow2"
    ephemeral_filesystem: str = "ext4"
    force_config_drive: bool = True
    config_drive_format: str = "iso9660"
    injection_partition: int = -2
    injection_items: tuple[str, ...] = ()
    injection_mandatory: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    vnc: bool = False
    vif_events: str = "own"
    vif_plugging_timeout: float = 300.0
    vif_plugging_is_fatal: bool = True
    server_group_members: int = -1
    zone: str = "nova"
    cpu_ratio: float = 16.0
    memory_ratio: float = 1.5
    disk_ratio: float = 4.0

    @property
    def locks_path(self) -> Path:
        return self.instances_path / "locks"

    @property
    def base_path(self) -> Path:
        return self.instances_path / "_base"
