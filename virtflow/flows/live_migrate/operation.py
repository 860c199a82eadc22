"""Move an instance to another host while its guest runs. Until the guest has arrived, it runs on the source.

1. LockForLiveMigration     MIGRATING, where it is and what it is
2. NotifyStart              its revert tells of a failure
3. HoldMovedVolumes         MOVING: nobody extends or detaches one meanwhile
4. StashTransferSecret      with which its config drive is sent
5. Accept                   a submitted operation is put down here: it was accepted
6. InspectOnSource          what the guest runs as, and its disks (inspect.py)
7. NextDestination          from here to 15, once more with another host if one fails; the guest runs meanwhile
8. SelectHost               which host, and why not the others
9. ClaimDestination         what it holds of its present host stays
10. PrepareOnDestination    checks, directory, bases (prepare.py)
11. SendFromSource          what libvirt will not take along (send.py)
12. MakeArrivingCredentials of the volumes that only the destination needs a server for
13. ExportArriving          each on its backend's host (volume/export_host.py)
14. CollectConnections      how the destination reaches each volume
15. LandOnDestination       empty disks, taps, volumes (land.py)
16. PurgeSecrets
17. StayOrGo                from here on there are two ends: the guest has stayed, and all is taken back; or it has gone
18. LeaveSource             libvirt takes it there (leave.py); a cancel is passed on, and may come too late. Where the
                            source was fenced meanwhile, the destination says whether it has come (find.py)
19. SwitchArrived           the destination has the volumes
20. SwitchHost              the pivot: the instance is where its guest is; what failed from here on is tried again
21. UnexportOnBackends      volumes of the destination's own, each on its backend's host (unexport.py)
22. PurgeUnused             the passwords of these
23. LetArrivedGo            IN_USE
24. NotifyArrived

What is left on the source is cleaned up by an operation of its own (leftover.py), which only goes forward. So a live
migration is not undone once it has succeeded: another one brings the guest back.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.live_migrate import find, inspect, land, leave, prepare, send, unexport
from virtflow.flows.live_migrate.preview import preview
from virtflow.flows.volume import export_host
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.live_migrate import (
    LeaveSource,
    LockForLiveMigration,
    NotifyArrived,
    PerDestination,
    StayOrGo,
    SwitchHost,
)
from virtflow.tasks.live_migrate_volumes import (
    ExportArriving,
    LetArrivedGo,
    MakeArrivingCredentials,
    PurgeUnused,
    SwitchArrived,
    UnexportOnBackends,
)
from virtflow.tasks.moved_volumes import CollectConnections, HoldMovedVolumes
from virtflow.tasks.notifications import NotifyStart
from virtflow.tasks.resize import ClaimDestination, NextDestination
from virtflow.tasks.scheduling import SelectHost
from virtflow.tasks.secrets import PurgeSecrets
from virtflow.tasks.segments import OnHost
from virtflow.tasks.transfer import StashTransferSecret

_ACTION = "instance.live_migrate"
_WHERE = ("instance_uuid", "operation", "source_host", "destination")
_KNOWING = (leave.KIND.name, find.KIND.name)
"""The segments whose end says that the guest has arrived."""


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("live-migrate").add(
        LockForLiveMigration(),
        NotifyStart(_ACTION),
        HoldMovedVolumes("LockForLiveMigration", "NotifyStart"),
        StashTransferSecret(),
        Accept(),
        OnHost(
            inspect.KIND.name,
            name="InspectOnSource",
            host="source_host",
            requires=("instance_uuid", "spec", "ports"),
            provides=inspect.KIND.outputs,
            guards=(),
        ),
        linear_flow.Flow("prepare", retry=NextDestination()).add(
            SelectHost(provides=("destination", "alternates")),
            ClaimDestination(),
            OnHost(
                prepare.KIND.name,
                name="PrepareOnDestination",
                host="destination",
                requires=(*_WHERE, "request", "spec", "source", "disks", "transfer_secret"),
                provides=prepare.KIND.outputs,
                guards=(),
            ),
            PerDestination(
                send.KIND.name,
                name="SendFromSource",
                host="source_host",
                requires=("instance_uuid", "operation", "disks", "landing", "receiver", "transfer_secret"),
                provides=send.KIND.outputs,
                guards=(),
            ),
            # After all that a host may refuse for: until here nobody else was let near the volumes.
            MakeArrivingCredentials(*_KNOWING),
            ExportArriving(export_host.EXPORT_MOVED.name, *_KNOWING),
            CollectConnections(),
            OnHost(
                land.KIND.name,
                name="LandOnDestination",
                host="destination",
                requires=(*_WHERE, "ports", "disks", "bases", "landing", "sent", "moved_volumes", "connections"),
                provides=land.KIND.outputs,
                guards=(),
            ),
        ),
        PurgeSecrets(),
        linear_flow.Flow("go", retry=StayOrGo(*_KNOWING)).add(
            LeaveSource(
                leave.KIND.name,
                found=find.KIND.name,
                name="LeaveSource",
                host="source_host",
                requires=(
                    *(*_WHERE, "request", "landing", "targets", "kernel", "ramdisk"),
                    *("moved_volumes", "volume_disks"),
                ),
                provides=leave.KIND.outputs,
            ),
            # At once: whoever is asked for the instance is sent to where it runs.
            SwitchArrived(),
            SwitchHost(),
            # Before the volumes are let go: what is served then may be another instance's.
            UnexportOnBackends(unexport.KIND.name),
            PurgeUnused(),
            LetArrivedGo(),
            NotifyArrived(_ACTION),
        ),
    )


def check_undo(_operation: Operation, _services: Mapping[str, Any], _results: Mapping[str, Any]) -> str | None:
    """There is nothing to go back to: what the guest had on its old host is out of date, and is removed."""
    return "its guest runs on the other host, and what it had here is gone: live-migrate it back"


KIND = FlowKind("live-migrate", 1, build, check_undo=check_undo, preview=preview)
