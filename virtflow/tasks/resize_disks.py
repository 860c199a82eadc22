"""The disks of an instance that is resized: what they are, what they stand on, how they arrive and how they are grown.

Where they arrive is a directory of its own, thrown away as a whole when the operation is reverted: until then the
instance's own directory is as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.errors import HostStorageError, InvalidRequest
from virtflow.files.durable import PRIVATE, sync
from virtflow.hypervisor.disk_files import DiskFile, disk_files
from virtflow.hypervisor.disk_mapping import config_drive_file, ephemeral_file, root_file, swap_file
from virtflow.images import names
from virtflow.images.disk_backends import make_disk
from virtflow.images.records import ImageRecord
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.root_disks import disk_plan

Disk = Mapping[str, Any]
_GIB = 1 << 30


class DescribeDisks(Task):
    """Provide what the instance's disks are: of each its file, format, sizes, and the name of what it stands on.

    The domain says which files, each file what it stands on; volumes are not among them. ``merged``: to another host it
    goes put together with its base. It only reads; nothing to revert. InvalidRequest when one would have to shrink.
    """

    default_provides = "disks"

    def execute(
        self,
        instance_uuid: str,
        spec: Mapping[str, Any],
        hypervisor: Any,
        directories: Any,
        qemu_img: Any,
        resize_options: Any,
    ) -> list[dict[str, Any]]:
        xml = hypervisor.domain_xml(instance_uuid)
        if xml is None:
            raise InvalidRequest(field="name", reason="libvirt has no domain of this instance")
        wanted, volumes = _wanted_sizes(spec), {each["id"] for each in spec.get("volumes", ())}
        own = [each for each in disk_files(xml) if each.serial not in volumes]
        disks = [self._describe(each, directories.path(instance_uuid), qemu_img) for each in own]
        disks = [{**disk, "merged": is_merged(disk["name"], disk["base"], resize_options.copy)} for disk in disks]
        for disk in disks:
            size = wanted.get(disk["name"])
            if size is not None and disk["size"] > size and disk["name"] != swap_file():
                reason = f"{disk['name']} has {disk['size']} bytes, and would get {size}: disks never shrink"
                raise InvalidRequest(field="disk", reason=reason)
        return disks

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""

    def _describe(self, disk: DiskFile, directory: Path, qemu_img: Any) -> dict[str, Any]:
        path = Path(disk.path)
        if path.parent != directory:
            raise HostStorageError(action="move", path=path, reason=f"it is not in {directory}")
        info = qemu_img.info(path, disk.format, self.activity)
        base = None if info.backing_file is None else Path(info.backing_file).name
        return {"name": path.name, "format": disk.format, "size": info.virtual_size, "base": base}


class MakeIncomingDir(Task):
    """Make the directory in which the disks arrive.

    Reverts: removes it with all that is in it; not while it still is the instance's directory. Made twice, it is the
    same one.
    """

    default_provides = "incoming_dir"
    timeout = "disk"

    def intents(self, instance_uuid: str, operation: str, incoming: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("directory", str(incoming.path(instance_uuid, operation))),)

    def execute(self, instance_uuid: str, operation: str, source_host: str, incoming: Any, settings: Any) -> str:
        return str(incoming.make(instance_uuid, operation, replaces=source_host == settings.host))

    def revert(
        self, instance_uuid: str, operation: str, incoming: Any, directories: Any, **_kwargs: Any
    ) -> Debt | None:
        if directories.owner(instance_uuid) == operation:
            return Debt(error="its directory is still the instance's")
        incoming.remove(instance_uuid, operation)
        return None


class FetchBases(Task):
    """Bring what the disks stand on to this host, in the old size and in the new one, and refer to it.

    Which image that is, the disks say themselves. What goes to another host put together needs none.

    Reverts: drops the references that this operation has made, and what is half done; finished bases are shared and
    stay. References come first, so that no pruning takes a base in between; a second execution finds what is there.
    """

    default_provides = ("bases", "kernel", "ramdisk")
    timeout = "download"

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> list[Intent]:
        return [Intent("base_reference", f"{_image_name(each)}/{instance_uuid}") for each in _images(spec)]

    def execute(
        self,
        spec: Mapping[str, Any],
        disks: Sequence[Disk],
        instance_uuid: str,
        operation: str,
        source_host: str,
        image_cache: Any,
        image_source: Any,
        base_references: Any,
        settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
        def refer(name: str, image_id: str) -> None:
            path = str(settings.base_path / name)
            base_references.add_reference(path, image_id, settings.host, instance_uuid, operation)

        def fetch(image: ImageRecord) -> Any:
            refer(names.base_name(image.id), image.id)
            return image_cache.fetch(image, image_source, self.activity)

        def sized(base: Any, gib: int | None) -> str:
            if gib is None:
                return str(base.path)
            refer(names.sized_name(names.base_name(base.image_id), gib << 30), base.image_id)
            return str(image_cache.size_base(base, gib << 30, self.activity))

        bases = {}
        for disk in disks:
            found = names.parse_backing(disk["base"] or "")
            if found is None or (disk["merged"] and source_host != settings.host):
                continue
            sha1, gib = found
            base = fetch(_record(spec, sha1, image_source))
            new_gib = spec["disk_gib"] if settings.sized_bases and gib is not None else None
            bases[disk["name"]] = {"old": sized(base, gib), "new": sized(base, new_gib)}
        kernel, ramdisk = (None if spec[each] is None else fetch(ImageRecord.from_dict(spec[each])) for each in _BOOT)
        return bases, _boot_file(kernel), _boot_file(ramdisk)

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        image_cache: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        for each in base_references.references(host=settings.host, consumer=instance_uuid):
            base_references.drop_reference(each.base_path, each.host, each.consumer, operation)
        for image in _images(spec):
            image_cache.abandon(image["id"])


class FitDisks(Task):
    """Let the disks that have arrived stand on this host's bases, in the new size, and grow them to it.

    The bases are exchanged in qemu-img's safe mode: where the two differ, the old one's content is kept. Makes nothing
    that MakeIncomingDir's revert does not remove; each step looks at the disk first, so doing it again is no harm.
    """

    default_provides = ("root_disk", "ephemeral_disks", "config_drive")
    timeout = "disk"

    def execute(
        self,
        spec: Mapping[str, Any],
        pushed: Sequence[Disk],
        bases: Mapping[str, Mapping[str, str]],
        instance_uuid: str,
        operation: str,
        incoming: Any,
        directories: Any,
        qemu_img: Any,
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]], str | None]:
        arrived = incoming.path(instance_uuid, operation)
        final = directories.path(instance_uuid)
        if not arrived.exists():  # published by an execution before this one
            arrived = final
        wanted = _wanted_sizes(spec)
        fitted = {}
        for disk in pushed:
            path = arrived / disk["name"]
            stands_on = None if disk["base"] is None else bases.get(disk["name"])
            size = self._fit(path, disk, stands_on, wanted.get(disk["name"], 0), qemu_img)
            os.chmod(path, PRIVATE)
            sync(path)
            fitted[disk["name"]] = {"path": str(final / disk["name"]), "format": disk["format"], "size": size}
        sync(arrived)
        ephemerals = [fitted[ephemeral_file(number)] for number in range(len(spec["ephemerals"]))]
        drive = fitted.get(config_drive_file())
        return fitted.get(root_file()), ephemerals, None if drive is None else drive["path"]

    def revert(self, **_kwargs: Any) -> None:
        """The disks go with their directory."""

    def _fit(self, path: Path, disk: Disk, bases: Mapping[str, str] | None, wanted: int, qemu_img: Any) -> int:
        info = qemu_img.info(path, disk["format"], self.activity)
        if bases is not None and info.backing_file != bases["new"]:
            if info.backing_file != bases["old"]:
                # The same content, by its name on this host.
                qemu_img.rebase(path, bases["old"], "raw", self.activity, same_content=True)
            if bases["old"] != bases["new"]:
                qemu_img.rebase(path, bases["new"], "raw", self.activity)
        if info.virtual_size < wanted:
            qemu_img.resize(path, disk["format"], wanted, self.activity)
        return max(int(info.virtual_size), wanted)


class RecreateSwap(Task):
    """Make the swap disk anew, in the new size, over this host's own base: nothing on it outlives a shutdown.

    Reverts: drops the reference to the base, if this operation has made it, and removes a base that is half made; the
    disk goes with its directory. A disk of its name is complete.
    """

    default_provides = "swap_disk"
    timeout = "disk"

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("base_reference", f"{names.swap_name(spec['swap_mib'])}/{instance_uuid}"),)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        incoming: Any,
        directories: Any,
        blank_bases: Any,
        base_references: Any,
        qemu_img: Any,
        settings: Any,
    ) -> dict[str, Any]:
        name = names.swap_name(spec["swap_mib"])
        base_references.add_reference(str(settings.base_path / name), name, settings.host, instance_uuid, operation)
        base = blank_bases.swap(spec["swap_mib"], self.activity)
        arrived = incoming.path(instance_uuid, operation)
        final = directories.path(instance_uuid)
        path = (arrived if arrived.exists() else final) / swap_file()
        plan = disk_plan(path, spec["disk_backend"], base.path, base.size, operation)
        make_disk(plan, qemu_img, self.activity)
        return {"path": str(final / swap_file()), "format": plan.format, "size": base.size}

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        blank_bases: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        name = names.swap_name(spec["swap_mib"])
        path = str(settings.base_path / name)
        base_references.drop_reference(path, settings.host, instance_uuid, operation)
        blank_bases.abandon(name)


class PublishIncomingDir(Task):
    """Let the directory in which the disks arrived be the instance's: one rename.

    Reverts: renames it back, where MakeIncomingDir's revert removes it. Done already, it is not done again.
    """

    default_provides = "instance_dir"

    def __init__(self, after: Sequence[str]) -> None:
        super().__init__(requires=after)

    def execute(self, instance_uuid: str, operation: str, incoming: Any, **_after: Any) -> str:
        return str(incoming.publish(instance_uuid, operation))

    def revert(self, instance_uuid: str, operation: str, incoming: Any, **_kwargs: Any) -> None:
        incoming.withdraw(instance_uuid, operation)


def is_merged(name: str, base: str | None, copy: str) -> bool:
    """Whether a disk goes to another host put together with its base; ``copy`` is the option of that name.

    What stands on no image does: the base of an ephemeral disk has been formatted on its host, and another host's has
    other blocks in other places. Swap goes nowhere.
    """
    if base is None or name == swap_file():
        return False
    return copy == "merged" or names.parse_backing(base) is None


_BOOT = ("kernel", "ramdisk")


def _boot_file(base: Any) -> dict[str, Any] | None:
    return None if base is None else {"path": base.path}


def _wanted_sizes(spec: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of each disk, by file."""
    sizes = {ephemeral_file(number): each["size_gib"] * _GIB for number, each in enumerate(spec["ephemerals"])}
    return {root_file(): spec["disk_gib"] * _GIB, **sizes}


def _images(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [spec[name] for name in ("image", "snapshot_base", *_BOOT) if spec[name] is not None]


def _image_name(image: Mapping[str, Any]) -> str:
    return names.base_name(image["id"])


def _record(spec: Mapping[str, Any], sha1: str, image_source: Any) -> ImageRecord:
    """The image of a base: one that the instance was made from, or whichever has that name."""
    known = {names.base_name(each["id"]): each for each in _images(spec)}
    if sha1 in known:
        return ImageRecord.from_dict(known[sha1])
    found: ImageRecord = image_source.find_by_sha1(sha1)
    return found
