"""From what an instance is, and what is asked for, to what it will be: pure, and refused here if it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.requests.disks import parse_ephemerals, parse_swap
from virtflow.tasks.domain_description import boots_from_volume
from virtflow.tasks.scheduling import placement_fields

_SIZES = ("vcpus", "memory_mib", "disk_gib")
_MIB_PER_GIB = 1024


def resized(old: Mapping[str, Any], request: Mapping[str, Any], flavor: Any) -> dict[str, Any]:
    """The specification after a resize or migration. InvalidRequest: a disk would shrink, or nothing would change.

    ``request`` is that of a resize, or of a migration, which has no sizes.
    """
    wanted = {name: request.get(name) for name in _SIZES}
    if flavor is not None:
        wanted = {name: getattr(flavor, name) for name in _SIZES}
    sizes = {name: old[name] if value is None else value for name, value in wanted.items()}
    if boots_from_volume(old):
        if request.get("disk_gib"):
            raise InvalidRequest(field="disk", reason="the instance boots from a volume: extend that")
        sizes["disk_gib"] = old["disk_gib"]  # a flavor's disk is not made, as when it was spawned
    _check_growth("disk", old["disk_gib"], sizes["disk_gib"])
    if sizes["memory_mib"] < old["image"]["min_ram"]:
        reason = f"{sizes['memory_mib']} MiB is less than its image needs ({old['image']['min_ram']} MiB)"
        raise InvalidRequest(field="memory", reason=reason)
    ephemerals, swap_mib = _ephemerals(old, flavor), _swap(old, flavor)
    name = old["flavor"] if flavor is None and wanted == dict.fromkeys(_SIZES) else getattr(flavor, "name", None)
    placed = placement_fields({"host": request.get("host"), "availability_zone": old["zone"]}, flavor)
    if flavor is None:
        placed["host_wanted"] = old["host_wanted"]
    new = {
        **old,
        **sizes,
        "flavor": name,
        "ephemerals": ephemerals,
        "swap_mib": swap_mib,
        "claimed_disk_gib": sizes["disk_gib"]
        + sum(each["size_gib"] for each in ephemerals)
        + -(-swap_mib // _MIB_PER_GIB),
        **placed,
    }
    changing = (*_SIZES, "flavor", "ephemerals", "swap_mib")
    if "vcpus" in request and all(new[each] == old[each] for each in changing):
        raise InvalidRequest(field="flavor", reason="the instance has this size already")
    return new


def largest(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """What is held while both are possible: of each resource the larger amount."""
    return {name: max(amount, new[name]) for name, amount in old.items()}


def _ephemerals(old: Mapping[str, Any], flavor: Any) -> list[dict[str, Any]]:
    """Ephemeral disks are kept, and may grow. A flavor that says nothing of them leaves them as they are."""
    present = [dict(each) for each in old["ephemerals"]]
    if flavor is None or "ephemeral_gib" not in flavor.properties:
        return present
    wanted = parse_ephemerals(flavor.properties["ephemeral_gib"])
    if len(wanted) != len(present):
        reason = f"flavor {flavor.name!r} has {len(wanted)} ephemeral disks, the instance {len(present)}"
        raise InvalidRequest(field="flavor", reason=reason)
    for number, (each, larger) in enumerate(zip(present, wanted, strict=True)):
        _check_growth(f"ephemeral_gib[{number}]", each["size_gib"], larger.size)
        each["size_gib"] = larger.size
    return present


def _swap(old: Mapping[str, Any], flavor: Any) -> int:
    """What is on a swap disk dies with the guest's shutdown, so it may have any size."""
    if flavor is None or "swap_mib" not in flavor.properties:
        return int(old["swap_mib"])
    return parse_swap(flavor.properties["swap_mib"])


def _check_growth(field: str, old: int, new: int) -> None:
    if new < old:
        raise InvalidRequest(field=field, reason=f"{new} GiB is less than the {old} GiB it has: disks never shrink")
