"""What an evacuation would do: looked up, and nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.flows.kind import Preview
from virtflow.persistence.instances import Instance
from virtflow.tasks.evacuate import EVACUABLE, check_fenced
from virtflow.tasks.evacuated_volumes import check_not_lost
from virtflow.tasks.moved_volumes import moved_volumes, reachable_host, with_volumes
from virtflow.tasks.resize import find_in_state


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """Where the instance would go. The host is the one that was asked for: nothing is scheduled."""
    request = inputs["request"]
    instance: Instance = find_in_state(services["instances"], request["name"], inputs["project"], "evacuate", EVACUABLE)
    check_fenced(services["hosts"], instance)
    spec = services["instance_specs"].current(instance.uuid, instance.operation)
    moved = moved_volumes(instance, spec, "evacuate", services["volumes"], services["volume_attachments"])
    check_not_lost(instance, moved)
    excluded = {instance.host: "it is dead"}
    host = reachable_host(instance, moved, request["host"], excluded, "evacuate", services["volume_backends"])
    destination = host or "another host"
    where = {"source_host": instance.host, "destination": destination}
    changes = (("host", f"{instance.host} -> {destination}"), *(("volume", each["name"]) for each in moved))
    return Preview(changes, results={"spec": with_volumes(spec, moved), "kept": False, **where})
