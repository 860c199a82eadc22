"""Resize an instance, or move it to another host. Until its guest runs anew, its source is untouched and startable.

1. LockForResize            RESIZE_PREP, what it was and will be; a disk that would shrink is refused
2. ReserveQuotaDelta        the larger of both, until it is confirmed
3. NotifyStart              its revert tells of a failure
4. StashTransferSecret      with which its disks are sent
5. HoldMovedVolumes         those that it has: MOVING
6. Accept                   a submitted operation is put down here: it was accepted
7. InspectOnSource          what its disks are, and stand on (inspect.py)
8. NextDestination          from here to 12, once more with another host if one fails
9. SelectHost               which host, and why not the others
10. ClaimDestination        what it holds of its present host stays
11. CheckDestinationPolicy  with its server group
12. PrepareOnDestination    bases, and a daemon that receives: the guest still runs (prepare.py)
13. EnterResizeMigrating
14. LeaveSource             shut down, and send the disks (source.py)
15. MakeMovedCredentials, ExportMovedVolumes, CollectConnections: how the destination reaches its volumes, each as a
                            segment on its backend's host, which is one of the two (volume/export_host.py)
16. ArriveOnDestination     fit, define and start (destination.py)
17. SwitchAttachments       its volumes, in their new place
18. SwitchOwner             VERIFY_RESIZE, in its new place and size
19. LetMovedVolumesGo       IN_USE
20. PurgeSecrets
21. NotifyEnd

Undone, which is what `resize-revert` does, the tasks go in the opposite order: the guest runs again where it was before
the copy that it had become is removed. `resize-confirm` (confirm.py) is the end of that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.resize import destination, inspect, prepare, source
from virtflow.flows.resize.preview import preview
from virtflow.flows.volume.export_host import export_moved_volumes
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.moved_volumes import (
    CollectConnections,
    HoldMovedVolumes,
    LetMovedVolumesGo,
    MakeMovedCredentials,
    SwitchAttachments,
    not_as_moved,
)
from virtflow.tasks.notifications import NotifyEnd, NotifyStart
from virtflow.tasks.resize import (
    VERIFY,
    ClaimDestination,
    EnterResizeMigrating,
    LockForResize,
    NextDestination,
    ReserveQuotaDelta,
    SwitchOwner,
)
from virtflow.tasks.scheduling import SelectHost
from virtflow.tasks.secrets import PurgeSecrets
from virtflow.tasks.segments import OnHost
from virtflow.tasks.server_groups import CheckDestinationPolicy
from virtflow.tasks.transfer import StashTransferSecret

_WHERE = ("instance_uuid", "operation", "source_host", "destination")


def build(name: str, *, moves: bool) -> Callable[[Hashable], Flow]:
    """The parent flow of this name; ``moves``: to another host."""

    def flow(_shape: Hashable) -> Flow:
        return linear_flow.Flow(name).add(
            LockForResize(moves=moves),
            ReserveQuotaDelta(),
            NotifyStart(f"instance.{name}"),
            StashTransferSecret(),
            HoldMovedVolumes("LockForResize", "ReserveQuotaDelta", "NotifyStart", "StashTransferSecret"),
            Accept(),
            OnHost(
                inspect.KIND.name,
                name="InspectOnSource",
                host="source_host",
                requires=("instance_uuid", "spec"),
                provides=inspect.KIND.outputs,
                guards=(),
            ),
            # What was made on a host that fails is gone before the next one is chosen; the guest runs meanwhile.
            linear_flow.Flow("prepare", retry=NextDestination()).add(
                SelectHost(provides=("destination", "alternates")),
                ClaimDestination(),
                # Only now: members that look for hosts at the same time see each other by what they have claimed.
                CheckDestinationPolicy(),
                OnHost(
                    prepare.KIND.name,
                    name="PrepareOnDestination",
                    host="destination",
                    requires=(*_WHERE, "spec", "disks", "transfer_secret"),
                    provides=prepare.KIND.outputs,
                    guards=(),
                ),
            ),
            EnterResizeMigrating(),
            OnHost(
                source.KIND.name,
                name="LeaveSource",
                host="source_host",
                requires=(*_WHERE, "instance", "ports", "disks", "receiver", "transfer_secret", "moved_volumes"),
                provides=source.KIND.outputs,
            ),
            # Only now: whoever serves a volume may have to let go of it first, and the guest that comes back in a
            # revert finds its volumes served.
            MakeMovedCredentials(left=True),
            export_moved_volumes(),
            CollectConnections(),
            OnHost(
                destination.KIND.name,
                name="ArriveOnDestination",
                host="destination",
                requires=(*_WHERE, "spec", "ports", "pushed", *prepare.KIND.outputs, "moved_volumes", "connections"),
                provides=(),
                guards=("StartDomain",),
            ),
            # Only now: whoever is asked for the instance is sent to where it runs.
            SwitchAttachments(),
            SwitchOwner(),
            LetMovedVolumesGo(),
            PurgeSecrets(),
            NotifyEnd(f"instance.{name}"),
        )

    return flow


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """What was confirmed is not brought back, and not what its host cannot be asked for now."""
    recorded = results.get("LockForResize")
    if recorded is None:
        return None
    if operation.state == "FINISHED" and services["instances"].get(recorded[0]).vm_state != VERIFY:
        return "it was confirmed"
    if operation.state != "FINISHED":
        return None
    moved = dict(zip(LockForResize.default_provides, recorded, strict=True))["moved_volumes"]
    return not_as_moved(moved, recorded[0], services["volumes"], services["volume_attachments"])


RESIZE = FlowKind("resize", 1, build("resize", moves=False), check_undo=check_undo, preview=preview)
MIGRATE = FlowKind("migrate", 1, build("migrate", moves=True), check_undo=check_undo, preview=preview)
