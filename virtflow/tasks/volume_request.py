"""From a request for a volume to a specification: names become things, and what cannot work is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import Conflict, InvalidRequest
from virtflow.persistence.volume_rows import AVAILABLE
from virtflow.tasks.base import Task
from virtflow.tasks.volume_encryption import LUKS

GIB = 1 << 30
ENCRYPTION = "encryption"
"""The capability by which a type asks for it; backends are not asked."""
BLANK, IMAGE, SNAPSHOT, VOLUME = "blank", "image", "snapshot", "volume"
_FIELDS = {IMAGE: "image", SNAPSHOT: "snapshot", VOLUME: "source_volume"}


def source_kind(request: Mapping[str, Any]) -> str:
    """What the volume is to be made of."""
    return next((kind for kind, field in _FIELDS.items() if request[field] is not None), BLANK)


class ValidateVolumeRequest(Task):
    """Resolve the type and the source of a volume, and check that they fit together.

    Reverts: nothing, it only reads. A second execution reads again.
    """

    default_provides = "spec"

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        image_source: Any,
        volumes: Any,
        volume_snapshots: Any,
        volume_types: Any,
    ) -> dict[str, Any]:
        kind = source_kind(request)
        wanted = {} if request["type"] is None else dict(volume_types.get(request["type"]).capabilities)
        encryption = wanted.pop(ENCRYPTION, None)
        if encryption not in (None, LUKS):
            reason = f"asks for {ENCRYPTION} {encryption!r}, and only {LUKS} is known"
            raise InvalidRequest(field="type", reason=reason)
        spec = {
            "name": request["name"],
            "size_gib": request["size_gib"],
            "type": request["type"],
            "wanted": wanted,
            "zone": request["availability_zone"],
            "for_host": request.get("for_host"),
            "meta": dict(request["meta"]),
            "source": kind,
            "source_id": None,
            "image": None,
            "backend": None,
            "bootable": False,
            "encryption": LUKS if request.get("encrypted") else encryption,
        }
        if kind in (BLANK, IMAGE):
            if spec["encryption"]:
                # What is encrypted lies directly on the volume.
                wanted["format"] = "raw"
            return spec if kind == BLANK else spec | _of_image(image_source.get(request["image"]), request["size_gib"])
        rows = volume_snapshots if kind == SNAPSHOT else volumes
        source = rows.find(request[_FIELDS[kind]], project)
        if spec["encryption"] and source.encryption is None:
            reason = f"{kind} {source.name!r} is not encrypted, and its copies are what it is"
            raise InvalidRequest(field="encrypted", reason=reason)
        return spec | _of_copy(source, kind, request["size_gib"])

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def _of_image(image: Any, size_gib: int) -> dict[str, Any]:
    if size_gib < image.min_disk:
        reason = f"{size_gib} GiB is less than image {image.name!r} needs ({image.min_disk} GiB)"
        raise InvalidRequest(field="size_gib", reason=reason)
    if image.virtual_size is not None and image.virtual_size > size_gib * GIB:
        reason = f"{size_gib} GiB is smaller than image {image.name!r} ({image.virtual_size} bytes)"
        raise InvalidRequest(field="size_gib", reason=reason)
    return {"image": image.to_dict(), "source_id": image.id, "bootable": True}


def _of_copy(source: Any, kind: str, size_gib: int | None) -> dict[str, Any]:
    if source.state != AVAILABLE:
        raise Conflict(action="copy", kind=kind, name=source.name, reason=f"it is {source.state}")
    if size_gib is not None and size_gib < source.size_gib:
        reason = f"{size_gib} GiB is smaller than {kind} {source.name!r} ({source.size_gib} GiB)"
        raise InvalidRequest(field="size_gib", reason=reason)
    return {
        "size_gib": size_gib or source.size_gib,
        "source_id": source.id,
        # The content does not leave its backend.
        "backend": source.backend,
        "bootable": source.bootable,
        "encryption": source.encryption,
    }
