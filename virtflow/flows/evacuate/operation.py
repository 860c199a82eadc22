"""Evacuate an instance from a host that is dead, and was fenced: what it was is made anew on another host.

1. LockForEvacuation        EVACUATING, and a record of what it is; refused unless its host was fenced
2. NotifyStart              its revert tells of a failure
3. HoldMovedVolumes         those that it has: MOVING
4. Accept                   a submitted operation is put down here: it was accepted
5. NextDestination          from here to 14, once more with another host if one fails
6. SelectHost               which host, and why not the others
7. ClaimDestination
8. CheckDestinationPolicy   with its server group
9. LocateOnDestination      whether its disks are there: hosts may share them (locate.py)
10. MakeNewCredentials, ReplaceAttachments: its volumes, by users that the dead host does not know
11. ExportVolumesAnew       each as a segment on its backend's host (volume/export_host.py)
12. RebuildOnDestination    disks, network and domain; nothing runs yet (rebuild.py)
13. TakeOwnership           from here on the dead host, should it be back, leaves the instance alone
14. StartOnDestination      (start.py)
15. ReleaseDeadHost         it holds nothing of it any more
16. FinishEvacuation        ACTIVE
17. PurgeOldCredentials
18. LetMovedVolumesGo       IN_USE
19. NotifyEnd

What the dead host still has is cleaned up when it is back, before it takes any work (clean.py). Until then it is owed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.evacuate import locate, rebuild, start
from virtflow.flows.evacuate.preview import preview
from virtflow.flows.kind import FlowKind
from virtflow.flows.volume.export_host import export_volumes_anew
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.evacuate import FinishEvacuation, LockForEvacuation, ReleaseDeadHost, TakeOwnership
from virtflow.tasks.evacuated_volumes import MakeNewCredentials, PurgeOldCredentials, ReplaceAttachments
from virtflow.tasks.moved_volumes import HoldMovedVolumes, LetMovedVolumesGo
from virtflow.tasks.notifications import NotifyEnd, NotifyStart
from virtflow.tasks.resize import ClaimDestination, NextDestination
from virtflow.tasks.scheduling import SelectHost
from virtflow.tasks.segments import OnHost
from virtflow.tasks.server_groups import CheckDestinationPolicy

_WHAT = ("instance_uuid", "operation", "project", "spec", "ports", "made_by", "references", "secret_refs")


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("evacuate").add(
        LockForEvacuation(),
        NotifyStart("instance.rebuild"),
        HoldMovedVolumes("LockForEvacuation", "NotifyStart"),
        Accept(),
        # What was made on a host that fails is gone before the next one is chosen.
        linear_flow.Flow("rebuild", retry=NextDestination()).add(
            SelectHost(provides=("destination", "alternates")),
            ClaimDestination(),
            CheckDestinationPolicy(),
            OnHost(
                locate.KIND.name,
                name="LocateOnDestination",
                host="destination",
                requires=("instance_uuid", "operation", "made_by", "spec"),
                provides=locate.KIND.outputs,
                guards=(),
            ),
            # Before anybody connects: a host that only seems to be dead writes nothing from here on.
            MakeNewCredentials(),
            ReplaceAttachments(),
            export_volumes_anew(),
            OnHost(
                rebuild.KIND.name,
                name="RebuildOnDestination",
                host="destination",
                requires=(*_WHAT, "kept", "new_volumes", "connections"),
                provides=rebuild.KIND.outputs,
                guards=(),
            ),
            # Before the guest starts: a host that comes back asks whose it is.
            TakeOwnership(),
            OnHost(
                start.KIND.name,
                name="StartOnDestination",
                host="destination",
                requires=("instance_uuid", "operation", "owned"),
                provides=(),
                guards=("StartDomain",),
            ),
        ),
        ReleaseDeadHost(),
        FinishEvacuation(),
        PurgeOldCredentials(),
        LetMovedVolumesGo(),
        NotifyEnd("instance.rebuild"),
    )


def check_undo(operation: Operation, _services: Mapping[str, Any], _results: Mapping[str, Any]) -> str | None:
    """There is nothing to go back to."""
    return "the host that the instance has left was given up" if operation.state == "FINISHED" else None


KIND = FlowKind("evacuate", 1, build, check_undo=check_undo, preview=preview)
