"""The way of disks from one host to another."""

from __future__ import annotations

import secrets as random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.files.durable import PRIVATE, publish, remove_files
from virtflow.hypervisor.disk_mapping import swap_file
from virtflow.images.copying import copy_sparse
from virtflow.tasks.base import Intent, Task
from virtflow.transfer.push import push
from virtflow.transfer.receiver import Receiver

_SECRET = "transfer"  # noqa: S105 - its name
_FIRMWARE = "nvram.fd"


class StashTransferSecret(Task):
    """Make the secret with which disks are sent; it lies encrypted in the database, and the flow knows a reference.

    Reverts: purges it. Made twice, the first one stays.
    """

    default_provides = "transfer_secret"

    def intents(self, operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("secrets", operation),)

    def execute(self, operation: str, secrets: Any) -> str:
        if secrets.count(operation):
            return str(secrets.reference(operation, _SECRET))
        return str(secrets.put(operation, _SECRET, random.token_urlsafe(32).encode()))

    def revert(self, operation: str, secrets: Any, **_kwargs: Any) -> None:
        secrets.purge(operation)


class StartReceiver(Task):
    """Let an rsync daemon receive this operation's disks; provides where. None on one and the same host.

    Reverts: stops it, by its pid. Started again, the one before is stopped first.
    """

    default_provides = "receiver"

    def intents(
        self, operation: str, source_host: str, receivers: Any, settings: Any, **_arguments: Any
    ) -> list[Intent]:
        if source_host == settings.host:
            return []
        return [Intent("receiver", str(receivers.directory(operation)))]

    def execute(
        self,
        operation: str,
        source_host: str,
        incoming_dir: str,
        transfer_secret: str,
        secrets: Any,
        receivers: Any,
        settings: Any,
        resize_options: Any,
    ) -> dict[str, Any] | None:
        if source_host == settings.host:
            return None
        if resize_options.transport == "ssh":
            return Receiver("ssh", receivers.address, 0, incoming_dir).to_dict()
        secret = secrets.get(transfer_secret).decode()
        found = receivers.start(operation, Path(incoming_dir), secret, self.activity)
        return dict(found.to_dict())

    def revert(self, operation: str, receivers: Any, **_kwargs: Any) -> None:
        receivers.stop(operation)


class StopReceiver(Task):
    """Stop the rsync daemon: everything has arrived. Stopping it twice is stopping it once.

    Reverts: nothing. What is reverted sends nothing.
    """

    default_provides = "arrived"

    def execute(self, operation: str, receivers: Any) -> bool:
        receivers.stop(operation)
        return True

    def revert(self, **_kwargs: Any) -> None:
        """Nothing is sent any more."""


class PushDisks(Task):
    """Send the disks to where they will be: of those over an image only the changes. Swap is made anew there.

    What cannot stand on the other host's bases is put together with its own first. On one and the same host the files
    are copied, sharing their blocks where the file system can. Provides what each disk has arrived as.

    Reverts: removes what was put together here; what has arrived goes with the directory it arrived in. Sent again,
    only what is missing or differs is sent.
    """

    default_provides = "pushed"
    timeout = "download"

    def intents(
        self, disks: Sequence[Mapping[str, Any]], instance_uuid: str, operation: str, directories: Any, **arguments: Any
    ) -> list[Intent]:
        if arguments["receiver"] is None:
            return []
        directory = directories.path(instance_uuid)
        return [
            Intent("file", str(_put_together(directory, each["name"], operation))) for each in disks if each["merged"]
        ]

    def execute(
        self,
        disks: Sequence[Mapping[str, Any]],
        instance_uuid: str,
        operation: str,
        stopped: bool,  # noqa: ARG002 - the order
        receiver: Mapping[str, Any] | None,
        transfer_secret: str,
        directories: Any,
        incoming: Any,
        qemu_img: Any,
        secrets: Any,
        resize_options: Any,
    ) -> list[dict[str, Any]]:
        directory = directories.path(instance_uuid)
        sent = [disk for disk in disks if disk["name"] != swap_file()]
        names = [disk["name"] for disk in sent]
        names += [_FIRMWARE] if (directory / _FIRMWARE).exists() else []
        if receiver is None:
            self._copy([directory / name for name in names], incoming.path(instance_uuid, operation), operation)
            return [dict(disk) for disk in sent]
        secret = secrets.get(transfer_secret).decode()
        to, ssh = Receiver(**receiver), resize_options.ssh_command
        merged = {disk["name"] for disk in sent if disk["merged"]}
        push([directory / name for name in names if name not in merged], to, secret, self.activity, ssh_command=ssh)
        for disk in sent:
            if disk["name"] in merged:
                self._put_together_and_push(disk, directory, operation, qemu_img, (to, secret, ssh))
        return [{**disk, "format": "qcow2", "base": None} if disk["name"] in merged else dict(disk) for disk in sent]

    def revert(
        self, disks: Sequence[Mapping[str, Any]], instance_uuid: str, operation: str, directories: Any, **_kwargs: Any
    ) -> None:
        directory = directories.path(instance_uuid)
        for disk in disks:
            path = _put_together(directory, disk["name"], operation)
            remove_files(path)
            if path.parent.is_dir():
                path.parent.rmdir()

    def _copy(self, files: Sequence[Path], target: Path, operation: str) -> None:
        for path in files:
            staged = target / f"{path.name}.tmp.{operation}"
            copy_sparse(path, staged, self.activity)
            publish(staged, target / path.name, PRIVATE)

    def _put_together_and_push(
        self, disk: Mapping[str, Any], directory: Path, operation: str, qemu_img: Any, way: tuple[Receiver, str, str]
    ) -> None:
        """rsync sends a file under its own name, so what is put together has the disk's, in a directory of its own."""
        path = _put_together(directory, disk["name"], operation)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        remove_files(path)
        source = directory / disk["name"]
        qemu_img.convert(source, disk["format"], path, "qcow2", self.activity, total_bytes=disk["size"])
        receiver, secret, ssh = way
        push([path], receiver, secret, self.activity, ssh_command=ssh)
        remove_files(path)
        path.parent.rmdir()


def _put_together(directory: Path, name: str, operation: str) -> Path:
    return directory / f"merged.tmp.{operation}" / name
