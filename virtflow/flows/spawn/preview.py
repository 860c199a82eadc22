"""What a spawn would make: worked out with the same code that makes it, and nothing is made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtflow.errors import AlreadyExists, NotFound, QuotaExceeded
from virtflow.flows.kind import Preview
from virtflow.hypervisor import domain_xml
from virtflow.hypervisor.disk_mapping import config_drive_file, ephemeral_file, root_file, swap_file
from virtflow.hypervisor.hardware import HardwareOptions
from virtflow.images.disk_backends import disk_format
from virtflow.images.names import base_name
from virtflow.network.addressing import mac_for, pick_address, tap_name
from virtflow.persistence.models.base import now
from virtflow.persistence.networks import Port
from virtflow.tasks.disk_request import claimed
from virtflow.tasks.domain_description import DomainParts, Identity, boots_from_volume, domain_spec
from virtflow.tasks.hardware import resolve_hardware
from virtflow.tasks.network import port_id, vif
from virtflow.tasks.request import ValidateRequest
from virtflow.volumes.driver import volume_name


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """Resources and domain XML of a spawn. Addresses are those that would be given out now."""
    names = ("image_source", "flavors", "networks", "server_groups", "settings", "volumes", "volume_backends")
    needed = {name: services[name] for name in names}
    spec = ValidateRequest().execute(inputs["request"], inputs["project"], **needed)
    _check_name(spec["name"], inputs["project"], services["instances"])
    _check_quota(spec, inputs["project"], services["quotas"])
    capabilities, settings = services["hypervisor"].capabilities(), services["settings"]
    hardware = resolve_hardware(HardwareOptions.from_dict(spec["hardware"]), capabilities, settings)
    directory = services["directories"].path(inputs["instance_uuid"])
    vifs = _vifs(spec, inputs, services)
    parts = _parts(spec, directory, vifs, settings)
    identity = Identity(inputs["instance_uuid"], inputs["operation"], settings.host)
    text = domain_xml.build(domain_spec(spec, identity, parts, hardware, capabilities, settings))
    domain_xml.validate(text, capabilities.schema_dir)
    disks = [each for each in (parts.root, *parts.ephemerals, parts.swap) if each is not None]
    made = [] if parts.root is None else [("image", spec["image"]["id"])]
    made += [("volume", each["name"]) for each in spec.get("volumes", ())]
    made += [("directory", str(directory))]
    made += [("file", disk["path"]) for disk in disks]
    made += [("file", parts.config_drive)] if parts.config_drive else []
    made += [("port", f"{each['mac']} {each['addresses'][0]['address']}") for each in vifs]
    made += [("tap", f"{each['tap']} on {each['bridge']}") for each in vifs]
    return Preview((*made, ("domain", spec["name"])), text, {"spec": spec})


def _parts(spec: Mapping[str, Any], directory: Path, vifs: list[dict[str, Any]], settings: Any) -> DomainParts:
    backend = spec["disk_backend"]

    def disk(name: str) -> dict[str, Any]:
        return {"path": str(directory / name), "format": disk_format(backend)}

    def boot(image: Mapping[str, Any] | None) -> str | None:
        return None if image is None else str(settings.base_path / base_name(image["id"]))

    return DomainParts(
        instance_dir=directory,
        root=None if boots_from_volume(spec) else disk(root_file()),
        volumes=[_volume(each) for each in spec.get("volumes", ())],
        ephemerals=[disk(ephemeral_file(number)) for number in range(len(spec["ephemerals"]))],
        swap=disk(swap_file()) if spec["swap_mib"] else None,
        config_drive=str(directory / config_drive_file()) if spec["config_drive"] else None,
        vifs=[(each, None) for each in vifs],
        kernel=boot(spec["kernel"]),
        ramdisk=boot(spec["ramdisk"]),
    )


def _volume(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Where it will be found is known when it is exported."""
    identity = volume["id"] or volume["name"]  # one that is still to be made
    source = {"kind": "file", "path": f"/{volume['backend']}/{volume_name(identity)}", "format": "raw"}
    return {"source": source, "serial": identity, "boot": volume["boot"]}


def _check_name(name: str, project: str, instances: Any) -> None:
    with suppress(NotFound):
        instances.find(name, project)
        raise AlreadyExists(kind="instance", name=name)


def _check_quota(spec: Mapping[str, Any], project: str, quotas: Any) -> None:
    wanted = {"instances": 1, **claimed(spec)}
    found = quotas.usage(project)
    for resource, amount in wanted.items():
        usage = found[resource]
        left = usage.limit - usage.used - usage.reserved
        if usage.limit >= 0 and amount > left:
            fields = {"resource": resource, "requested": amount, "available": left, "limit": usage.limit}
            raise QuotaExceeded(**fields)


def _vifs(spec: Mapping[str, Any], inputs: Mapping[str, Any], services: Mapping[str, Any]) -> list[dict[str, Any]]:
    networks, settings = services["networks"], services["settings"]
    vifs = []
    taken: dict[str, set[str]] = {}
    for wanted in spec["networks"]:
        network = networks.get(wanted["network"])
        used = taken.setdefault(network.id, networks.used_addresses(network.id))
        pool = (network.cidr, network.gateway, network.allocation_start, network.allocation_end)
        address = wanted["address"] or pick_address(*pool, used, network=network.name)
        used.add(address)
        uuid, operation = inputs["instance_uuid"], inputs["operation"]
        identity = port_id(uuid, wanted["number"])
        port = Port(
            identity, network.id, uuid, operation, address, mac_for(identity), tap_name(identity), settings.host, now()
        )
        vifs.append(vif(port, network, settings.dns))
    return vifs
