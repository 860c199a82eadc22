"""Evacuating, on the hosts: the disks that are there after all, and what a dead host finds when it is back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.errors import HostStorageError
from virtflow.files.durable import write_private
from virtflow.hypervisor.disk_files import disk_files
from virtflow.hypervisor.disk_mapping import config_drive_file, ephemeral_file, root_file, swap_file
from virtflow.images import names
from virtflow.tasks.base import Task
from virtflow.tasks.domain_description import boots_from_volume
from virtflow.tasks.evacuate import kept_references

_XML = "libvirt.xml"


class LocateDisks(Task):
    """Find out whether the instance's directory is here: hosts may share it. It only reads; nothing to revert.

    HostStorageError when something of that name is here that is not what the instance had.
    """

    default_provides = "kept"

    def execute(
        self, instance_uuid: str, operation: str, made_by: str, spec: Mapping[str, Any], directories: Any
    ) -> bool:
        path = directories.path(instance_uuid)
        owner = directories.owner(instance_uuid)
        if owner in (made_by, operation):
            return bool((path / _XML).exists() and (boots_from_volume(spec) or (path / root_file()).exists()))
        if path.exists():
            reason = f"it belongs to operation {owner}" if owner else "something of that name is there"
            raise HostStorageError(action="evacuate to", path=path, reason=reason)
        return False

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class TakeOverDir(Task):
    """Take the instance's directory over, as it is: it bears this operation's mark from now on.

    Reverts: the mark and the domain's text of before. Done already, it is not done again.
    """

    default_provides = ("instance_dir", "old_xml")

    def execute(self, instance_uuid: str, operation: str, made_by: str, directories: Any) -> tuple[str, str]:
        path = directories.path(instance_uuid)
        text = (path / _XML).read_text()
        directories.hand_over(instance_uuid, made_by, operation)
        return str(path), text

    def revert(
        self, result: Any, instance_uuid: str, operation: str, made_by: str, directories: Any, **_kwargs: Any
    ) -> None:
        if isinstance(result, list | tuple) and directories.owner(instance_uuid) == operation:
            write_private(directories.path(instance_uuid) / _XML, result[1], operation)
        directories.hand_over(instance_uuid, operation, made_by)


class DescribeKeptDisks(Task):
    """Provide the disks that are here as the domain needs them, and refer to the bases that they stand on. Volumes are
    not among them.

    Reverts: drops the references that this operation has made. HostStorageError when a disk, or what it stands on, is
    not here.
    """

    default_provides = ("root_disk", "ephemeral_disks", "swap_disk", "config_drive", "kernel", "ramdisk")

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        old_xml: str,
        references: Sequence[Mapping[str, Any]],
        base_references: Any,
        directories: Any,
        qemu_img: Any,
        settings: Any,
    ) -> tuple[Any, ...]:
        for path, image_id in kept_references(references):
            base_references.add_reference(path, image_id, settings.host, instance_uuid, operation)
        directory = directories.path(instance_uuid)
        found: dict[str, Any] = {}
        for each in disk_files(old_xml):
            if each.serial is not None:
                continue
            path = directory / Path(each.path).name
            self._check_there(path)
            info = qemu_img.info(path, each.format, self.activity)
            if info.backing_file is not None:
                self._check_there(Path(info.backing_file))
            found[path.name] = {"path": str(path), "format": each.format, "size": info.virtual_size}
        ephemerals = [found[ephemeral_file(number)] for number in range(len(spec["ephemerals"]))]
        drive = found.get(config_drive_file())
        kernel, ramdisk = (_boot_file(spec[name], settings) for name in ("kernel", "ramdisk"))
        config_drive = None if drive is None else drive["path"]
        return found.get(root_file()), ephemerals, found.get(swap_file()), config_drive, kernel, ramdisk

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        references: Sequence[Mapping[str, Any]],
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        for path, _image_id in kept_references(references):
            base_references.drop_reference(path, settings.host, instance_uuid, operation)

    @staticmethod
    def _check_there(path: Path) -> None:
        if not path.exists():
            raise HostStorageError(action="evacuate to", path=path, reason="it is not there")


class RetireLeftDomain(Task):
    """Pull the plug of what runs here of an evacuated instance, and undefine it. Past the pivot: not reverted.

    Done already, or never there: nothing to do. What has come here since, by another operation, is not touched.
    """

    default_provides = "retired"

    def execute(self, left: Mapping[str, Any], instances: Any, hypervisor: Any, settings: Any) -> bool:
        retire(left["instance_uuid"], instances, hypervisor, settings.host, undefine=True)
        return True


class TrashLeftDisks(Task):
    """Put what is here of an evacuated instance's disks into the trash of this operation. Past the pivot: not reverted.

    Disks that hosts share are its new host's, and not touched. Done already, it is not done again.
    """

    def execute(
        self,
        left: Mapping[str, Any],
        operation: str,
        retired: bool,  # noqa: ARG002 - the order
        directories: Any,
        instances: Any,
        settings: Any,
    ) -> None:
        uuid = left["instance_uuid"]
        if not left["kept"] and instances.get(uuid).host != settings.host and directories.owner(uuid) is not None:
            directories.trash(uuid, operation)


def retire(instance_uuid: str, instances: Any, hypervisor: Any, host: str, *, undefine: bool = False) -> None:
    """Let nothing of the instance run on this host, unless it is this host's."""
    if instances.get(instance_uuid).host == host or hypervisor.domain_xml(instance_uuid) is None:
        return
    hypervisor.destroy(instance_uuid)
    if undefine:
        hypervisor.undefine(instance_uuid)


def _boot_file(image: Mapping[str, Any] | None, settings: Any) -> dict[str, Any] | None:
    return None if image is None else {"path": str(settings.base_path / names.base_name(image["id"]))}
