"""Delete an instance. Until its trash is purged, the delete can be undone.

1. LockInstance     DELETING, and a record of what undo will need
2. NotifyStart      its revert tells of a failure
3. TakeVolumes      those that it has: DETACHING, for nobody else
4. Accept
5. DeleteOnHost     stop, undefine, disconnect, unplug, trash the disks, as a segment (host.py)
6. UnexportVolumes  each as a segment on its backend's host (volume/export_host.py)
7. DropAttachments  nobody has them any more
8. ReleasePorts     the addresses are free again
9. DropClaim        so is the host
10. ReleaseQuota    and the quota
11. MarkDeleted     the name is free
12. GiveVolumesBack AVAILABLE
13. DeleteVolumes   those that go with it, each by an operation of its own
14. NotifyEnd

An instance that was deleted by a version without volumes has none: version 1 of the flow has no tasks for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.delete import host
from virtflow.flows.delete.preview import preview
from virtflow.flows.kind import FlowKind
from virtflow.flows.volume.export_host import unexport_volumes
from virtflow.persistence.operations import Operation
from virtflow.persistence.volume_rows import AVAILABLE
from virtflow.tasks.accept import Accept
from virtflow.tasks.delete_volumes import DeleteVolumes, DropAttachments, GiveVolumesBack, TakeVolumes
from virtflow.tasks.instances import LockInstance, MarkDeleted
from virtflow.tasks.network import ReleasePorts
from virtflow.tasks.notifications import NotifyEnd, NotifyStart
from virtflow.tasks.placement import DropClaim
from virtflow.tasks.quota import ReleaseQuota
from virtflow.tasks.segments import OnHost


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return _flow(volumes=True)


def build_without_volumes(_shape: Hashable) -> Flow:
    """The parent flow of version 1."""
    return _flow(volumes=False)


def _flow(*, volumes: bool) -> Flow:
    its_volumes = ("instance_volumes",) if volumes else ()
    return linear_flow.Flow("delete").add(
        LockInstance(),
        NotifyStart("instance.delete"),
        *([TakeVolumes()] if volumes else []),
        Accept(),
        OnHost(
            host.KIND.name,
            name="DeleteOnHost",
            requires=("instance", "ports", "operation", *its_volumes),
            provides=(),
        ),
        # Only now: while the guest could still run, nobody else may get its volumes, its addresses or its place.
        *([unexport_volumes(), DropAttachments()] if volumes else []),
        ReleasePorts(),
        DropClaim(),
        ReleaseQuota(),
        MarkDeleted(),
        *([GiveVolumesBack(), DeleteVolumes()] if volumes else []),
        NotifyEnd("instance.delete"),
    )


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """Undo needs the disks, and the addresses must not have been given to others meanwhile."""
    recorded = results.get("LockInstance")
    here = recorded is None or recorded[2] == services["settings"].host
    if here and not services["directories"].trash_path(operation.id).exists():
        return "its disks were purged"
    for each in results.get("TakeVolumes") or ():
        volume = services["volumes"].get(each["volume"]["id"])
        if each["attachment"].get("delete_volume") and volume.deleted_at is not None:
            if volume.purged_at is not None:
                return f"its volume {volume.name} was purged"
            continue
        if volume.deleted_at is not None or volume.state != AVAILABLE:
            return f"its volume {volume.name} is {'deleted' if volume.deleted_at is not None else volume.state}"
    for port in recorded[3] if recorded else ():
        if port["address"] in services["networks"].used_addresses(port["network_id"]):
            return f"address {port['address']} was given to another instance"
    return None


KIND = FlowKind("delete", 2, build, check_undo=check_undo, preview=preview)
FIRST = FlowKind("delete", 1, build_without_volumes, check_undo=check_undo, preview=preview)
