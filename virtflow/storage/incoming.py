"""Where disks arrive: a directory beside the instance's own, which becomes that in one rename.

Its name holds the operation's id, so that whoever finds it knows whose it is; it is thrown away as a whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from virtflow.errors import HostStorageError
from virtflow.files.durable import storage_errors, sync, write_new
from virtflow.storage.instance_directory import MARKER, InstanceDirectories


class IncomingDirectories:
    """The incoming directories below ``instances_path``, by instance and operation."""

    def __init__(self, instances_path: Path) -> None:
        self._instances = InstanceDirectories(instances_path)

    def path(self, instance_uuid: str, operation: str) -> Path:
        return self._instances.instances_path / f"{instance_uuid}.incoming.{operation}"

    def make(self, instance_uuid: str, operation: str, *, replaces: bool) -> Path:
        """Make the directory, with its marker; one that is there, or was published already, is fine.

        ``replaces``: the instance's own directory is on this host and will give way. Where it is not, whatever has that
        name is somebody else's, and HostStorageError.
        """
        incoming = self.path(instance_uuid, operation)
        final = self._instances.path(instance_uuid)
        with storage_errors("create", incoming):
            owner = self._instances.owner(instance_uuid)
            if not replaces and owner != operation and os.path.lexists(final):
                reason = f"it belongs to operation {owner}" if owner else "something of that name is there"
                raise HostStorageError(action="create", path=final, reason=reason)
            incoming.mkdir(mode=0o711, exist_ok=True)
            write_new(incoming / MARKER, operation.encode())
            sync(self._instances.instances_path)
        return incoming

    def remove(self, instance_uuid: str, operation: str) -> None:
        """Remove the directory with all that is in it. Absent is fine."""
        incoming = self.path(instance_uuid, operation)
        with storage_errors("remove", incoming):
            if os.path.lexists(incoming):
                shutil.rmtree(incoming)

    def publish(self, instance_uuid: str, operation: str) -> Path:
        """Make it the instance's directory. Done already is fine; HostStorageError where another one is."""
        final = self._instances.path(instance_uuid)
        with storage_errors("publish", final):
            if self._instances.owner(instance_uuid) == operation:
                return final
            if os.path.lexists(final):
                raise HostStorageError(action="publish", path=final, reason="something of that name is there")
            os.rename(self.path(instance_uuid, operation), final)
            sync(final.parent)
        return final

    def withdraw(self, instance_uuid: str, operation: str) -> None:
        """Take ``publish`` back. Withdrawn already, or never published, is fine."""
        final = self._instances.path(instance_uuid)
        with storage_errors("withdraw", final):
            if self._instances.owner(instance_uuid) == operation:
                os.rename(final, self.path(instance_uuid, operation))
                sync(final.parent)
