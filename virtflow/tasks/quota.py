"""Quota: charged before anything is made, settled when it is there, given back when it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.tasks.base import Intent, Task
from virtflow.tasks.disk_request import claimed


class ReserveQuota(Task):
    """Reserve what the instance will use of its project's quota. The charge is keyed by the instance's uuid.

    Reverts: releases the charge, in whatever state it is. Reserving again for the same operation is the same charge.
    """

    def intents(self, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("quota", instance_uuid),)

    def execute(self, instance_uuid: str, operation: str, project: str, spec: Mapping[str, Any], quotas: Any) -> None:
        quotas.reserve(instance_uuid, operation, project, {"instances": 1, **claimed(spec)})

    def revert(self, instance_uuid: str, operation: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.release(instance_uuid, operation)
        quotas.forget(instance_uuid)


class CommitQuota(Task):
    """Turn the reservation into use.

    Reverts: back to a reservation, which ReserveQuota's revert releases. Both are one update of one state.
    """

    def execute(self, instance_uuid: str, operation: str, quotas: Any) -> None:
        quotas.commit(instance_uuid, operation)

    def revert(self, instance_uuid: str, operation: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.uncommit(instance_uuid, operation)


class ReleaseQuota(Task):
    """Give back what a deleted instance used.

    Reverts: charges it again, even beyond the limit: the instance was there first. Each is one update of one state.
    """

    def execute(self, instance: Mapping[str, Any], quotas: Any) -> None:
        quotas.release(instance["uuid"])

    def revert(self, instance: Mapping[str, Any], quotas: Any, **_kwargs: Any) -> None:
        quotas.recharge(instance["uuid"])


class ForgetQuota(Task):
    """Remove the released charges of a purged instance. Past the pivot: not reverted."""

    def execute(self, trashed: Mapping[str, Any], quotas: Any) -> None:
        quotas.forget(trashed["instance_uuid"])
