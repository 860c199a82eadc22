"""Evacuating, as the database sees it: whose the instance is, what it holds, and what its dead host still owes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence.instance_specs import InstanceSpec
from virtflow.persistence.instances import GOING_ON
from virtflow.tasks.base import Task
from virtflow.tasks.disk_request import claimed
from virtflow.tasks.evacuated_volumes import check_not_lost
from virtflow.tasks.moved_volumes import left_volumes, moved_volumes, reachable_host, with_volumes
from virtflow.tasks.resize import find_in_state, swap_state

EVACUATING = "EVACUATING"
EVACUABLE = {"vm_state": "ACTIVE", "task_state": (None, EVACUATING, GOING_ON)}
"""GOING_ON is the dead host's mark, which it can take back no more."""
_ACTION = "evacuate"
_KEPT = ("uuid", "name", "project", "operation")


class LockForEvacuation(Task):
    """Find the instance, check that its host was fenced, mark it EVACUATING, and record what it is.

    ``made_by`` is the operation whose mark its directory bears. ``references`` are the bases that it uses. An instance
    with a volume (``moved_volumes``) that only the dead host could reach is refused.

    Reverts: the mark, which can only be this operation's: it holds the target. What it records was read before anything
    was changed; a second execution reads the same.
    """

    default_provides = (
        *("instance_uuid", "instance", "source_host", "ports", "old_spec", "spec", "excluded", "before", "made_by"),
        *("references", "secret_refs", "moved_volumes"),
    )

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        instances: Any,
        instance_specs: Any,
        networks: Any,
        hosts: Any,
        base_references: Any,
        volumes: Any,
        volume_attachments: Any,
        volume_backends: Any,
    ) -> tuple[Any, ...]:
        instance = find_in_state(instances, request["name"], project, _ACTION, EVACUABLE)
        check_fenced(hosts, instance)
        if request["host"] == instance.host:
            raise InvalidRequest(
                field="host", reason=f"that is the host that the instance has to leave: {instance.host}"
            )
        spec = instance_specs.current(instance.uuid, instance.operation)
        before = instance_specs.find(instance.uuid)
        swap_state(instances, instance, _ACTION, EVACUABLE, {"task_state": EVACUATING})
        # None is attached or detached from here on.
        moved = moved_volumes(instance, spec, _ACTION, volumes, volume_attachments)
        check_not_lost(instance, moved)
        ports = [asdict(port) for port in networks.ports(instance=instance.uuid)]
        used = [asdict(each) for each in base_references.references(host=instance.host, consumer=instance.uuid)]
        spec, excluded = with_volumes(spec, moved), {instance.host: "it is dead"}
        host = reachable_host(instance, moved, request["host"], excluded, _ACTION, volume_backends)
        wanted = {**spec, "host": host}
        kept = {name: getattr(instance, name) for name in _KEPT}
        recorded = None if before is None else asdict(before)
        made_by = instance.operation if before is None else before.operation
        # What was secret is gone since the instance was made: the guest that is made anew is not told of it.
        return (instance.uuid, kept, instance.host, ports, spec, wanted, excluded, recorded, made_by, used, {}, moved)

    def revert(self, request: Mapping[str, Any], project: str, instances: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            uuid = instances.find(request["name"], project).uuid
            instances.compare_and_set(uuid, {"task_state": EVACUATING}, {"task_state": None})


class TakeOwnership(Task):
    """The instance is the new host's, before its guest starts there: who still had it finds that out, and leaves it.

    One compare-and-swap. Conflict when its old host is not fenced any more: its worker lives, and what it had is there.

    Reverts: it is the old host's, as before. What goes with it is the same whenever it is written.
    """

    default_provides = "owned"

    def execute(
        self,
        instance_uuid: str,
        operation: str,
        old_spec: Mapping[str, Any],
        source_host: str,
        destination: str,
        defined: bool,
        instances: Any,
        instance_specs: Any,
        networks: Any,
        hosts: Any,
    ) -> bool:
        found = instances.get(instance_uuid)
        if found.host != destination:
            check_fenced(hosts, found)
        expected = {"host": (source_host, destination), "vm_state": "ACTIVE", "task_state": EVACUATING}
        swap_state(instances, found, _ACTION, expected, {"host": destination})
        instance_specs.put(InstanceSpec(instance_uuid, operation, {**old_spec, "host": None}, None, None))
        networks.move_ports(instance_uuid, destination)
        return defined

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        source_host: str,
        destination: str,
        before: Mapping[str, Any] | None,
        instances: Any,
        instance_specs: Any,
        networks: Any,
        **_kwargs: Any,
    ) -> None:
        mine = {"host": destination, "task_state": EVACUATING}
        instances.compare_and_set(instance_uuid, mine, {"host": source_host})
        networks.move_ports(instance_uuid, source_host)
        if before is None:
            instance_specs.remove(instance_uuid, operation)
        else:
            instance_specs.put(InstanceSpec(**before))


