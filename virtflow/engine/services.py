"""What tasks work with, made from the configuration when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from virtflow.engine.volume_services import volume_makers
from virtflow.persistence.database import Database
from virtflow.tasks.settings import HostSettings

if TYPE_CHECKING:
    from virtflow.config import Config


class Services(Mapping[str, Any]):
    """Services by the name under which tasks ask for them. Thread-safe; nothing here is ever stored.

    ``replaced`` are used instead of what the configuration says (tests, embedders).
    """

    def __init__(self, config: Config, database: Database, replaced: Mapping[str, Any] | None = None) -> None:
        self._config = config
        self._database = database
        self._made: dict[str, Any] = dict(replaced or {})
        self._lock = threading.RLock()
        self._makers: dict[str, Callable[[], Any]] = {
            "settings": self._settings,
            "instances": self._instances,
            "instance_specs": self._instance_specs,
            "placement": self._placement,
            "hosts": self._hosts,
            "decisions": self._decisions,
            "host_choice": self._host_choice,
            "flavors": self._flavors,
            "networks": self._networks,
            "quotas": self._quotas,
            "secrets": self._secrets,
            "base_references": self._base_references,
            "directories": self._directories,
            "incoming": self._incoming,
            "receivers": self._receivers,
            "resize_options": lambda: self._config.resize,
            "migrations": self._migrations,
            "qemu_img": self._qemu_img,
            "image_source": self._image_source,
            "image_cache": self._image_cache,
            "delta_cache": self._delta_cache,
            "blank_bases": self._blank_bases,
            "hypervisor": self._hypervisor,
            "taps": self._taps,
            "config_drives": self._config_drives,
            "drive_contents": self._drive_contents,
            "injector": self._injector,
            "server_groups": self._server_groups,
            "vif_events": self._vif_events,
            "disk_backups": self._disk_backups,
            "notifier": self._notifier,
            "ledger": self._ledger,
            **volume_makers(config, database, self),
        }

    def __getitem__(self, name: str) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = self._makers[name]()
            return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers.keys() | self._made.keys())

    def __len__(self) -> int:
        return len(self._makers.keys() | self._made.keys())

    def close(self) -> None:
        """Close what holds a connection; guests go on running."""
        with self._lock:
            hypervisor = self._made.pop("hypervisor", None)
        if hypervisor is not None:
            hypervisor.close()

    def _settings(self) -> HostSettings:
        config = self._config
        return HostSettings(
            host=config.host,
            instances_path=config.instances.path,
            virt_type=config.libvirt.virt_type,
            machine=config.libvirt.machine,
            cpu_model=config.libvirt.cpu_model,
            disk_cache=config.libvirt.disk_cache,
            hotplug_ports=config.libvirt.hotplug_ports,
            sized_bases=config.instances.sized_bases,
            disk_backend=config.instances.disk_backend,
            ephemeral_filesystem=config.instances.ephemeral_filesystem,
            force_config_drive=config.config_drive.force,
            config_drive_format=config.config_drive.format,
            injection_partition=config.injection.partition,
            injection_items=config.injection.items(),
            injection_mandatory=config.injection.mandatory,
            dns=tuple(config.network.dns),
            vnc=config.libvirt.vnc,
            vif_events=config.network.vif_events,
            vif_plugging_timeout=config.network.vif_plugging_timeout,
            vif_plugging_is_fatal=config.network.vif_plugging_is_fatal,
            server_group_members=config.quota.server_group_members,
            zone=config.worker.zone,
            cpu_ratio=config.worker.cpu_ratio,
            memory_ratio=config.worker.memory_ratio,
            disk_ratio=config.worker.disk_ratio,
        )

    def _instances(self) -> Any:
        from virtflow.persistence.instances import InstanceRepository

        return InstanceRepository(self._database)

    def _instance_specs(self) -> Any:
        from virtflow.persistence.instance_specs import InstanceSpecRepository

        return InstanceSpecRepository(self._database)

    def _placement(self) -> Any:
        from virtflow.persistence.placement import PlacementRepository

        return PlacementRepository(self._database)

    def _hosts(self) -> Any:
        from virtflow.persistence.hosts import HostRepository

        return HostRepository(self._database)

    def _decisions(self) -> Any:
        from virtflow.persistence.decisions import DecisionRepository

        return DecisionRepository(self._database)

    def _host_choice(self) -> Any:
        from virtflow.engine.scheduling import host_choice

        return host_choice(self._config, self)

    def _flavors(self) -> Any:
        from virtflow.persistence.flavors import FlavorRepository

        return FlavorRepository(self._database)

    def _networks(self) -> Any:
        from virtflow.persistence.networks import NetworkRepository

        return NetworkRepository(self._database)

    def _quotas(self) -> Any:
        from virtflow.persistence.quotas import RESOURCES, QuotaRepository

        return QuotaRepository(self._database, {name: getattr(self._config.quota, name) for name in RESOURCES})

    def _secrets(self) -> Any:
        from virtflow.persistence.secrets import SecretStore, load_or_create_key

        return SecretStore(self._database, load_or_create_key(self._config.secrets.key_file))

    def _base_references(self) -> Any:
        from virtflow.persistence.images import BaseReferenceRepository

        return BaseReferenceRepository(self._database)

    def _directories(self) -> Any:
        from virtflow.storage.instance_directory import InstanceDirectories

        return InstanceDirectories(self._config.instances.path)

    def _incoming(self) -> Any:
        from virtflow.storage.incoming import IncomingDirectories

        return IncomingDirectories(self._config.instances.path)

    def _receivers(self) -> Any:
        from virtflow.transfer.receiver import Receivers

        options = self._config.resize
        first, _, last = options.ports.partition("-")
        address = options.address or self._config.host
        return Receivers(self._config.instances.path / "_receivers", address, (int(first), int(last)))

    def _qemu_img(self) -> Any:
        from virtflow.images.qemu_img import QemuImg

        return QemuImg()

    def _image_source(self) -> Any:
        from virtflow.engine.image_sources import image_source

        return image_source(self._config)

    def _image_cache(self) -> Any:
        from virtflow.images.cache import ImageCache

        settings = self["settings"]
        limit = self._config.images.max_virtual_size << 30
        return ImageCache(settings.base_path, settings.locks_path, self["qemu_img"], max_virtual_size=limit)

    def _delta_cache(self) -> Any:
        from virtflow.images.deltas import DeltaCache

        settings = self["settings"]
        limit = self._config.images.max_virtual_size << 30
        return DeltaCache(settings.base_path, settings.locks_path, self["qemu_img"], max_virtual_size=limit)

    def _blank_bases(self) -> Any:
        from virtflow.images.blank_bases import BlankBases

        settings = self["settings"]
        return BlankBases(settings.base_path, settings.locks_path)

    def _hypervisor(self) -> Any:
        from virtflow.hypervisor.hypervisor import Hypervisor

        options = self._config.libvirt
        return Hypervisor(options.uri, options.embed_root, wait_seconds=options.wait_for_embed)

    def _disk_backups(self) -> Any:
        from virtflow.hypervisor.disk_backups import DiskBackups

        return DiskBackups(self["hypervisor"])

    def _migrations(self) -> Any:
        from virtflow.hypervisor.migrations import Migrations, MigrationSettings

        config = self._config
        settings = MigrationSettings(**vars(config.live_migration))
        return Migrations(self["hypervisor"], config.libvirt.embed_root, config.host, settings)

    def _taps(self) -> Any:
        from virtflow.network.taps import Taps

        return Taps()

    def _config_drives(self) -> Any:
        from virtflow.metadata.config_drive import ConfigDriveWriter

        return ConfigDriveWriter(self._config.config_drive.mkisofs_cmd)

    def _drive_contents(self) -> Any:
        from virtflow.metadata.drive_contents import DriveContents

        options = self._config.config_drive
        return DriveContents.load(options.skip_versions, options.vendor_data, options.network_template)

    def _injector(self) -> Any:
        from virtflow.injection.injector import Injector

        options = self._config.injection
        return Injector(options.method, options.guestfs_backend, options.guestfs_emulated)

    def _server_groups(self) -> Any:
        from virtflow.persistence.server_groups import ServerGroupRepository

        return ServerGroupRepository(self._database)

    def _vif_events(self) -> Any:
        from virtflow.persistence.vif_events import VifEventRepository

        return VifEventRepository(self._database)

    def _notifier(self) -> Any:
        from virtflow.notifications.notifier import Notifier, load_drivers

        options = self._config.notifications
        settings = {"file": options.file, "transport_url": options.transport_url, "topic": options.topic}
        return Notifier(self._config.host, load_drivers(options.drivers, settings))

    def _ledger(self) -> Any:
        from virtflow.persistence.ledger import Ledger

        return Ledger(self._database)
