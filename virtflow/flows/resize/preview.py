"""What a resize, a migration or a confirmation would do: looked up, and nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.flows.kind import Preview
from virtflow.persistence.instances import Instance
from virtflow.tasks.moved_volumes import moved_volumes, reachable_host, with_volumes
from virtflow.tasks.resize import RESIZABLE, find_in_state
from virtflow.tasks.resize_confirm import CONFIRMABLE
from virtflow.tasks.resize_request import resized


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """What the instance would become. The host is the one that was asked for, or the only one that reaches its volumes:
    nothing is scheduled."""
    request, instances, specs = inputs["request"], services["instances"], services["instance_specs"]
    instance: Instance = find_in_state(instances, request["name"], inputs["project"], "resize", RESIZABLE)
    flavor = None if request.get("flavor") is None else services["flavors"].get(request["flavor"])
    old, moves = specs.current(instance.uuid, instance.operation), "vcpus" not in request
    moved = moved_volumes(instance, old, "resize", services["volumes"], services["volume_attachments"])
    excluded = {instance.host: "it is there"} if moves else {}
    host = reachable_host(instance, moved, request["host"], excluded, "resize", services["volume_backends"])
    spec = with_volumes({**resized(old, request, flavor), "host": host}, moved)
    destination = host or ("another host" if moves else "a host")
    changes = [("host", f"{instance.host} -> {destination}")]
    for name in ("flavor", "vcpus", "memory_mib", "disk_gib"):
        if spec[name] != getattr(instance, name):
            changes.append((name, f"{getattr(instance, name)} -> {spec[name]}"))
    changes += [("volume", each["name"]) for each in moved]
    where = {"source_host": instance.host, "destination": destination}
    return Preview(tuple(changes), results={"spec": spec, "moved_volumes": moved, **where})


def preview_confirm(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """What would go to the trash."""
    request, instances = inputs["request"], services["instances"]
    action = "confirm the resize of"
    instance: Instance = find_in_state(instances, request["name"], inputs["project"], action, CONFIRMABLE)
    before = services["instance_specs"].find(instance.uuid)
    source = None if before is None else before.previous_host
    gone = (("directory", f"{services['directories'].path(instance.uuid)} on {source}"),)
    return Preview(gone, results={"source_host": source, "destination": instance.host})
