"""What a live migration would do: looked up, and nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.flows.kind import Preview
from virtflow.persistence.instances import Instance
from virtflow.tasks.live_migrate import MIGRATABLE
from virtflow.tasks.resize import find_in_state
from virtflow.tasks.resize_request import resized


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """Where the instance would be. The host is the one that was asked for: nothing is scheduled."""
    request, instances, specs = inputs["request"], services["instances"], services["instance_specs"]
    instance: Instance = find_in_state(instances, request["name"], inputs["project"], "live-migrate", MIGRATABLE)
    spec = resized(specs.current(instance.uuid, instance.operation), {"host": request["host"]}, None)
    destination = request["host"] or "another host"
    where = {"source_host": instance.host, "destination": destination}
    return Preview((("host", f"{instance.host} -> {destination}"),), results={"spec": spec, **where})