class ReleaseDeadHost(Task):
    """Give back what the instance held of its dead host. Reverts: holds it again. Either is done once."""

    def execute(self, instance_uuid: str, source_host: str, placement: Any) -> None:
        placement.release(source_host, instance_uuid)

    def revert(
        self,
        instance_uuid: str,
        instance: Mapping[str, Any],
        source_host: str,
        old_spec: Mapping[str, Any],
        placement: Any,
        **_kwargs: Any,
    ) -> None:
        if not placement.allocations(consumer=instance_uuid, host=source_host):
            placement.claim(source_host, instance_uuid, instance["operation"], **claimed(old_spec))


class FinishEvacuation(Task):
    """The instance is ACTIVE on its new host. Reverts: it is EVACUATING. A second execution finds it ACTIVE."""

    def execute(self, instance_uuid: str, destination: str, instances: Any) -> None:
        expected = {"host": destination, "vm_state": "ACTIVE", "task_state": (EVACUATING, None)}
        swap_state(instances, instances.get(instance_uuid), _ACTION, expected, {"task_state": None})

    def revert(self, instance_uuid: str, destination: str, instances: Any, **_kwargs: Any) -> None:
        finished = {"host": destination, "vm_state": "ACTIVE", "task_state": None}
        instances.compare_and_set(instance_uuid, finished, {"task_state": EVACUATING})


class DropLeftReferences(Task):
    """Forget which bases the instance has used on the host that it was evacuated from. Past the pivot: not reverted."""

    def execute(self, left: Mapping[str, Any], instances: Any, base_references: Any) -> None:
        if instances.get(left["instance_uuid"]).host == left["host"]:
            return
        for each in base_references.references(host=left["host"], consumer=left["instance_uuid"]):
            base_references.drop_reference(each.base_path, each.host, each.consumer)


def check_fenced(hosts: Any, instance: Any) -> None:
    """Raise Conflict unless somebody vouches for it that nothing runs on the instance's host."""
    if not hosts.is_fenced(instance.host):
        reason = f"host {instance.host} is not fenced, so its guest may run: virtflow host fence {instance.host}"
        raise Conflict(action=_ACTION, kind="instance", name=instance.name, reason=reason)


def left_behind(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the dead host still has of the instance, from what the evacuation has recorded.

    ``kept``: its disks are those that the new host uses. ``volumes`` are as it reached them.
    """
    recorded = dict(zip(LockForEvacuation.default_provides, results["LockForEvacuation"], strict=True))
    return {
        "instance_uuid": recorded["instance_uuid"],
        "host": recorded["source_host"],
        "ports": recorded["ports"],
        "volumes": left_volumes(recorded["moved_volumes"]),
        "kept": bool((results.get("LocateOnDestination") or {}).get("kept")),
    }


def kept_references(references: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(path, image) of the bases that an instance uses."""
    return [(each["base_path"], each["image_id"]) for each in references]
