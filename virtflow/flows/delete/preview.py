"""What a delete would take away: looked up, and nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.flows.kind import Preview
from virtflow.tasks.instances import find_deletable


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """The resources of the instance. Its directory goes to the trash, all else for good. NotFound, Conflict."""
    instance = find_deletable(services["instances"], inputs["request"]["name"], inputs["project"])
    networks, directories = services["networks"], services["directories"]
    taken = [("domain", instance.name)]
    for port in networks.ports(instance=instance.uuid):
        taken.append(("tap", f"{port.tap} on {networks.get(port.network_id).bridge}"))
        taken.append(("port", f"{port.mac} {port.address}"))
    taken += [("attachment", name) for name in services["instances"].attached_volumes(instance.uuid)]
    taken.append(("directory", str(directories.path(instance.uuid))))
    return Preview(tuple(taken))
