"""The instance's row: its states, each step a compare-and-swap."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence.instances import Instance
from virtflow.persistence.models.base import now
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.failures import fault_of


class CreateInstanceEntry(Task):
    """Insert the instance in state BUILDING. The database keeps names unique within a project.

    Reverts: removes the row if this operation made it: the instance never was. Where something else could not be taken
    back, the row stays as ERROR with the fault, and is the last debt to be paid. The uuid is the operation's, so
    inserting again is the same row.
    """

    def intents(self, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("instance", instance_uuid),)

    def execute(
        self, instance_uuid: str, operation: str, project: str, spec: Mapping[str, Any], instances: Any
    ) -> None:
        row = Instance(
            uuid=instance_uuid,
            name=spec["name"],
            project=project,
            vm_state="BUILDING",
            task_state="SCHEDULING",
            vcpus=spec["vcpus"],
            memory_mib=spec["memory_mib"],
            disk_gib=spec["disk_gib"],
            image_id=spec["image"]["id"],
            image_name=spec["image"]["name"],
            flavor=spec["flavor"],
            meta=dict(spec["meta"]),
            operation=operation,
        )
        instances.insert(row)

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        instances: Any,
        ledger: Any,
        flow_failures: Mapping[str, Failure],
        **_kwargs: Any,
    ) -> Debt | None:
        rows = [row for row in ledger.debts(operation) if row.task != self.name]
        left = len({(row.flow, row.task) for row in rows})
        if not left:
            instances.remove(instance_uuid, operation)
            return None
        fault = fault_of(flow_failures)
        reason = f"{left} thing(s) are left of it"
        told = "it was undone" if fault is None else fault.message
        changes = {"vm_state": "ERROR", "task_state": None, "host": rows[0].host, "fault": f"{told}; {reason}"}
        instances.compare_and_set(instance_uuid, {"operation": operation}, changes)
        return Debt(error=f"the instance stays as ERROR: {reason}")


class FinishInstance(Task):
    """Mark the instance ACTIVE on its host.

    Reverts: back to BUILDING, without a host. A second execution finds it ACTIVE and keeps its launch time.
    """

    def execute(self, instance_uuid: str, host: str, instances: Any) -> None:
        if instances.get(instance_uuid).vm_state == "ACTIVE":
            return
        changes = {"vm_state": "ACTIVE", "task_state": None, "host": host, "launched_at": now()}
        expected = {"vm_state": "BUILDING", "task_state": "SPAWNING"}
        if not instances.compare_and_set(instance_uuid, expected, changes):
            raise Conflict(action="finish", kind="instance", name=instance_uuid, reason="it is not being built")

    def revert(self, instance_uuid: str, instances: Any, **_kwargs: Any) -> None:
        changes = {"vm_state": "BUILDING", "task_state": "SPAWNING", "host": None, "launched_at": None}
        instances.compare_and_set(instance_uuid, {"vm_state": "ACTIVE"}, changes)


_DELETABLE = {"vm_state": ("ACTIVE", "ERROR"), "task_state": (None, "DELETING")}


def find_deletable(instances: Any, name: str, project: str) -> Instance:
    """The instance, if it can be deleted as it is now. Raises NotFound, Conflict, InvalidRequest."""
    instance: Instance = instances.find(name, project)
    if instance.name != name:
        # The operation holds the name it was given: under another one, two operations would not exclude each other.
        raise InvalidRequest(field="name", reason=f"must be the instance's name ({instance.name}), not its id")
    if not all(getattr(instance, column) in allowed for column, allowed in _DELETABLE.items()):
        raise _not_deletable(instance)
    return instance


def _not_deletable(instance: Instance) -> Conflict:
    reason = f"it is {instance.vm_state} ({instance.task_state})"
    return Conflict(action="delete", kind="instance", name=instance.name, reason=reason)


class LockInstance(Task):
    """Find the instance, mark it DELETING, and record everything that undoing the delete will need.

    Reverts: the mark, which can only be this operation's: it holds the target. What it records was read before anything
    was changed; a second execution reads the same.
    """

    default_provides = ("instance_uuid", "instance", "host", "ports", "allocations")

    def execute(
        self, request: Mapping[str, Any], project: str, instances: Any, networks: Any, placement: Any, settings: Any
    ) -> tuple[str, dict[str, Any], str, list[dict[str, Any]], list[dict[str, Any]]]:
        instance = find_deletable(instances, request["name"], project)
        if not instances.compare_and_set(instance.uuid, _DELETABLE, {"task_state": "DELETING"}):
            raise _not_deletable(instance)
        ports = [asdict(port) for port in networks.ports(instance=instance.uuid)]
        allocations = [asdict(allocation) for allocation in placement.allocations(consumer=instance.uuid)]
        kept = ("uuid", "name", "project", "operation")
        found = {name: getattr(instance, name) for name in kept}
        return instance.uuid, found, instance.host or settings.host, ports, allocations

    def revert(self, result: Any, request: Mapping[str, Any], project: str, instances: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            # By its name only when nothing was recorded: one that could not be restored yet has lost its name.
            recorded = isinstance(result, list | tuple)
            uuid = result[0] if recorded else instances.find(request["name"], project).uuid
            instances.compare_and_set(uuid, {"task_state": "DELETING"}, {"task_state": None})


class MarkDeleted(Task):
    """Mark the instance deleted, which frees its name.

    Reverts: restores it; a name that was taken meanwhile makes that a debt. Marking twice is marking once.
    """

    def execute(self, instance: Mapping[str, Any], operation: str, instances: Any) -> None:
        instances.mark_deleted(instance["uuid"], operation)

    def revert(self, instance: Mapping[str, Any], instances: Any, **_kwargs: Any) -> None:
        instances.restore(instance["uuid"])
