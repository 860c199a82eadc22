"""From a request to a specification: names become things, and what cannot work is refused before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.hypervisor.hardware import image_properties
from virtflow.tasks.base import Task
from virtflow.tasks.disk_request import disk_fields
from virtflow.tasks.guest_data import guest_data_fields
from virtflow.tasks.scheduling import placement_fields
from virtflow.tasks.server_groups import server_group
from virtflow.tasks.spawn_volumes import volume_as_image, volume_fields, wanted_volumes
from virtflow.tasks.vif_events import vif_fields

GIB = 1 << 30


class ValidateRequest(Task):
    """Resolve image, flavor, networks and server group of a spawn request, and check that they fit together.

    Reverts: nothing, it only reads. A second execution reads again.
    """

    default_provides = "spec"

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        image_source: Any,
        flavors: Any,
        networks: Any,
        server_groups: Any,
        settings: Any,
        volumes: Any,
        volume_backends: Any,
    ) -> dict[str, Any]:
        _check_single(request)
        wanted = wanted_volumes(request, project, volumes)
        boots = bool(wanted) and wanted[0]["boot"]
        there = boots and wanted[0]["id"] is not None
        image = volume_as_image(wanted[0]) if there else image_source.get(request["image"])
        flavor = None if request["flavor"] is None else flavors.get(request["flavor"])
        size = _size(request, flavor) | ({"disk_gib": 0} if boots else {})
        _check_image(image, size if not boots or there else {**size, "disk_gib": wanted[0]["size_gib"]})
        disks = disk_fields(request, size["disk_gib"], flavor, image, image_source, settings)
        return {
            "name": request["name"],
            "title": request["title"] or "",
            **size,
            **disks,
            "image": image.to_dict(),
            "networks": [_port(networks, port, number) for number, port in enumerate(request["networks"])],
            "meta": dict(request["meta"]),
            **guest_data_fields(request, image, settings, kernel=disks["kernel"] is not None, volume=boots),
            "availability_zone": request["availability_zone"] or "nova",
            **placement_fields(request, flavor),
            "hardware": image_properties(image.properties).to_dict(),
            "server_group": server_group(request, project, server_groups),
            "launch_index": request["launch_index"],
            **vif_fields(request, settings),
            **volume_fields(request, wanted, volume_backends),
        }

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def _check_single(request: Mapping[str, Any]) -> None:
    """An operation makes one instance; who asks for several gets several operations (Runner.run_group)."""
    if max(request["min_count"], request["max_count"] or 1) > 1:
        raise InvalidRequest(field="max_count", reason="a request for several instances is run as a group")


def _size(request: Mapping[str, Any], flavor: Any) -> dict[str, Any]:
    names = ("vcpus", "memory_mib", "disk_gib")
    if flavor is None:
        return {"flavor": None, **{name: request[name] for name in names}}
    return {"flavor": flavor.name, **{name: getattr(flavor, name) for name in names}}


def _check_image(image: Any, size: Mapping[str, Any]) -> None:
    if size["memory_mib"] < image.min_ram:
        reason = f"{size['memory_mib']} MiB is less than image {image.name!r} needs ({image.min_ram} MiB)"
        raise InvalidRequest(field="memory", reason=reason)
    if size["disk_gib"] < image.min_disk:
        reason = f"{size['disk_gib']} GiB is less than image {image.name!r} needs ({image.min_disk} GiB)"
        raise InvalidRequest(field="disk", reason=reason)
    if image.virtual_size is not None and size["disk_gib"] * GIB < image.virtual_size:
        reason = f"{size['disk_gib']} GiB is smaller than image {image.name!r} ({image.virtual_size} bytes)"
        raise InvalidRequest(field="disk", reason=reason)


def _port(networks: Any, wanted: Mapping[str, Any], number: int) -> dict[str, Any]:
    from virtflow.network.addressing import check_address

    network = networks.get(wanted["network"])
    address = wanted["address"]
    if address is not None:
        address = check_address(network.cidr, network.gateway, address)
    return {"number": number, "network": network.id, "address": address}
