"""Bases in the image cache: fetched once per host, referred to by every instance that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.images import names
from virtflow.images.disk_backends import OVERLAY
from virtflow.images.records import ImageRecord
from virtflow.tasks.base import Intent, Task

GIB = 1 << 30


class FetchBase(Task):
    """Bring the image into the cache as a raw base, and refer to it for the instance.

    Reverts: drops the reference, and a part that nobody else is completing; a finished base is shared and stays.
    Fetching again finds the published base, or goes on with the part that a killed process has downloaded. The
    reference comes first, so that no pruning takes the base in between.
    """

    default_provides = "base"
    timeout = "download"
    image = "image"
    """Which image of the specification."""

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("base_reference", f"{names.base_name(spec[self.image]['id'])}/{instance_uuid}"),)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        image_cache: Any,
        image_source: Any,
        base_references: Any,
        settings: Any,
    ) -> dict[str, Any]:
        image = ImageRecord.from_dict(spec[self.image])
        base_references.add_reference(_path(image.id, settings), image.id, settings.host, instance_uuid, operation)
        return asdict(image_cache.fetch(image, image_source, self.activity))

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        image_cache: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        base_references.drop_reference(_path(spec[self.image]["id"], settings), settings.host, instance_uuid)
        image_cache.abandon(spec[self.image]["id"])


class FetchSnapshotBase(FetchBase):
    """FetchBase of the image that a snapshot's changes were made over."""

    image = "snapshot_base"


class FetchKernel(FetchBase):
    """FetchBase of the kernel that the image names: raw, and never sized."""

    default_provides = "kernel"
    image = "kernel"


class FetchRamdisk(FetchBase):
    """FetchBase of the ramdisk that the image names."""

    default_provides = "ramdisk"
    image = "ramdisk"


class SizeBase(Task):
    """Provide the base that the overlay stands on: a copy extended to the disk's size, or the base itself.

    A disk that is kept whole is grown instead, so it has no use for the copy.

    Reverts: drops the reference to the copy, which is shared and stays. An existing copy of that size is complete.
    """

    default_provides = "sized_base"
    timeout = "disk"

    def execute(
        self,
        spec: Mapping[str, Any],
        base: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        image_cache: Any,
        base_references: Any,
        settings: Any,
    ) -> dict[str, Any]:
        from virtflow.images.cache import CachedBase

        size = spec["disk_gib"] * GIB
        if size < base["virtual_size"]:
            reason = f"{spec['disk_gib']} GiB is smaller than the image's virtual size ({base['virtual_size']} bytes)"
            raise InvalidRequest(field="disk", reason=reason)
        if not settings.sized_bases or spec["disk_backend"] != OVERLAY:
            return {"path": base["path"], "format": base["format"], "size": size}
        sized = _sized_path(spec, settings)
        base_references.add_reference(sized, base["image_id"], settings.host, instance_uuid, operation)
        path = image_cache.size_base(CachedBase(**base), size, self.activity)
        return {"path": path, "format": base["format"], "size": size}

    def revert(
        self, spec: Mapping[str, Any], instance_uuid: str, base_references: Any, settings: Any, **_kwargs: Any
    ) -> None:
        base_references.drop_reference(_sized_path(spec, settings), settings.host, instance_uuid)


class DropBaseReferences(Task):
    """Forget which bases a purged instance used, so that they can age out. Past the pivot: not reverted.

    An instance that lives has lost only what it was before a resize, and uses bases still.
    """

    def execute(self, trashed: Mapping[str, Any], instances: Any, base_references: Any) -> None:
        if instances.is_live(trashed["instance_uuid"]):
            return
        for reference in base_references.references(consumer=trashed["instance_uuid"]):
            base_references.drop_reference(reference.base_path, reference.host, reference.consumer)


def _path(image_id: str, settings: Any) -> str:
    return str(settings.base_path / names.base_name(image_id))


def _sized_path(spec: Mapping[str, Any], settings: Any) -> str:
    image = spec["snapshot_base"] or spec["image"]
    return str(settings.base_path / names.sized_name(names.base_name(image["id"]), spec["disk_gib"] * GIB))
