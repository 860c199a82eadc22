"""The rows of volumes and snapshots, from the first to the last."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import NotFound
from virtflow.persistence import volume_rows as states
from virtflow.persistence.volumes import Snapshot, Volume
from virtflow.tasks.base import Debt, Intent, Task


class CreateVolumeEntry(Task):
    """Insert the volume in state CREATING. The database keeps names unique within a project.

    Reverts: removes the row: the volume never was. Where something else could not be taken back, the row stays as
    ERROR, and is the last debt to be paid. The id is the operation's, so inserting again is the same row.
    """

    def intents(self, volume_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_row", volume_id),)

    def execute(self, volume_id: str, operation: str, project: str, spec: Mapping[str, Any], volumes: Any) -> None:
        source = {} if spec["source_id"] is None else {spec["source"]: spec["source_id"]}
        row = Volume(
            id=volume_id,
            name=spec["name"],
            project=project,
            size_gib=spec["size_gib"],
            state=states.CREATING,
            held_by=operation,
            type=spec["type"],
            zone=spec["zone"],
            bootable=spec["bootable"],
            encryption=spec["encryption"],
            source=source,
            meta=spec["meta"],
            operation=operation,
        )
        volumes.insert(row)

    def revert(
        self,
        volume_id: str,
        operation: str,
        volumes: Any,
        ledger: Any,
        flow_failures: Mapping[str, Failure],  # noqa: ARG002 - what went wrong is the operation's to tell
        **_kwargs: Any,
    ) -> Debt | None:
        left = {(row.flow, row.task) for row in ledger.debts(operation) if row.task != self.name}
        if not left:
            volumes.remove(volume_id, operation)
            return None
        volumes.let_go(volume_id, operation, states.ERROR)
        return Debt(error=f"the volume stays as ERROR: {len(left)} thing(s) are left of it")


class FinishVolume(Task):
    """Mark the volume AVAILABLE: the one step that only success brings.

    Reverts: back to CREATING, held by this operation. A second execution finds it AVAILABLE.
    """

    def execute(self, volume_id: str, operation: str, volumes: Any) -> None:
        volumes.let_go(volume_id, operation, states.AVAILABLE)

    def revert(self, volume_id: str, operation: str, volumes: Any, **_kwargs: Any) -> None:
        volumes.hold(volume_id, states.AVAILABLE, states.CREATING, operation)


class CreateSnapshotEntry(Task):
    """Insert the snapshot in state CREATING, on the backend of its volume.

    Reverts: removes the row. The id is the operation's, so inserting again is the same row.
    """

    def intents(self, snapshot_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("snapshot_row", snapshot_id),)

    def execute(
        self,
        snapshot_id: str,
        operation: str,
        project: str,
        request: Mapping[str, Any],
        volume: Mapping[str, Any],
        volume_snapshots: Any,
        volume_backends: Any,
    ) -> None:
        volume_backends.check_room(volume["backend"], volume["size_gib"])
        row = Snapshot(
            id=snapshot_id,
            name=request["name"],
            project=project,
            volume=volume["id"],
            size_gib=volume["size_gib"],
            state=states.CREATING,
            held_by=operation,
            backend=volume["backend"],
            host=volume["host"],
            bootable=volume["bootable"],
            encryption=volume["encryption"],
            operation=operation,
        )
        volume_snapshots.insert(row)

    def revert(self, snapshot_id: str, operation: str, volume_snapshots: Any, **_kwargs: Any) -> None:
        volume_snapshots.remove(snapshot_id, operation)


class FinishSnapshot(Task):
    """Mark the snapshot AVAILABLE.

    Reverts: back to CREATING, held by this operation; a row that is gone by now needs nothing. A second execution finds
    it AVAILABLE.
    """

    def execute(self, snapshot_id: str, operation: str, volume_snapshots: Any) -> None:
        volume_snapshots.let_go(snapshot_id, operation, states.AVAILABLE)

    def revert(self, snapshot_id: str, operation: str, volume_snapshots: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            volume_snapshots.hold(snapshot_id, states.AVAILABLE, states.CREATING, operation)


class MarkVolumeDeleted(Task):
    """Mark the volume deleted, which frees its name. It takes room until it is purged.

    Reverts: restores it; a name that was taken meanwhile makes that a debt. Marking twice is marking once.
    """

    def execute(self, volume: Mapping[str, Any], operation: str, volumes: Any) -> None:
        volumes.mark_deleted(volume["id"], operation)

    def revert(self, volume: Mapping[str, Any], volumes: Any, **_kwargs: Any) -> None:
        volumes.restore(volume["id"])


class MarkSnapshotDeleted(Task):
    """Mark the snapshot deleted, which frees its name. It takes room until it is purged.

    Reverts: restores it; a name that was taken meanwhile makes that a debt. Marking twice is marking once.
    """

    def execute(self, snapshot: Mapping[str, Any], operation: str, volume_snapshots: Any) -> None:
        volume_snapshots.mark_deleted(snapshot["id"], operation)

    def revert(self, snapshot: Mapping[str, Any], volume_snapshots: Any, **_kwargs: Any) -> None:
        volume_snapshots.restore(snapshot["id"])


class MarkPurged(Task):
    """Note that a purged volume or snapshot takes no room any more. Past the pivot: not reverted."""

    def execute(self, trashed: Mapping[str, Any], volumes: Any, volume_snapshots: Any) -> None:
        rows = volumes if trashed["kind"] == "volume" else volume_snapshots
        rows.mark_purged(trashed["id"])
