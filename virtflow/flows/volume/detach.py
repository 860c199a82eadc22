"""Detach a volume from its instance, running or not.

1. HoldVolume           DETACHING
2. FindAttachment
3. HoldInstance         nothing else is done with the instance meanwhile
4. NotifyVolumeStart    its revert tells of a failure
5. Accept
6. DetachOnHost         out of the guest, then out of the definition, as a segment on its host (detach_host.py)
7. UnexportOnBackend    as a segment on the backend's host (export_host.py)
8. DropAttachment       only what no guest has any more may be given to another
9. LetVolumeGo          AVAILABLE
10. LetInstanceGo
11. NotifyVolumeEnd
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.volume import detach_host, export_host
from virtflow.persistence import volume_rows as states
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_attach import (
    DETACHING,
    DropAttachment,
    FindAttachment,
    HoldInstance,
    LetInstanceGo,
    not_there,
)
from virtflow.tasks.volume_holds import HoldVolume, LetVolumeGo
from virtflow.tasks.volume_notifications import NotifyVolumeEnd, NotifyVolumeStart


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-detach").add(
        HoldVolume(states.DETACHING, (states.IN_USE,)),
        FindAttachment(),
        HoldInstance(DETACHING),
        NotifyVolumeStart("volume.detach"),
        Accept(),
        OnHost(
            detach_host.KIND.name,
            name="DetachOnHost",
            host="instance_host",
            requires=("volume_id", "instance_uuid", "attachment", "operation"),
            provides=(),
        ),
        OnHost(
            export_host.UNEXPORT.name,
            name="UnexportOnBackend",
            requires=("volume", "attachment", "operation"),
            provides=(),
        ),
        DropAttachment(),
        LetVolumeGo(states.DETACHING, states.AVAILABLE, before=states.IN_USE),
        LetInstanceGo(DETACHING),
        NotifyVolumeEnd("volume.detach"),
    )


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """It goes back to the guest where that was when it was taken from it."""
    recorded = results.get("FindAttachment")
    if recorded is None or operation.state != "FINISHED":
        return None
    return not_there(recorded[1], recorded[2], services["instances"])


KIND = FlowKind("volume-detach", 1, build, check_undo=check_undo)
