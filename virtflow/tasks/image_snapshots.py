"""Images of instances: what they will be, the copy of the root disk, and its way to where images are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.files.durable import remove_files, storage_errors, sync
from virtflow.hypervisor.disk_files import DiskFile, disk_files
from virtflow.hypervisor.disk_mapping import root_file
from virtflow.images import kinds
from virtflow.images.records import ImageRecord
from virtflow.tasks.base import Intent, Task

FORMAT = "qcow2"
_OF_THE_BASE = (kinds.TYPE_PROPERTY, kinds.BASE_PROPERTY)
"""Properties that say how the instance's own image was made, not what is in it."""


class DescribeSnapshot(Task):
    """Find the instance, and work out what the image of it will be: what its guest needs it takes over from the image
    of the instance.

    It only reads; nothing to revert. A second execution reads the same.
    """

    default_provides = ("instance_uuid", "host", "draft")

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        image_id: str,
        instances: Any,
        instance_specs: Any,
        image_source: Any,
        settings: Any,
    ) -> tuple[str, str, dict[str, Any]]:
        instance = instances.find(request["instance"], project)
        if instance.name != request["instance"]:
            # The operation holds the name it was given: under another one, two operations would not exclude each other.
            raise InvalidRequest(field="instance", reason=f"must be the instance's name ({instance.name}), not its id")
        spec = instance_specs.current(instance.uuid, instance.operation)
        kept = {name: value for name, value in spec["image"]["properties"].items() if name not in _OF_THE_BASE}
        draft = ImageRecord(
            id=image_id,
            name=request["name"],
            source=image_source.name,
            disk_format=FORMAT,
            min_disk=spec["disk_gib"],
            min_ram=spec["image"]["min_ram"],
            properties={
                **kept,
                kinds.TYPE_PROPERTY: kinds.SNAPSHOT,
                "base_image_ref": spec["image"]["id"],
                "instance_uuid": instance.uuid,
            },
        )
        return instance.uuid, instance.host or settings.host, draft.to_dict()

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ReserveImage(Task):
    """Make sure that the image can be published: the catalog refuses a name that is taken, Glance makes an image
    without data.

    Reverts: removes the image. Its id follows from the operation, so reserving again is the same image.
    """

    def intents(self, draft: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("image", draft["id"]),)

    def execute(self, draft: Mapping[str, Any], image_source: Any) -> None:
        image_source.reserve(ImageRecord.from_dict(draft))

    def revert(self, draft: Mapping[str, Any], image_source: Any, **_kwargs: Any) -> None:
        image_source.discard(draft["id"])


class CopyRootDisk(Task):
    """Copy the root disk, with all that it stands on, into one file: by QEMU while the guest runs, by qemu-img when it
    does not. The guest is frozen for a moment where that was asked for, and never stopped; the domain stays as it is.

    Reverts: ends the job, lets a frozen guest go on, and removes the file. A job that is under way is gone on with; a
    file that was left is made anew.
    """

    default_provides = "copy"
    timeout = "disk"

    def intents(self, instance_uuid: str, operation: str, directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("file", str(copy_path(directories, instance_uuid, operation))),)

    def execute(
        self,
        instance_uuid: str,
        operation: str,
        request: Mapping[str, Any],
        directories: Any,
        hypervisor: Any,
        disk_backups: Any,
        qemu_img: Any,
    ) -> dict[str, Any]:
        path = copy_path(directories, instance_uuid, operation)
        disk = _root_disk(hypervisor, instance_uuid, directories.path(instance_uuid) / root_file())
        size = qemu_img.info(disk.path, disk.format, self.activity).virtual_size

        def create() -> None:
            qemu_img.create(path, FORMAT, size, self.activity)

        quiesce = request["quiesce"]
        if not disk_backups.copy(instance_uuid, disk.target, path, create, quiesce=quiesce, activity=self.activity):
            remove_files(path)
            qemu_img.convert(disk.path, disk.format, path, FORMAT, self.activity, total_bytes=size)
        with storage_errors("write", path):
            sync(path)
        return {"path": str(path), "size": size}

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        request: Mapping[str, Any],
        directories: Any,
        disk_backups: Any,
        **_kwargs: Any,
    ) -> None:
        path = copy_path(directories, instance_uuid, operation)
        disk_backups.abort(instance_uuid, path, self.activity)
        if request["quiesce"]:
            disk_backups.thaw(instance_uuid)
        remove_files(path)


class PublishImage(Task):
    """Give the image its content, and check that it has arrived: until then nobody can use it.

    Reverts: removes the image. One that is published already is complete.
    """

    default_provides = "image"
    timeout = "download"

    def intents(self, draft: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("image_content", draft["id"]),)

    def execute(self, draft: Mapping[str, Any], copy: Mapping[str, Any], image_source: Any) -> dict[str, Any]:
        published = image_source.publish(ImageRecord.from_dict(draft), Path(copy["path"]), self.activity)
        plain: dict[str, Any] = published.to_dict()
        return plain

    def revert(self, draft: Mapping[str, Any], image_source: Any, **_kwargs: Any) -> None:
        image_source.discard(draft["id"])


class RemoveCopy(Task):
    """Remove the file that was published. Reverts: nothing, taking the image back needs no copy. Absent is removed."""

    def execute(self, copy: Mapping[str, Any], image: Mapping[str, Any]) -> None:  # noqa: ARG002 - the order
        remove_files(Path(copy["path"]))

    def revert(self, **_kwargs: Any) -> None:
        """CopyRootDisk's revert has nothing to remove then."""


def copy_path(directories: Any, instance_uuid: str, operation: str) -> Path:
    """Beside the disk: whoever may read that may read this, and what a killed operation leaves has its id."""
    path: Path = directories.path(instance_uuid) / f"snapshot.tmp.{operation}"
    return path


def _root_disk(hypervisor: Any, instance_uuid: str, path: Path) -> DiskFile:
    xml = hypervisor.domain_xml(instance_uuid)
    if xml is None:
        raise NotFound(kind="domain", name=instance_uuid)
    for disk in disk_files(xml):
        if disk.path == str(path):
            return disk
    raise Conflict(
        action="take a snapshot of", kind="instance", name=instance_uuid, reason="it has no root disk of its own"
    )
