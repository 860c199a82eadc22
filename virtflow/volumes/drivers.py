"""The drivers of this host's backends, by the backend's name in the database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virtflow.errors import ConfigurationError, HostElsewhere
from virtflow.volumes.driver import VolumeDriver
from virtflow.volumes.exports.exporter import NO_SERVER, Exporter
from virtflow.volumes.file_driver import FileDriver

NAMESPACE = "virtflow.volume_drivers"


@dataclass(frozen=True)
class BackendSettings:
    """What a driver is made with. ``path`` is the backend's own directory, ``format`` what files are kept as unless
    the backend says otherwise, ``setting`` what follows the driver's name in the configuration, ``disk_tool`` qemu-img,
    ``exporter`` what serves volumes to other hosts, ``clear`` whether deleted volumes are to be zeroed."""

    name: str
    path: Path
    format: str
    disk_tool: Any
    setting: str = ""
    exporter: Exporter = NO_SERVER
    clear: bool = False
    lvm_config: str = ""


def file_driver(settings: BackendSettings) -> VolumeDriver:
    """Entry point of the driver ``file``."""
    kept = settings.setting or settings.format
    if kept not in ("raw", "qcow2"):
        raise _wrong(f"{settings.name}: {kept[:80]!r} is neither raw nor qcow2")
    return FileDriver(settings.path, kept, settings.disk_tool, settings.exporter)


def lvm_driver(settings: BackendSettings) -> VolumeDriver:
    """Entry point of the driver ``lvm``."""
    from virtflow.volumes.lvm_driver import LvmDriver
    from virtflow.volumes.lvm_group import VolumeGroup

    group, pool = lvm_place(settings.name, settings.setting)
    tag = f"virtflow.{settings.name.rpartition('@')[2]}"
    tools = VolumeGroup(group, settings.lvm_config), settings.disk_tool, settings.exporter
    return LvmDriver(tools[0], pool, tag, *tools[1:], clear=settings.clear)


def lvm_place(name: str, setting: str) -> tuple[str, str]:
    """The volume group that the backend of this name is in, and its thin pool, empty where it has none."""
    group, slash, pool = setting.partition("/")
    if not _LVM_NAME.fullmatch(group) or (slash and not _LVM_NAME.fullmatch(pool)):
        raise _wrong(f"{name}: {setting[:80]!r} is neither GROUP nor GROUP/POOL")
    return group, pool


_SHIPPED: dict[str, Callable[[BackendSettings], VolumeDriver]] = {"file": file_driver, "lvm": lvm_driver}
"""Known without asking the entry points of every installed package."""
_LVM_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,40}")


class VolumeDrivers:
    """Made when they are first asked for. ``backends`` are the configured ones; ``common`` is what all have."""

    def __init__(self, host: str, backends: Iterable[str], common: BackendSettings) -> None:
        self._host = host
        self._drivers = {name: (driver, setting) for name, driver, setting in map(backend_parts, backends)}
        self._common = common
        self._made: dict[str, VolumeDriver] = {}

    def names(self) -> dict[str, str]:
        """The driver's name, by the backend's name in the database."""
        return {f"{self._host}@{name}": driver for name, (driver, _) in self._drivers.items()}

    def get(self, backend: str) -> VolumeDriver:
        """HostElsewhere for a backend of another host, ConfigurationError for one that is not configured any more."""
        if backend not in self._made:
            host, _, name = backend.rpartition("@")
            if host != self._host:
                raise HostElsewhere(host=host, here=self._host)
            if name not in self._drivers:
                raise _wrong(f"there is no backend {name!r}")
            driver, setting = self._drivers[name]
            settings = replace(self._common, name=backend, path=self._common.path / name, setting=setting)
            self._made[backend] = _load(driver)(settings)
        return self._made[backend]


def backend_parts(entry: str) -> tuple[str, str, str]:
    """The name, the driver and its setting that an entry of ``[volumes] backends`` says."""
    name, _, rest = entry.partition(":")
    driver, _, setting = rest.partition(":")
    safe = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    if not safe or not driver:
        raise _wrong(f"{entry[:80]!r} is not NAME:DRIVER or NAME:DRIVER:SETTING")
    return name, driver, setting


def _wrong(reason: str) -> ConfigurationError:
    return ConfigurationError(group="volumes", option="backends", reason=reason)


def _load(driver: str) -> Callable[[BackendSettings], VolumeDriver]:
    if driver in _SHIPPED:
        return _SHIPPED[driver]
    from importlib.metadata import entry_points

    for point in entry_points(group=NAMESPACE, name=driver):
        found: Callable[[BackendSettings], VolumeDriver] = point.load()
        return found
    reason = f"{driver[:80]!r} is none of {', '.join(_SHIPPED)}, nor an entry point of {NAMESPACE}"
    raise _wrong(reason)
