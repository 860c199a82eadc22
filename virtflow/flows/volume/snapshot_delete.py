"""Delete a snapshot. Until its trash is purged, the delete can be undone.

1. HoldSnapshot             DELETING
2. DescribeTrash
3. NotifyVolumeStart        its revert tells of a failure
4. Accept
5. DeleteOnBackend          into the trash, as a segment (delete_host.py)
6. ReleaseSnapshotQuota
7. MarkSnapshotDeleted      the name is free
8. NotifyVolumeEnd
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.volume import delete_host as host
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_backend import DescribeTrash
from virtflow.tasks.volume_entries import MarkSnapshotDeleted
from virtflow.tasks.volume_holds import HoldSnapshot
from virtflow.tasks.volume_notifications import SNAPSHOT, NotifyVolumeEnd, NotifyVolumeStart
from virtflow.tasks.volume_quota import ReleaseSnapshotQuota


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-snapshot-delete").add(
        HoldSnapshot(),
        DescribeTrash("snapshot"),
        NotifyVolumeStart("snapshot.delete", SNAPSHOT),
        Accept(),
        OnHost(host.KIND.name, name="DeleteOnBackend", requires=("trashed", "operation"), provides=()),
        ReleaseSnapshotQuota(),
        MarkSnapshotDeleted(),
        NotifyVolumeEnd("snapshot.delete", SNAPSHOT),
    )


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """Undo needs what was put into the trash, and the volume that it was taken of."""
    recorded = results.get("HoldSnapshot")
    if recorded is not None:
        snapshot = services["volume_snapshots"].get(recorded[0])
        if services["volumes"].get(snapshot.volume).deleted_at is not None:
            return "the volume that it was taken of was deleted"
    return host.purged(operation, services, results)


KIND = FlowKind("volume-snapshot-delete", 1, build, check_undo=check_undo)
