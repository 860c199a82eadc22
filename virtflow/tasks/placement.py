"""What is claimed of a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.tasks.base import Intent, Task
from virtflow.tasks.disk_request import claimed


class ClaimHost(Task):
    """Claim the chosen host for the instance: vcpus, memory and disk of its inventory.

    Reverts: releases the claim. A claim is keyed by instance and host, so claiming again is the same claim.
    """

    def intents(self, instance_uuid: str, host: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("allocation", f"{host}/{instance_uuid}"),)

    def execute(self, instance_uuid: str, operation: str, spec: Mapping[str, Any], host: str, placement: Any) -> None:
        placement.claim(host, instance_uuid, operation, **claimed(spec))

    def revert(self, instance_uuid: str, host: str, placement: Any, **_kwargs: Any) -> None:
        placement.release(host, instance_uuid)


class DropClaim(Task):
    """Give back what a deleted instance held of its host.

    Reverts: claims it again. Dropping what is not there, and claiming what is held, change nothing.
    """

    def execute(self, instance: Mapping[str, Any], placement: Any) -> None:
        for allocation in placement.allocations(consumer=instance["uuid"]):
            placement.release(allocation.host, instance["uuid"])

    def revert(self, allocations: Any, placement: Any, **_kwargs: Any) -> None:
        for held in allocations:
            amounts = {name: held[name] for name in ("vcpus", "memory_mib", "disk_gib")}
            placement.claim(held["host"], held["consumer"], held["operation"], **amounts)
