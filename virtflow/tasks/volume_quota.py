"""Quota of volumes: charged before anything is made, settled when it is there, given back when it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.tasks.base import Intent, Task


class ReserveVolumeQuota(Task):
    """Reserve a volume and its size. The charge is keyed by the volume's id.

    Reverts: releases the charge, in whatever state it is. Reserving again for the same operation is the same charge.
    """

    def intents(self, volume_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("quota", volume_id),)

    def execute(self, volume_id: str, operation: str, project: str, spec: Mapping[str, Any], quotas: Any) -> None:
        quotas.reserve(volume_id, operation, project, {"volumes": 1, "volume_gib": spec["size_gib"]})

    def revert(self, volume_id: str, operation: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.release(volume_id, operation)
        quotas.forget(volume_id)


class CommitVolumeQuota(Task):
    """Turn the reservation into use.

    Reverts: back to a reservation, which ReserveVolumeQuota's revert releases. Both are one update of one state.
    """

    def execute(self, volume_id: str, operation: str, quotas: Any) -> None:
        quotas.commit(volume_id, operation)

    def revert(self, volume_id: str, operation: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.uncommit(volume_id, operation)


class ReserveSnapshotQuota(Task):
    """Reserve the size of a snapshot. Reverts: releases the charge. Reserving again is the same charge."""

    def intents(self, snapshot_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("quota", snapshot_id),)

    def execute(self, snapshot_id: str, operation: str, project: str, volume: Mapping[str, Any], quotas: Any) -> None:
        quotas.reserve(snapshot_id, operation, project, {"volume_gib": volume["size_gib"]})

    def revert(self, snapshot_id: str, operation: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.release(snapshot_id, operation)
        quotas.forget(snapshot_id)


class CommitSnapshotQuota(CommitVolumeQuota):
    """CommitVolumeQuota of a snapshot."""

    def __init__(self) -> None:
        super().__init__(rebind={"volume_id": "snapshot_id"})


class ChargeExtension(Task):
    """Charge the volume with its new size, before it grows: QuotaExceeded where that is too much.

    Reverts: charges it with the old size. Both set a number, so twice is once.
    """

    def execute(self, volume: Mapping[str, Any], request: Mapping[str, Any], project: str, quotas: Any) -> None:
        quotas.adjust(volume["id"], project, {"volumes": 1, "volume_gib": request["size_gib"]}, limited=True)

    def revert(self, volume: Mapping[str, Any], project: str, quotas: Any, **_kwargs: Any) -> None:
        quotas.adjust(volume["id"], project, {"volumes": 1, "volume_gib": volume["size_gib"]}, limited=False)


class ReleaseVolumeQuota(Task):
    """Give back what a deleted volume used.

    Reverts: charges it again; QuotaExceeded where others took it. Each is one update of one state.
    """

    def execute(self, volume: Mapping[str, Any], quotas: Any) -> None:
        quotas.release(volume["id"])

    def revert(self, volume: Mapping[str, Any], quotas: Any, **_kwargs: Any) -> None:
        if quotas.charges(consumer=volume["id"]):  # one whose creation failed was never charged
            quotas.recharge(volume["id"])


class ReleaseSnapshotQuota(ReleaseVolumeQuota):
    """ReleaseVolumeQuota of a snapshot."""

    def __init__(self) -> None:
        super().__init__(rebind={"volume": "snapshot"})


class ForgetVolumeQuota(Task):
    """Remove the released charges of what was purged. Past the pivot: not reverted."""

    def execute(self, trashed: Mapping[str, Any], quotas: Any) -> None:
        quotas.forget(trashed["id"])
