"""Live migration on the host where the guest is: what it is, what goes ahead of it, its going, and what it leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskflow import retry

from virtflow.errors import (
    HostStorageError,
    HypervisorError,
    InvalidRequest,
    MigrationFailed,
    OperationCancelled,
    TaskTimeout,
)
from virtflow.hypervisor.disk_files import DiskFile
from virtflow.hypervisor.disk_mapping import config_drive_file
from virtflow.images import names
from virtflow.storage.instance_directory import MARKER
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.moved_volumes import Moved
from virtflow.tasks.network import unplug
from virtflow.tasks.resize_disks import DescribeDisks
from virtflow.tasks.volume_connections import connect
from virtflow.transfer.push import push
from virtflow.transfer.receiver import Receiver

_ATTEMPTS = 5


class CheckSource(Task):
    """Provide what the guest runs as, and how another host knows whether it has the same storage. It only reads.

    InvalidRequest for a guest that does not run: ``virtflow migrate`` moves it. Nothing to revert.
    """

    default_provides = "source"

    def execute(self, instance_uuid: str, hypervisor: Any, directories: Any, migrations: Any) -> dict[str, Any]:
        if not migrations.runs(instance_uuid):
            raise InvalidRequest(field="name", reason="its guest does not run: use virtflow migrate")
        capabilities = hypervisor.capabilities()
        return {
            "directory": str(directories.path(instance_uuid)),
            "owner": directories.owner(instance_uuid),
            "marker": marker_of(directories.path(instance_uuid)),
            "libvirt_version": capabilities.libvirt_version,
            "qemu_version": capabilities.qemu_version,
            **migrations.describe(instance_uuid),
        }

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class DescribeRunningDisks(DescribeDisks):
    """DescribeDisks of a guest that goes on running, with what they take: none is put together with its base."""

    def execute(
        self,
        instance_uuid: str,
        spec: Mapping[str, Any],
        hypervisor: Any,
        directories: Any,
        qemu_img: Any,
        resize_options: Any,
    ) -> list[dict[str, Any]]:
        described = super().execute(instance_uuid, spec, hypervisor, directories, qemu_img, resize_options)
        return [{**disk, "merged": False} for disk in described]

    def _describe(self, disk: DiskFile, directory: Path, qemu_img: Any) -> dict[str, Any]:
        allocated = qemu_img.info(disk.path, disk.format, self.activity).actual_size
        return {**super()._describe(disk, directory, qemu_img), "allocated": allocated}


class PullBlankBases(Task):
    """Let the disks that stand on no image stand alone, while the guest runs: swap and ephemeral disks.

    What they stand on was formatted on this host, and another host's has other blocks in other places. Their content
    stays what it is, so nothing is reverted; one that stands alone is left alone.
    """

    default_provides = "pulled"
    timeout = "disk"

    def execute(
        self, instance_uuid: str, disks: Sequence[Mapping[str, Any]], landing: Mapping[str, Any], migrations: Any
    ) -> list[str]:
        if landing["shared"]:
            return []
        blank = [disk["name"] for disk in disks if disk["base"] and names.parse_backing(disk["base"]) is None]
        migrations.pull(instance_uuid, blank, self.activity)
        return blank

    def revert(self, **_kwargs: Any) -> None:
        """Their content is the same."""


class SendDrive(Task):
    """Send the config drive ahead: libvirt copies only what a guest can write to, and expects the rest to be there.

    Reverts: nothing. What has arrived goes with the directory it arrived in. Sent again, what is there is compared.
    """

    default_provides = "sent"
    timeout = "download"

    def execute(
        self,
        instance_uuid: str,
        receiver: Mapping[str, Any] | None,
        transfer_secret: str,
        directories: Any,
        secrets: Any,
        resize_options: Any,
    ) -> bool:
        if receiver is None:
            return False
        drive = directories.path(instance_uuid) / config_drive_file()
        secret = secrets.get(transfer_secret).decode()
        push([drive], Receiver(**receiver), secret, self.activity, ssh_command=resize_options.ssh_command)
        return True

    def revert(self, **_kwargs: Any) -> None:
        """It goes with its directory."""


class UntilJudged(retry.Retry):
    """Try again what has failed without a word about where the guest is: the next attempt looks."""

    def __init__(self) -> None:
        super().__init__(name="UntilJudged", auto_extract=False)

    def execute(self, history: retry.History, **_kwargs: Any) -> int:
        return len(history) + 1

    def on_failure(self, history: retry.History, **_kwargs: Any) -> str:
        _provided, failures = history[len(history) - 1]
        judged = any(each.check(MigrationFailed, OperationCancelled, TaskTimeout) for each in failures.values())
        return str(retry.REVERT if judged or len(history) >= _ATTEMPTS else retry.RETRY)


class Migrate(Task):
    """Let the guest go to the destination, and wait until it is there; provides how it went.

    Executed again, it finds a migration that is under way and goes on with that, or a guest that has arrived. It judges
    by where the guest runs. A cancel stops the migration, if it is not too late for that.

    Reverts: stops a migration that is under way and makes sure that the guest runs here, and that libvirt knows how to
    reach its volumes, should it have to be started. A guest that has arrived on the destination stays there: taking
    that back is a migration of its own. Nothing for an instance that is another host's by now: it was evacuated while
    this one was away.
    """

    cancellable = False
    default_provides = "migrated"
    timeout = 0.0  # it has a limit of its own

    def intents(self, instance_uuid: str, destination: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("migration", f"{instance_uuid} to {destination}"),)

    def execute(
        self,
        instance_uuid: str,
        operation: str,
        destination: str,
        request: Mapping[str, Any],
        landing: Mapping[str, Any],
        kernel: Mapping[str, Any] | None,
        ramdisk: Mapping[str, Any] | None,
        volume_disks: Sequence[Mapping[str, Any]],
        migrations: Any,
    ) -> dict[str, Any]:
        boot = {"kernel": kernel and kernel["path"], "initrd": ramdisk and ramdisk["path"]}
        mark = {"operation": operation, "host": destination}
        volumes = {"volumes": {each["serial"]: each["source"] for each in volume_disks}}
        return dict(migrations.carry(instance_uuid, {**landing, **boot, **mark, **volumes}, request, self.activity))

    def revert(
        self,
        instance_uuid: str,
        landing: Mapping[str, Any],
        moved_volumes: Moved,
        migrations: Any,
        instances: Any,
        settings: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        secrets: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if instances.get(instance_uuid).host != settings.host:
            return None
        reaching = (volume_connector, libvirt_secrets, secrets, self.activity)
        for each in moved_volumes:  # a libvirt that was restarted has forgotten the passwords
            connect(each["id"], each["attachment_id"], each["connection"], *reaching)
        kept = migrations.keep(instance_uuid, landing)
        return None if kept else Debt(error="the guest has arrived on the destination")


class RemoveLeftDir(Task):
    """Remove the directory that the instance has left, if it is the one that it had; not where it is shared.

    Past the pivot: not reverted. Removing what is gone is done.
    """

    default_provides = "removed"
    timeout = "disk"

    def intents(self, leftover: Mapping[str, Any], directories: Any, **_arguments: Any) -> list[Intent]:
        return [] if leftover["shared"] else [Intent("purge", str(directories.path(leftover["instance_uuid"])))]

    def execute(self, leftover: Mapping[str, Any], hypervisor: Any, directories: Any) -> bool:
        check_gone(hypervisor, leftover["instance_uuid"])
        if not leftover["shared"] and leftover["owner"] is not None:
            directories.remove(leftover["instance_uuid"], leftover["owner"])
        return True


class UnplugLeft(Task):
    """Remove the taps and filters that the instance has left. Past the pivot: not reverted. Gone is gone."""

    default_provides = "unplugged"

    def execute(
        self,
        leftover: Mapping[str, Any],
        removed: bool,
        taps: Any,
        hypervisor: Any,
        settings: Any,
    ) -> bool:
        unplug(leftover["vifs"], taps, hypervisor, settings)
        return removed


class UndefineLeft(Task):
    """Undefine the domain that the instance has left: the last of it, so that nobody comes back before all is gone.

    Past the pivot: not reverted. Absent is undefined.
    """

    def execute(self, leftover: Mapping[str, Any], disconnected: bool, hypervisor: Any) -> None:  # noqa: ARG002 - order
        check_gone(hypervisor, leftover["instance_uuid"])
        hypervisor.undefine(leftover["instance_uuid"])


def check_gone(hypervisor: Any, instance_uuid: str) -> None:
    """Raise HypervisorError when the guest runs on this host, which it must not."""
    state = hypervisor.state(instance_uuid)
    if state is not None and state.is_active:
        reason = "it runs, although the instance is on another host"
        raise HypervisorError(action="undefine", domain=instance_uuid, reason=reason, code=0)


def marker_of(directory: Path) -> list[int] | None:
    """What tells a directory of ours from every other one, whichever host looks at it; None when there is none."""
    try:
        found = os.stat(directory / MARKER, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostStorageError(action="look at", path=directory, reason=error.strerror or str(error)) from error
    return [found.st_ino, found.st_mtime_ns, found.st_size]
