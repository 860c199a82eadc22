"""The instance's directory and disks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.errors import HostStorageError
from virtflow.files.durable import PRIVATE, publish, remove_files
from virtflow.tasks.base import Intent, Task


class MakeInstanceDir(Task):
    """Make the instance's directory, with a marker of this operation in it.

    Reverts: removes the directory with everything in it, if the marker is ours. Made twice, it is found by its marker.
    """

    default_provides = "instance_dir"

    def intents(self, instance_uuid: str, directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("directory", str(directories.path(instance_uuid))),)

    def execute(self, instance_uuid: str, operation: str, directories: Any) -> str:
        return str(directories.make(instance_uuid, operation))

    def revert(self, instance_uuid: str, operation: str, directories: Any, **_kwargs: Any) -> None:
        directories.remove(instance_uuid, operation)


class CreateCowOverlay(Task):
    """Make the root disk: a qcow2 overlay over the sized base.

    Reverts: removes the disk and what was staged for it. A disk of that name is complete: if it stands on the same base
    and has the same size, it is the one.
    """

    default_provides = "root_disk"
    timeout = "disk"

    def intents(self, instance_dir: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("file", f"{instance_dir}/disk", {"format": "qcow2"}),)

    def execute(
        self, instance_dir: str, sized_base: Mapping[str, Any], operation: str, qemu_img: Any
    ) -> dict[str, Any]:
        final, staged = _disk_paths(instance_dir, operation)
        size = sized_base["size"]
        if final.exists():
            self._check(qemu_img.info(final, "qcow2", self.activity), final, sized_base)
        else:
            remove_files(staged)
            qemu_img.create_overlay(staged, Path(sized_base["path"]), sized_base["format"], size, self.activity)
            publish(staged, final, PRIVATE)
        return {"path": str(final), "format": "qcow2", "size": size}

    def revert(self, instance_dir: str, operation: str, **_kwargs: Any) -> None:
        remove_files(*_disk_paths(instance_dir, operation))

    @staticmethod
    def _check(info: Any, path: Path, sized_base: Mapping[str, Any]) -> None:
        if info.backing_file != sized_base["path"] or info.virtual_size != sized_base["size"]:
            raise HostStorageError(action="create disk", path=path, reason="another disk of that name is there")


class TrashDisks(Task):
    """Move the instance's directory to the trash of this operation.

    Reverts: moves it back. Each direction is one rename; done already, it is not done again.
    """

    default_provides = "trash"

    def intents(self, operation: str, directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("trash", str(directories.trash_path(operation))),)

    def execute(self, instance: Mapping[str, Any], operation: str, directories: Any) -> str:
        return str(directories.trash(instance["uuid"], operation))

    def revert(self, instance: Mapping[str, Any], operation: str, directories: Any, **_kwargs: Any) -> None:
        directories.restore(instance["uuid"], operation)


class PurgeTrash(Task):
    """Remove a deleted instance's directory for good. This is the pivot of a delete: not reverted.

    Removing what is gone is done.
    """

    timeout = "disk"

    def intents(self, trashed: Mapping[str, Any], directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("purge", str(directories.trash_path(trashed["operation"]))),)

    def execute(self, trashed: Mapping[str, Any], directories: Any) -> None:
        directories.purge(trashed["operation"])


def _disk_paths(instance_dir: str, operation: str) -> tuple[Path, Path]:
    final = Path(instance_dir) / "disk"
    return final, final.with_name(f"{final.name}.tmp.{operation}")
