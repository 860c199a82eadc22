"""What tasks about volumes work with, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from virtflow.persistence.database import Database

if TYPE_CHECKING:
    from virtflow.config import Config


def volume_makers(config: Config, database: Database, services: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """By the name under which tasks ask for them; ``services`` are all others."""
    return {
        "volumes": partial(_rows, "VolumeRepository", database),
        "volume_snapshots": partial(_rows, "SnapshotRepository", database),
        "volume_attachments": partial(_rows, "AttachmentRepository", database),
        "volume_backends": partial(_backends, "BackendRepository", database),
        "volume_types": partial(_backends, "VolumeTypeRepository", database),
        "volume_exporter": lambda: _exporter(config),
        "volume_connector": lambda: _connector(config, services),
        "volume_drivers": lambda: _drivers(config, services),
        "backend_choice": lambda: _backend_choice(config, services),
        "guest_disks": lambda: _guest_disks(config, services),
        "libvirt_secrets": lambda: _libvirt_secrets(services),
        "luks": _luks,
    }


def _rows(name: str, database: Database) -> Any:
    from virtflow.persistence import volumes

    return getattr(volumes, name)(database)


def _backends(name: str, database: Database) -> Any:
    from virtflow.persistence import volume_backends

    return getattr(volume_backends, name)(database)


def _drivers(config: Config, services: Mapping[str, Any]) -> Any:
    from virtflow.volumes.drivers import BackendSettings, VolumeDrivers

    options = config.volumes
    common = BackendSettings(
        name="",
        path=options.path,
        format=options.format,
        disk_tool=services["qemu_img"],
        exporter=services["volume_exporter"],
        clear=options.volume_clear == "zero",
        lvm_config=options.lvm_config or "",
    )
    return VolumeDrivers(config.host, options.backends, common)


def _exporter(config: Config) -> Any:
    options, own = config.volumes, config.volumes.path / ".exports"
    if options.export == "tgt":
        from virtflow.volumes.exports.tgt import Portal, TgtExporter
        from virtflow.volumes.exports.tgt_daemon import TgtDaemon

        portal = Portal(options.export_address, options.iscsi_port)
        return TgtExporter(TgtDaemon(options.tgt_control), portal, options.iqn_prefix, own / "lock")
    if options.export == "nbd":
        from virtflow.volumes.exports.nbd import NbdExporter

        return NbdExporter(options.export_address, options.nbd_port_min, options.nbd_port_max, own)
    from virtflow.volumes.exports.exporter import NO_SERVER

    return NO_SERVER


def _connector(config: Config, services: Mapping[str, Any]) -> Any:
    from virtflow.volumes.connectors.qemu import QemuConnector

    def reconnect() -> int:
        return config.volumes.nbd_reconnect_delay if services["hypervisor"].capabilities().nbd_reconnects else 0

    qemu = QemuConnector(reconnect)
    if config.volumes.connector == "os-brick":
        from virtflow.volumes.connectors.os_brick import OsBrickConnector

        return OsBrickConnector(config.volumes.path / ".connections", qemu)
    return qemu


def _backend_choice(config: Config, services: Mapping[str, Any]) -> Any:
    from virtflow.scheduler.plugins import load_scheduler
    from virtflow.tasks.host_choice import ChoiceLimits
    from virtflow.tasks.volume_choice import BackendChoice

    options = config.volumes
    multipliers = {
        "same-host": options.same_host_multiplier,
        "capacity": options.capacity_multiplier,
        "allocated-capacity": options.allocated_capacity_multiplier,
    }
    return BackendChoice(
        load_scheduler(options.filters, options.weighers, multipliers),
        services["volume_backends"],
        services["hosts"],
        services["decisions"],
        services["volume_drivers"],
        services["settings"],
        ChoiceLimits(options.max_attempts, config.worker.host_down_after),
        ratio=options.ratio,
        capacity_gib=options.capacity_gib,
        workers=config.engine.mode == "workers",
    )


def _libvirt_secrets(services: Mapping[str, Any]) -> Any:
    from virtflow.hypervisor.libvirt_secrets import LibvirtSecrets

    return LibvirtSecrets(services["hypervisor"])


def _luks() -> Any:
    from virtflow.images.luks import Luks

    return Luks()


def _guest_disks(config: Config, services: Mapping[str, Any]) -> Any:
    from virtflow.hypervisor.guest_disks import GuestDisks

    return GuestDisks(services["hypervisor"], config.libvirt.disk_cache, config.volumes.detach_timeout)
