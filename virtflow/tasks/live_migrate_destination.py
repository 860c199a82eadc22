"""Live migration on the host where the guest will be: whether it can, and all that has to be there when it comes.

What is made here is taken back only while no guest runs on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.errors import HostStorageError, HypervisorError, InvalidRequest, MigrationFailed
from virtflow.files.durable import PRIVATE, publish, remove_files, storage_errors
from virtflow.hypervisor.disk_mapping import config_drive_file
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.disks import MakeInstanceDir
from virtflow.tasks.live_migrate_source import marker_of
from virtflow.tasks.network import PlugVifs
from virtflow.tasks.transfer import StartReceiver

HERE = Debt(error="the guest runs here")


class CheckDestination(Task):
    """Refuse what this host cannot take, before anything is made; provides where and how the guest comes.

    Storage is shared when the directory here is the very one that the source has. It only reads; nothing to revert.
    """

    default_provides = "landing"

    def execute(
        self,
        instance_uuid: str,
        spec: Mapping[str, Any],
        request: Mapping[str, Any],
        source: Mapping[str, Any],
        disks: Sequence[Mapping[str, Any]],
        hypervisor: Any,
        directories: Any,
        migrations: Any,
    ) -> dict[str, Any]:
        address = migrations.address_here()
        migrations.check_fits(source)
        for domain in hypervisor.domains():
            if domain.uuid == instance_uuid:
                raise _in_the_way(spec["name"], "what a migration has left behind is not cleaned up yet")
            if domain.name == spec["name"]:
                raise _in_the_way(spec["name"], "a domain of that name is there")
        directory = directories.path(instance_uuid)
        shared = source["marker"] is not None and marker_of(directory) == source["marker"]
        if shared and request["block"]:
            raise InvalidRequest(field="block", reason="both hosts have the same storage: nothing is to be copied")
        if not shared:
            _check_space(directory.parent, sum(disk["allocated"] for disk in disks))
        return {"shared": shared, "directory": str(directory), "source_directory": source["directory"], **address}

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class MakeLandingDir(MakeInstanceDir):
    """MakeInstanceDir, unless storage is shared: then it is there.

    Reverts: as MakeInstanceDir does, but not while the guest runs here.
    """

    def intents(self, landing: Mapping[str, Any], **arguments: Any) -> tuple[Intent, ...]:  # type: ignore[override]
        return () if landing["shared"] else super().intents(**arguments)

    def execute(  # type: ignore[override]
        self, instance_uuid: str, operation: str, landing: Mapping[str, Any], directories: Any
    ) -> str:
        return landing["directory"] if landing["shared"] else super().execute(instance_uuid, operation, directories)

    def revert(  # type: ignore[override]
        self, instance_uuid: str, operation: str, directories: Any, migrations: Any, **_kwargs: Any
    ) -> Debt | None:
        if directories.owner(instance_uuid) != operation:
            return None
        if not migrations.clear_for_removal(instance_uuid):
            return HERE
        directories.remove(instance_uuid, operation)
        return None


class ReceiveDrive(StartReceiver):
    """StartReceiver where there is a config drive to receive."""

    def intents(self, spec: Mapping[str, Any], landing: Mapping[str, Any], **arguments: Any) -> list[Intent]:  # type: ignore[override]
        return super().intents(**arguments) if _drive_comes(spec, landing) else []

    def execute(  # type: ignore[override]
        self,
        spec: Mapping[str, Any],
        landing: Mapping[str, Any],
        instance_dir: str,
        operation: str,
        source_host: str,
        transfer_secret: str,
        secrets: Any,
        receivers: Any,
        settings: Any,
        resize_options: Any,
    ) -> dict[str, Any] | None:
        if not _drive_comes(spec, landing):
            return None
        given = (operation, source_host, instance_dir, transfer_secret, secrets, receivers, settings, resize_options)
        return super().execute(*given)


class CreateTargets(Task):
    """Make what the disks are copied into: over the same base as on the source, or empty; in the same size.

    Makes nothing that MakeLandingDir's revert does not remove. A target that is there is the one: what was copied into
    it once is copied again.
    """

    default_provides = "targets"
    timeout = "disk"

    def execute(
        self,
        disks: Sequence[Mapping[str, Any]],
        bases: Mapping[str, Mapping[str, str]],
        landing: Mapping[str, Any],
        arrived: bool,  # noqa: ARG002 - the order
        operation: str,
        qemu_img: Any,
    ) -> list[str]:
        if landing["shared"]:
            return []
        directory = Path(landing["directory"])
        copied = [disk for disk in disks if disk["name"] != config_drive_file()]
        for disk in copied:
            self._make(directory / disk["name"], disk, bases.get(disk["name"]), operation, qemu_img)
        if (directory / config_drive_file()).exists():
            with storage_errors("protect", directory / config_drive_file()):
                os.chmod(directory / config_drive_file(), PRIVATE)
        return [disk["name"] for disk in copied]

    def revert(self, **_kwargs: Any) -> None:
        """They go with their directory."""

    def _make(
        self, path: Path, disk: Mapping[str, Any], stands_on: Mapping[str, str] | None, operation: str, qemu_img: Any
    ) -> None:
        if path.exists():
            return
        staged = path.with_name(f"{path.name}.tmp.{operation}")
        remove_files(staged)
        if stands_on is None:
            qemu_img.create(staged, disk["format"], disk["size"], self.activity)
        else:
            qemu_img.create_overlay(staged, stands_on["old"], "raw", disk["size"], self.activity)
        publish(staged, path, PRIVATE)


class PlugArriving(PlugVifs):
    """PlugVifs for a guest that comes. Reverts: as PlugVifs does, but not while the guest runs here."""

    def revert(  # type: ignore[override]
        self,
        result: Any,
        instance_uuid: str,
        vifs: Sequence[Mapping[str, Any]],
        taps: Any,
        hypervisor: Any,
        migrations: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if not migrations.clear_for_removal(instance_uuid):
            return HERE
        super().revert(result, vifs, taps, hypervisor, settings)
        return None


class FindArrived(Task):
    """Say that the guest has come, and let it run, if it has; the source was fenced and cannot say.

    MigrationFailed when it has not: what waits for it is removed. A second execution finds the same.

    Reverts: nothing. A guest that has come stays: nobody knows of another place for it.
    """

    cancellable = False
    default_provides = "migrated"

    def execute(self, instance_uuid: str, migrations: Any) -> dict[str, Any]:
        if not migrations.settle_here(instance_uuid):
            raise MigrationFailed(domain=instance_uuid, reason="its host was fenced before it had arrived")
        return {"found": True}

    def revert(self, **_kwargs: Any) -> None:
        """The guest stays where it runs."""


def _drive_comes(spec: Mapping[str, Any], landing: Mapping[str, Any]) -> bool:
    return bool(spec["config_drive"]) and not landing["shared"]


def _in_the_way(name: str, reason: str) -> HypervisorError:
    return HypervisorError(action="receive", domain=name, reason=reason, code=0)


def _check_space(directory: Path, needed: int) -> None:
    with storage_errors("look at", directory):
        found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise HostStorageError(
            action="receive disks in", path=directory, reason=f"{needed} bytes are needed, {free} are free"
        )
