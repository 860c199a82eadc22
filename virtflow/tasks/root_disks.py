"""Root disks other than an overlay over a base: whole ones, and those of snapshots that hold only changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.files.durable import remove_files
from virtflow.hypervisor.disk_mapping import root_file
from virtflow.images import names
from virtflow.images.disk_backends import DiskPlan, disk_format, make_disk, make_disk_from_delta
from virtflow.images.records import ImageRecord
from virtflow.tasks.base import Intent, Task


class CreateFlatDisk(Task):
    """Make the root disk as a file of its own, raw or qcow2 as the specification says: a grown copy of the base.

    Reverts: removes the disk and what was staged for it. A disk of that name is complete: if it has the same format and
    size and no backing file, it is the one.
    """

    default_provides = "root_disk"
    timeout = "disk"

    def intents(self, spec: Mapping[str, Any], instance_dir: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (root_intent(spec, instance_dir),)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        sized_base: Mapping[str, Any],
        operation: str,
        qemu_img: Any,
    ) -> dict[str, Any]:
        plan = _root_plan(spec, instance_dir, sized_base, operation)
        make_disk(plan, qemu_img, self.activity)
        return {"path": str(plan.path), "format": plan.format, "size": plan.size}

    def revert(self, instance_dir: str, operation: str, **_kwargs: Any) -> None:
        remove_disk(Path(instance_dir) / root_file(), operation)


class FetchDelta(Task):
    """Bring an image that holds only changes into the cache as it is, and refer to it for the instance.

    Reverts: drops the reference, and a part that nobody else is completing; a finished file is shared and ages out.
    Fetching again finds it, or goes on downloading.
    """

    default_provides = "delta"
    timeout = "download"

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("base_reference", f"{names.base_name(spec['image']['id'])}{names.DELTA}/{instance_uuid}"),)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        delta_cache: Any,
        image_source: Any,
        base_references: Any,
        settings: Any,
    ) -> dict[str, Any]:
        image = ImageRecord.from_dict(spec["image"])
        path = str(delta_cache.path(image.id))
        base_references.add_reference(path, image.id, settings.host, instance_uuid, operation)
        delta = delta_cache.fetch(image, image_source, self.activity)
        if spec["disk_gib"] << 30 < delta.virtual_size:
            reason = f"{spec['disk_gib']} GiB is smaller than the image's virtual size ({delta.virtual_size} bytes)"
            raise InvalidRequest(field="disk", reason=reason)
        return asdict(delta)

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        delta_cache: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        base_references.drop_reference(str(delta_cache.path(spec["image"]["id"])), settings.host, instance_uuid)
        delta_cache.abandon(spec["image"]["id"])


class CreateSnapshotDisk(Task):
    """Make the root disk of a snapshot that holds only changes: a copy of them, laid over their base.

    Its base is made again in the size that the changes were made over, and exchanged for the one of this disk's size
    where they differ. Reverts: removes the disk and what was staged for it. A disk of that name is complete: if it has
    the same format, size and backing file, it is the one.
    """

    default_provides = "root_disk"
    timeout = "disk"

    def intents(self, spec: Mapping[str, Any], instance_dir: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (root_intent(spec, instance_dir),)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        delta: Mapping[str, Any],
        base: Mapping[str, Any],
        sized_base: Mapping[str, Any],
        operation: str,
        image_cache: Any,
        qemu_img: Any,
    ) -> dict[str, Any]:
        from virtflow.images.cache import CachedBase
        from virtflow.images.deltas import CachedDelta

        plan = _root_plan(spec, instance_dir, sized_base, operation)
        old_base = base["path"]
        if delta["base_gib"] is not None:
            old_base = image_cache.size_base(CachedBase(**base), delta["base_gib"] << 30, self.activity)
        make_disk_from_delta(plan, CachedDelta(**delta), Path(old_base), qemu_img, self.activity)
        return {"path": str(plan.path), "format": plan.format, "size": plan.size}

    def revert(self, instance_dir: str, operation: str, **_kwargs: Any) -> None:
        remove_disk(Path(instance_dir) / root_file(), operation)


def root_intent(spec: Mapping[str, Any], instance_dir: str) -> Intent:
    return Intent("file", f"{instance_dir}/{root_file()}", {"format": disk_format(spec["disk_backend"])})


def disk_plan(path: Path, backend: str, base: str, size: int, operation: str) -> DiskPlan:
    """The disk at ``path``, staged under the operation's name."""
    return DiskPlan(path, _staged(path, operation), backend, Path(base), size)


def remove_disk(path: Path, operation: str) -> None:
    """Remove a disk and all that this operation staged for it; absent is fine. Raises HostStorageError."""
    staged = _staged(path, operation)
    remove_files(path, staged, staged.with_name(f"{staged.name}.overlay"))


def _staged(path: Path, operation: str) -> Path:
    return path.with_name(f"{path.name}.tmp.{operation}")


def _root_plan(spec: Mapping[str, Any], instance_dir: str, sized_base: Mapping[str, Any], operation: str) -> DiskPlan:
    path = Path(instance_dir) / root_file()
    return disk_plan(path, spec["disk_backend"], sized_base["path"], sized_base["size"], operation)
