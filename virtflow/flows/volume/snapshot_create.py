"""Take a snapshot of a volume, attached or not. A guest that has it is halted meanwhile: what it has written is kept.

1. HoldVolume               COPYING
2. FindWriter               which instance has it, if one has
3. HoldWriter               nobody else halts that, or lets it run, meanwhile
4. ReserveSnapshotQuota     its size
5. CreateSnapshotEntry      the snapshot's row, CREATING
6. KeepKeyOfSnapshot        of an encrypted volume
7. NotifyVolumeStart        its revert tells of a failure
8. Accept
9. PauseOnHost              the guest, on its host (snapshot_host.py)
10. SnapshotOnBackend       as a segment on the backend's host
11. RunOnHost               the guest goes on
12. LetVolumeGo             AVAILABLE or IN_USE, as it was
13. LetWriterGo
14. CommitSnapshotQuota
15. FinishSnapshot          AVAILABLE
16. NotifyVolumeEnd
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.volume import snapshot_host as host
from virtflow.persistence import volume_rows as states
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_encryption import KeepKeyOfSnapshot
from virtflow.tasks.volume_entries import CreateSnapshotEntry, FinishSnapshot
from virtflow.tasks.volume_halt import FindWriter, HoldWriter, LetWriterGo
from virtflow.tasks.volume_holds import HoldVolume, LetVolumeGo
from virtflow.tasks.volume_notifications import SNAPSHOT, NotifyVolumeEnd, NotifyVolumeStart
from virtflow.tasks.volume_quota import CommitSnapshotQuota, ReserveSnapshotQuota


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-snapshot-create").add(
        HoldVolume(states.COPYING, (states.AVAILABLE, states.IN_USE), field="volume"),
        FindWriter(),
        HoldWriter(),
        ReserveSnapshotQuota(),
        CreateSnapshotEntry(),
        KeepKeyOfSnapshot(),
        NotifyVolumeStart("snapshot.create", SNAPSHOT),
        Accept(),
        OnHost(
            host.PAUSE.name,
            name="PauseOnHost",
            host="instance_host",
            requires=("attachment", "operation"),
            provides=host.PAUSE.outputs,
        ),
        OnHost(
            host.KIND.name,
            name="SnapshotOnBackend",
            requires=("snapshot_id", "volume", "operation"),
            provides=(),
            guards=(),
        ),
        OnHost(
            host.RUN.name,
            name="RunOnHost",
            host="instance_host",
            requires=("attachment", "paused", "operation"),
            provides=(),
        ),
        LetVolumeGo(states.COPYING),
        LetWriterGo(),
        CommitSnapshotQuota(),
        FinishSnapshot(),
        NotifyVolumeEnd("snapshot.create", SNAPSHOT),
    )


def inputs(operation: Operation) -> dict[str, Any]:
    """The snapshot's id follows from the operation."""
    return operation_inputs(operation) | {"snapshot_id": snapshot_id(operation.id)}


def snapshot_id(operation: str) -> str:
    return str(uuid.uuid5(uuid.UUID(operation), "snapshot"))


def check_undo(operation: Operation, services: Mapping[str, Any], _results: Mapping[str, Any]) -> str | None:
    """A snapshot that is gone, or in use, is not taken back."""
    from virtflow.errors import NotFound

    try:
        snapshot = services["volume_snapshots"].get(snapshot_id(operation.id))
        volume = services["volumes"].get(snapshot.volume)
    except NotFound:
        return "its snapshot is gone"
    if snapshot.deleted_at is not None:
        return "its snapshot was deleted"
    if snapshot.state != states.AVAILABLE:
        return f"its snapshot is {snapshot.state}"
    return None if volume.state in (states.AVAILABLE, states.IN_USE) else f"its volume is {volume.state}"


KIND = FlowKind("volume-snapshot-create", 1, build, inputs=inputs, check_undo=check_undo)
