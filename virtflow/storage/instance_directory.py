"""The directory of an instance: made with a marker of the operation that owns it, moved to the trash, removed.

Every step is one rename: a directory is there with its marker, or not at all. Everything of ours that is half done
has the operation's id in its name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from virtflow.errors import HostStorageError
from virtflow.files.durable import storage_errors, sync, write_new, write_private

MARKER = ".virtflow-owner"
TRASH = "_trash"


class InstanceDirectories:
    """The directories below ``instances_path``, by instance uuid."""

    def __init__(self, instances_path: Path) -> None:
        self.instances_path = instances_path

    def prepare(self) -> None:
        """Make ``instances_path`` and what is above it, if need be: who may pass through need not be able to list."""
        with storage_errors("create", self.instances_path):
            for directory in reversed((self.instances_path, *self.instances_path.parents)):
                if not directory.exists():
                    directory.mkdir(mode=0o711, exist_ok=True)

    def path(self, instance_uuid: str) -> Path:
        return self.instances_path / instance_uuid

    def trash_path(self, operation: str) -> Path:
        return self.instances_path / TRASH / operation

    def owner(self, instance_uuid: str) -> str | None:
        """The operation that made the directory, or None when there is none."""
        return _read_marker(self.path(instance_uuid))

    def make(self, instance_uuid: str, operation: str) -> Path:
        """Make the directory, or find it made by the same operation. Raises HostStorageError when it is another's."""
        final = self.path(instance_uuid)
        staged = self._staged(instance_uuid, operation)
        with storage_errors("create", final):
            owner = self.owner(instance_uuid)
            if owner == operation:
                return final
            if final.exists():
                reason = f"it belongs to operation {owner}" if owner else "something of that name is there"
                raise HostStorageError(action="create", path=final, reason=reason)
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(mode=0o711)
            write_new(staged / MARKER, operation.encode())
            os.rename(staged, final)
            sync(self.instances_path)
        return final

    def remove(self, instance_uuid: str, operation: str) -> None:
        """Remove the directory with all that is in it, if this operation made it. Absent is fine."""
        staged = self._staged(instance_uuid, operation)
        with storage_errors("remove", self.path(instance_uuid)):
            if self.owner(instance_uuid) == operation:
                _remove_tree(staged)
                os.rename(self.path(instance_uuid), staged)
                sync(self.instances_path)
            _remove_tree(staged)

    def trash(self, instance_uuid: str, operation: str) -> Path:
        """Move the directory to the trash of ``operation``. Already there is fine; nothing at all too."""
        target = self.trash_path(operation)
        source = self.path(instance_uuid)
        with storage_errors("move to the trash", source):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if source.exists() and not target.exists():
                os.rename(source, target)
                sync(target.parent)
                sync(self.instances_path)
        return target

    def restore(self, instance_uuid: str, operation: str) -> None:
        """Bring the directory back from the trash of ``operation``. Already back is fine."""
        source = self.trash_path(operation)
        target = self.path(instance_uuid)
        with storage_errors("restore", target):
            if source.exists():
                if target.exists():
                    raise HostStorageError(action="restore", path=target, reason="something of that name is there")
                os.rename(source, target)
                sync(self.instances_path)

    def hand_over(self, instance_uuid: str, owner: str, to: str) -> None:
        """Let a directory that one operation has made bear the mark of another. Done already, or no such, is fine."""
        if self.owner(instance_uuid) == owner:
            write_private(self.path(instance_uuid) / MARKER, to, to)

    def pass_on_trash(self, operation: str, to: str) -> Path:
        """Let what is in the trash of one operation be in that of another. Done already, or nothing there, is fine."""
        source, target = self.trash_path(operation), self.trash_path(to)
        with storage_errors("pass on", source):
            if source.exists() and not target.exists():
                os.rename(source, target)
                sync(target.parent)
        return target

    def purge(self, operation: str) -> None:
        """Remove what the operation has put in the trash, for good. Absent is fine."""
        target = self.trash_path(operation)
        with storage_errors("purge", target):
            _remove_tree(target)

    def _staged(self, instance_uuid: str, operation: str) -> Path:
        return self.instances_path / f"{instance_uuid}.tmp.{operation}"


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_marker(directory: Path) -> str | None:
    try:
        return (directory / MARKER).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
