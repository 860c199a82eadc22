"""Resizing and moving, as the database sees it: the instance's mark, its quota, its claims, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from taskflow import retry

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence.instance_specs import InstanceSpec
from virtflow.persistence.instances import Instance
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.disk_request import claimed
from virtflow.tasks.moved_volumes import moved_volumes, reachable_host, with_volumes
from virtflow.tasks.resize_request import largest, resized
from virtflow.tasks.scheduling import NextHost

VERIFY = "VERIFY_RESIZE"
RESIZE_PREP = "RESIZE_PREP"
RESIZE_MIGRATING = "RESIZE_MIGRATING"
RESIZABLE = {"vm_state": "ACTIVE", "task_state": (None, RESIZE_PREP)}
_KEPT = ("uuid", "name", "project", "operation", "flavor", "vcpus", "memory_mib", "disk_gib")


class LockForResize(Task):
    """Find the instance, work out what it will be, mark it RESIZE_PREP, and record what it was.

    ``excluded`` are hosts that will not do: of a migration, the one where the instance is. Where one of its volumes
    (``moved_volumes``) can only be reached on one host, it goes there, stays there, or is refused.

    Reverts: the mark, which can only be this operation's: it holds the target; a debt while the instance is what it was
    resized to. What it records was read before anything was changed; a second execution reads the same.
    """

    default_provides = (
        *("instance_uuid", "instance", "source_host", "ports", "old_spec", "spec", "excluded", "before"),
        "moved_volumes",
    )

    def __init__(self, *, moves: bool) -> None:
        super().__init__()
        self.moves = moves

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        instances: Any,
        instance_specs: Any,
        flavors: Any,
        networks: Any,
        volumes: Any,
        volume_attachments: Any,
        volume_backends: Any,
    ) -> tuple[Any, ...]:
        instance = find_in_state(instances, request["name"], project, "resize", RESIZABLE)
        if self.moves and request["host"] == instance.host:
            raise InvalidRequest(field="host", reason=f"the instance is on {instance.host} already")
        flavor = None if request.get("flavor") is None else flavors.get(request["flavor"])
        old = instance_specs.current(instance.uuid, instance.operation)
        new = resized(old, request, flavor)
        before = instance_specs.find(instance.uuid)
        swap_state(instances, instance, "resize", RESIZABLE, {"task_state": RESIZE_PREP})
        # None is attached or detached from here on.
        moved = moved_volumes(instance, old, "resize", volumes, volume_attachments)
        ports = [asdict(port) for port in networks.ports(instance=instance.uuid)]
        kept = {name: getattr(instance, name) for name in _KEPT}
        excluded = {instance.host: "the instance is there already"} if self.moves else {}
        host = reachable_host(instance, moved, request["host"], excluded, "resize", volume_backends)
        new = with_volumes({**new, "host": host}, moved)
        recorded = None if before is None else asdict(before)
        return instance.uuid, kept, instance.host, ports, old, new, excluded, recorded, moved

    def revert(
        self, result: Any, request: Mapping[str, Any], project: str, instances: Any, **_kwargs: Any
    ) -> Debt | None:
        with suppress(NotFound):
            found = instances.find(request["name"], project)
            if found.vm_state == VERIFY and isinstance(result, list | tuple):
                return Debt(error="the instance still is what it was resized to")
            marks = {"task_state": (RESIZE_PREP, RESIZE_MIGRATING)}
            instances.compare_and_set(found.uuid, marks, {"task_state": None})
        return None


class ReserveQuotaDelta(Task):
    """Charge the project with the larger of what the instance was and what it will be, until that is confirmed.

    Reverts: what it was, even beyond the limit: the instance was there first. Both directions set what the charge is.
    """

    def execute(
        self,
        instance_uuid: str,
        project: str,
        old_spec: Mapping[str, Any],
        spec: Mapping[str, Any],
        quotas: Any,
    ) -> None:
        amounts = largest(claimed(old_spec), claimed(spec))
        quotas.adjust(instance_uuid, project, amounts, limited=True)

    def revert(
        self, instance_uuid: str, project: str, old_spec: Mapping[str, Any], quotas: Any, **_kwargs: Any
    ) -> None:
        quotas.adjust(instance_uuid, project, claimed(old_spec), limited=False)


class NextDestination(NextHost):
    """NextHost, without the hosts that are excluded from the start."""

    _ARGUMENTS: tuple[str, ...] = (*NextHost._ARGUMENTS, "excluded")

    def __init__(self) -> None:
        super().__init__(name="NextDestination")

    def execute(  # type: ignore[override]
        self, history: retry.History, operation: str, host_choice: Any, excluded: Mapping[str, str], **_kwargs: Any
    ) -> dict[str, Any]:
        found = super().execute(history, operation, host_choice)
        return {**found, "tried": {**excluded, **found["tried"]}}

    def on_failure(  # type: ignore[override]
        self, history: retry.History, host_choice: Any, excluded: Mapping[str, str], **arguments: Any
    ) -> str:
        return super().on_failure(history, host_choice=_Without(host_choice, excluded), **arguments)


class _Without:
    """A choice of hosts that knows some to be tried already."""

    def __init__(self, host_choice: Any, excluded: Mapping[str, str]) -> None:
        self._choice = host_choice
        self._excluded = excluded
        self.limits = host_choice.limits
        self.chosen_before = host_choice.chosen_before

    def other_host_fits(
        self, spec: Mapping[str, Any], instance_uuid: str, tried: Mapping[str, str], only: str | None
    ) -> bool:
        return bool(self._choice.other_host_fits(spec, instance_uuid, {**self._excluded, **tried}, only))


class ClaimDestination(Task):
    """Claim the destination for what the instance will be; what it holds of its present host stays.

    On one and the same host it holds the larger of both instead. Reverts: releases the claim, or holds what it held.
    Claiming again is the same claim.
    """

    def intents(self, instance_uuid: str, source_host: str, destination: str, **_arguments: Any) -> tuple[Intent, ...]:
        return () if destination == source_host else (Intent("allocation", f"{destination}/{instance_uuid}"),)

    def execute(
        self,
        instance_uuid: str,
        operation: str,
        old_spec: Mapping[str, Any],
        spec: Mapping[str, Any],
        source_host: str,
        destination: str,
        placement: Any,
    ) -> None:
        if destination == source_host:
            placement.adjust(destination, instance_uuid, **largest(claimed(old_spec), claimed(spec)))
        else:
            placement.claim(destination, instance_uuid, operation, **claimed(spec))

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        old_spec: Mapping[str, Any],
        source_host: str,
        destination: str,
        placement: Any,
        **_kwargs: Any,
    ) -> None:
        if destination == source_host:
            placement.adjust(destination, instance_uuid, **claimed(old_spec))
        else:
            placement.release(destination, instance_uuid, operation)


class EnterResizeMigrating(Task):
    """Mark that the guest is about to be shut down. A second execution finds the mark.

    Reverts: back to RESIZE_PREP.
    """

    def execute(self, instance_uuid: str, instances: Any) -> None:
        found = instances.get(instance_uuid)
        expected = {"vm_state": "ACTIVE", "task_state": (RESIZE_PREP, RESIZE_MIGRATING)}
        swap_state(instances, found, "resize", expected, {"task_state": RESIZE_MIGRATING})

    def revert(self, instance_uuid: str, instances: Any, **_kwargs: Any) -> None:
        instances.compare_and_set(instance_uuid, {"task_state": RESIZE_MIGRATING}, {"task_state": RESIZE_PREP})


class SwitchOwner(Task):
    """The instance is what it was resized to, and where it runs now: VERIFY_RESIZE, until it is confirmed or reverted.

    Reverts: it is what it was, and where it was. Each direction is one compare-and-swap of the instance; what goes with
    it is written before, and is the same whenever it is written.
    """

    def execute(
        self,
        instance_uuid: str,
        operation: str,
        spec: Mapping[str, Any],
        old_spec: Mapping[str, Any],
        source_host: str,
        destination: str,
        instances: Any,
        instance_specs: Any,
        networks: Any,
    ) -> None:
        instance_specs.put(InstanceSpec(instance_uuid, operation, spec, old_spec, source_host))
        networks.move_ports(instance_uuid, destination)
        changes = {"vm_state": VERIFY, "task_state": None, "host": destination, **_columns(spec)}
        expected = {"host": source_host, "vm_state": "ACTIVE", "task_state": RESIZE_MIGRATING}
        if not instances.compare_and_set(instance_uuid, expected, changes):
            found = instances.get(instance_uuid)
            if (found.vm_state, found.host) != (VERIFY, destination):
                reason = f"it is {found.vm_state} ({found.task_state}) on {found.host}"
                raise Conflict(action="finish the resize of", kind="instance", name=found.name, reason=reason)

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        instance: Mapping[str, Any],
        source_host: str,
        before: Mapping[str, Any] | None,
        instances: Any,
        instance_specs: Any,
        networks: Any,
        **_kwargs: Any,
    ) -> None:
        columns = {name: instance[name] for name in ("flavor", "vcpus", "memory_mib", "disk_gib")}
        changes = {"vm_state": "ACTIVE", "task_state": RESIZE_MIGRATING, "host": source_host, **columns}
        instances.compare_and_set(instance_uuid, {"vm_state": VERIFY}, changes)
        networks.move_ports(instance_uuid, source_host)
        if before is None:
            instance_specs.remove(instance_uuid, operation)
        else:
            instance_specs.put(InstanceSpec(**before))


def find_in_state(instances: Any, name: str, project: str, action: str, allowed: Mapping[str, Any]) -> Instance:
    """The instance, if it is in one of the allowed states. NotFound, Conflict, InvalidRequest (``name`` is an id)."""
    instance: Instance = instances.find(name, project)
    if instance.name != name:
        # The operation holds the name it was given: under another one, two operations would not exclude each other.
        raise InvalidRequest(field="name", reason=f"must be the instance's name ({instance.name}), not its id")
    for column, values in allowed.items():
        if getattr(instance, column) not in (values if isinstance(values, tuple) else (values,)):
            raise _wrong_state(instance, action)
    return instance


def swap_state(
    instances: Any, instance: Instance, action: str, expected: Mapping[str, Any], changes: Mapping[str, Any]
) -> None:
    """Change the instance if it is as expected. Conflict."""
    if not instances.compare_and_set(instance.uuid, expected, changes):
        raise _wrong_state(instance, action)


def _wrong_state(instance: Instance, action: str) -> Conflict:
    reason = f"it is {instance.vm_state} ({instance.task_state})"
    return Conflict(action=action, kind="instance", name=instance.name, reason=reason)


def _columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spec[name] for name in ("flavor", "vcpus", "memory_mib", "disk_gib")}
