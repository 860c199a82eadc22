"""What a spawn request, its flavor and its image say about disks, kernel and ramdisk: worked out before anything is
made, and kept in the specification, so that a resumed operation goes on with the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.images import kinds
from virtflow.images.blank_bases import check_ephemeral
from virtflow.images.inspection import KERNEL_FORMATS
from virtflow.images.records import ImageRecord
from virtflow.requests.disks import EphemeralRequest, parse_ephemerals, parse_swap

_SHA1 = re.compile(r"[0-9a-f]{40}")
_MIB_PER_GIB = 1024


def disk_fields(
    request: Mapping[str, Any], disk_gib: int, flavor: Any, image: ImageRecord, image_source: Any, settings: Any
) -> dict[str, Any]:
    """The fields of the specification about disks.

    ``disk_backend``; ``ephemerals`` (dicts of size_gib, filesystem, label); ``swap_mib`` (0: none); ``image_kind`` (see
    ``virtflow.images.kinds``); ``snapshot_base``, ``kernel``, ``ramdisk`` (records or None); ``claimed_disk_gib``, all
    disks together. Raises InvalidRequest, NotFound, ImageUnavailable.
    """
    ephemerals = [
        {"size_gib": each["size"], "filesystem": each["fs"] or settings.ephemeral_filesystem, "label": f"ephemeral{n}"}
        for n, each in enumerate(_ephemerals(request, flavor))
    ]
    for number, each in enumerate(ephemerals):
        check_ephemeral(each["size_gib"], each["filesystem"], f"ephemeral_gib[{number}]")
    swap_mib = _swap(request, flavor)
    swap_gib = -(-swap_mib // _MIB_PER_GIB)
    return {
        "disk_backend": settings.disk_backend,
        "ephemerals": ephemerals,
        "swap_mib": swap_mib,
        "claimed_disk_gib": disk_gib + sum(each["size_gib"] for each in ephemerals) + swap_gib,
        "image_kind": kinds.kind_of(image.properties),
        "snapshot_base": _snapshot_base(image, image_source),
        **_kernel_and_ramdisk(image, image_source),
    }


def claimed(spec: Mapping[str, Any]) -> dict[str, int]:
    """What the instance takes of its project's quota and of its host: vcpus, MiB of memory, GiB of all its disks."""
    return {"vcpus": spec["vcpus"], "memory_mib": spec["memory_mib"], "disk_gib": spec["claimed_disk_gib"]}


def _ephemerals(request: Mapping[str, Any], flavor: Any) -> Sequence[Mapping[str, Any]]:
    wanted: Sequence[Mapping[str, Any]] | None = request["ephemeral_gib"]
    allowed: list[EphemeralRequest] | None = None
    if flavor is not None and "ephemeral_gib" in flavor.properties:
        allowed = parse_ephemerals(flavor.properties["ephemeral_gib"])
    if wanted is None:
        return [each.model_dump() for each in allowed or ()]
    total = sum(each["size"] for each in wanted)
    if allowed is not None and total > (limit := sum(each.size for each in allowed)):
        reason = f"{total} GiB is more than the {limit} GiB of flavor {flavor.name!r}"
        raise InvalidRequest(field="ephemeral_gib", reason=reason)
    return wanted


def _swap(request: Mapping[str, Any], flavor: Any) -> int:
    wanted: int | None = request["swap_mib"]
    allowed: int | None = None
    if flavor is not None and "swap_mib" in flavor.properties:
        allowed = parse_swap(flavor.properties["swap_mib"])
    if wanted is None:
        return allowed or 0
    if allowed is not None and wanted > allowed:
        reason = f"{wanted} MiB is more than the {allowed} MiB of flavor {flavor.name!r}"
        raise InvalidRequest(field="swap_mib", reason=reason)
    return wanted


def _snapshot_base(image: ImageRecord, image_source: Any) -> dict[str, Any] | None:
    if kinds.kind_of(image.properties) != kinds.DELTA:
        return None
    sha1 = image.properties[kinds.BASE_PROPERTY]
    if not _SHA1.fullmatch(sha1):
        reason = f"{kinds.BASE_PROPERTY} of image {image.label!r} is no SHA-1"
        raise InvalidRequest(field="image", reason=reason)
    base: ImageRecord = image_source.find_by_sha1(sha1)
    if kinds.kind_of(base.properties) == kinds.DELTA:
        reason = f"image {image.label!r} holds changes over {base.label!r}, which itself holds only changes"
        raise InvalidRequest(field="image", reason=reason)
    return base.to_dict()


def _kernel_and_ramdisk(image: ImageRecord, image_source: Any) -> dict[str, Any]:
    kernel_id, ramdisk_id = (image.properties.get(name) for name in ("kernel_id", "ramdisk_id"))
    if ramdisk_id and not kernel_id:
        raise InvalidRequest(field="image", reason=f"image {image.label!r} has a ramdisk_id without a kernel_id")
    return {"kernel": _boot_image(kernel_id, image_source), "ramdisk": _boot_image(ramdisk_id, image_source)}


def _boot_image(image_id: str | None, image_source: Any) -> dict[str, Any] | None:
    if not image_id:
        return None
    record: ImageRecord = image_source.get(image_id)
    if record.disk_format not in KERNEL_FORMATS:
        reason = f"kernel or ramdisk {record.label!r} is {record.disk_format}, not {' or '.join(KERNEL_FORMATS)}"
        raise InvalidRequest(field="image", reason=reason)
    return record.to_dict()
