"""Delete a volume. Until its trash is purged, the delete can be undone.

1. HoldVolume           DELETING: not while it is attached, or snapshots were taken of it
2. DescribeTrash
3. NotifyVolumeStart    its revert tells of a failure
4. Accept
5. DeleteOnBackend      into the trash, as a segment (delete_host.py)
6. ReleaseVolumeQuota
7. MarkVolumeDeleted    the name is free
8. NotifyVolumeEnd
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.volume import delete_host as host
from virtflow.persistence import volume_rows as states
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_backend import DescribeTrash
from virtflow.tasks.volume_entries import MarkVolumeDeleted
from virtflow.tasks.volume_holds import HoldVolume
from virtflow.tasks.volume_notifications import NotifyVolumeEnd, NotifyVolumeStart
from virtflow.tasks.volume_quota import ReleaseVolumeQuota


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-delete").add(
        HoldVolume(states.DELETING, (states.AVAILABLE, states.ERROR)),
        DescribeTrash("volume"),
        NotifyVolumeStart("volume.delete"),
        Accept(),
        OnHost(host.KIND.name, name="DeleteOnBackend", requires=("trashed", "operation"), provides=()),
        ReleaseVolumeQuota(),
        MarkVolumeDeleted(),
        NotifyVolumeEnd("volume.delete"),
    )


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """Undo needs what was put into the trash."""
    return host.purged(operation, services, results)


KIND = FlowKind("volume-delete", 1, build, check_undo=check_undo)
