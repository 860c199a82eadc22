"""Confirming a resize: what it would be reverted to goes, and what was held for both is held for what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from virtflow.errors import Conflict, NotFound
from virtflow.images import names
from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.disk_request import claimed
from virtflow.tasks.moved_volumes import moved_volumes
from virtflow.tasks.resize import VERIFY, find_in_state, swap_state
from virtflow.tasks.resize_request import largest

CONFIRMING = "RESIZE_CONFIRMING"
CONFIRMABLE = {"vm_state": VERIFY, "task_state": (None, CONFIRMING)}


class LockForConfirm(Task):
    """Find the instance, mark it RESIZE_CONFIRMING, and record what undoing the confirmation will need.

    ``resize`` is the operation that is confirmed. What it records changes only at the end.

    Reverts: the mark; a debt while the instance counts as confirmed.
    """

    default_provides = (
        *("instance_uuid", "instance", "source_host", "destination", "old_spec", "spec", "resize", "allocations"),
        *("references", "before", "moved_volumes"),
    )

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        instances: Any,
        instance_specs: Any,
        placement: Any,
        base_references: Any,
        volumes: Any,
        volume_attachments: Any,
    ) -> tuple[Any, ...]:
        instance = find_in_state(instances, request["name"], project, "confirm the resize of", CONFIRMABLE)
        found = instance_specs.find(instance.uuid)
        if found is None or found.previous_host is None:
            reason = "there is no resize of it"
            raise Conflict(action="confirm the resize of", kind="instance", name=instance.name, reason=reason)
        held = [asdict(each) for each in placement.allocations(consumer=instance.uuid)]
        swap_state(instances, instance, "confirm the resize of", CONFIRMABLE, {"task_state": CONFIRMING})
        kept = {name: getattr(instance, name) for name in ("uuid", "name", "project", "operation")}
        used = [asdict(each) for each in base_references.references(consumer=instance.uuid)]
        has = moved_volumes(instance, found.spec, "confirm the resize of", volumes, volume_attachments)
        recorded = (found.previous_spec, found.spec, found.operation, held, used, asdict(found), has)
        return instance.uuid, kept, found.previous_host, instance.host, *recorded

    def revert(
        self,
        result: Any,
        request: Mapping[str, Any],
        project: str,
        instances: Any,
        instance_specs: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        with suppress(NotFound):
            uuid = instances.find(request["name"], project).uuid
            found = instance_specs.find(uuid)
            if isinstance(result, list | tuple) and found is not None and found.previous_host is None:
                return Debt(error="the instance still counts as confirmed")
            instances.compare_and_set(uuid, {"vm_state": VERIFY, "task_state": CONFIRMING}, {"task_state": None})
        return None


class RetireTrash(Task):
    """Take over what the resize has set aside on the same host: it is in this operation's trash from now on.

    Reverts: gives it back. Each direction is one rename; done already, it is not done again.
    """

    default_provides = "trash"

    def intents(self, operation: str, directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("trash", str(directories.trash_path(operation))),)

    def execute(self, resize: str, operation: str, directories: Any) -> str:
        return str(directories.pass_on_trash(resize, operation))

    def revert(self, resize: str, operation: str, directories: Any, **_kwargs: Any) -> None:
        directories.pass_on_trash(operation, resize)


class SettleClaims(Task):
    """Hold no more than the instance is: nothing of the host that it has left, its size of the one where it is.

    Reverts: holds again what it held. Both directions set what is held.
    """

    def execute(
        self, instance_uuid: str, spec: Mapping[str, Any], source_host: str, destination: str, placement: Any
    ) -> None:
        if source_host == destination:
            placement.adjust(destination, instance_uuid, **claimed(spec))
        else:
            placement.release(source_host, instance_uuid)

    def revert(
        self,
        allocations: Sequence[Mapping[str, Any]],
        source_host: str,
        destination: str,
        placement: Any,
        **_kwargs: Any,
    ) -> None:
        for held in allocations:
            amounts = {name: held[name] for name in ("vcpus", "memory_mib", "disk_gib")}
            if source_host == destination:
                placement.adjust(held["host"], held["consumer"], **amounts)
            else:
                placement.claim(held["host"], held["consumer"], held["operation"], **amounts)


class SettleQuota(Task):
    """Charge the project with what the instance is. Reverts: with what it was charged before, even beyond the limit."""

    def execute(self, instance_uuid: str, project: str, spec: Mapping[str, Any], quotas: Any) -> None:
        quotas.adjust(instance_uuid, project, claimed(spec), limited=False)

    def revert(
        self,
        instance_uuid: str,
        project: str,
        spec: Mapping[str, Any],
        old_spec: Mapping[str, Any],
        quotas: Any,
        **_kwargs: Any,
    ) -> None:
        quotas.adjust(instance_uuid, project, largest(claimed(old_spec), claimed(spec)), limited=False)


class DropOldReferences(Task):
    """Forget which bases the instance has used where it was, so that they can age out.

    Reverts: refers to them again, as LockForConfirm has recorded.
    """

    def execute(
        self,
        instance_uuid: str,
        spec: Mapping[str, Any],
        old_spec: Mapping[str, Any],
        source_host: str,
        destination: str,
        base_references: Any,
    ) -> None:
        gone = base_names(old_spec) - base_names(spec)
        for each in base_references.references(host=source_host, consumer=instance_uuid):
            if source_host != destination or Path(each.base_path).name in gone:
                base_references.drop_reference(each.base_path, each.host, each.consumer)

    def revert(self, references: Sequence[Mapping[str, Any]], base_references: Any, **_kwargs: Any) -> None:
        for each in references:
            names_of = ("base_path", "image_id", "host", "consumer", "operation")
            base_references.add_reference(*(each[name] for name in names_of))


class FinishConfirm(Task):
    """The instance is ACTIVE, and what it was is forgotten.

    Reverts: it waits for a confirmation again. A second execution finds it ACTIVE.
    """

    def execute(self, instance_uuid: str, before: Mapping[str, Any], instances: Any, instance_specs: Any) -> None:
        from virtflow.persistence.instance_specs import InstanceSpec

        instance_specs.put(replace(InstanceSpec(**before), previous_spec=None, previous_host=None))
        changes = {"vm_state": "ACTIVE", "task_state": None}
        expected = {"vm_state": (VERIFY, "ACTIVE"), "task_state": (CONFIRMING, None)}
        swap_state(instances, instances.get(instance_uuid), "confirm the resize of", expected, changes)

    def revert(
        self, instance_uuid: str, before: Mapping[str, Any], instances: Any, instance_specs: Any, **_kwargs: Any
    ) -> None:
        from virtflow.persistence.instance_specs import InstanceSpec

        changes = {"vm_state": VERIFY, "task_state": CONFIRMING}
        instances.compare_and_set(instance_uuid, {"vm_state": "ACTIVE"}, changes)
        instance_specs.put(InstanceSpec(**before))  # last: LockForConfirm's revert goes by it


def base_names(spec: Mapping[str, Any]) -> set[str]:
    """The names of the bases whose use follows from the size: those of the root disk and of swap.

    An ephemeral disk that has grown stands on the base of the size that it was made with.
    """
    stands_on = names.base_name((spec["snapshot_base"] or spec["image"])["id"])
    swap = [names.swap_name(spec["swap_mib"])] if spec["swap_mib"] else []
    return {names.sized_name(stands_on, spec["disk_gib"] << 30), *swap}
