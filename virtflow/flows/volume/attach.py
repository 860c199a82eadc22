"""Attach a volume to an instance, running or not.

1. HoldVolume           ATTACHING: two attaches of one volume exclude each other
2. FindInstance         and its host, which the backend has to serve
3. HoldInstance         nothing else is done with the instance meanwhile
4. ReserveAttachment    the row: from here the database refuses another one
5. MakeCredentials      the password of that host, where it is not the backend's own
6. NotifyVolumeStart    its revert tells of a failure
7. Accept
8. ExportOnBackend      export, and save the connection, as a segment on the backend's host (export_host.py)
9. AttachOnHost         connect and plug in, as a segment on the instance's host (attach_host.py)
10. LetVolumeGo         IN_USE
11. LetInstanceGo
12. NotifyVolumeEnd
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.volume import attach_host, export_host
from virtflow.persistence import volume_rows as states
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_attach import (
    ATTACHING,
    FindInstance,
    HoldInstance,
    LetInstanceGo,
    ReserveAttachment,
    not_there,
)
from virtflow.tasks.volume_exports import MakeCredentials
from virtflow.tasks.volume_holds import HoldVolume, LetVolumeGo
from virtflow.tasks.volume_notifications import NotifyVolumeEnd, NotifyVolumeStart


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-attach").add(
        HoldVolume(states.ATTACHING, (states.AVAILABLE,)),
        FindInstance(),
        HoldInstance(ATTACHING),
        ReserveAttachment(),
        MakeCredentials(),
        NotifyVolumeStart("volume.attach"),
        Accept(),
        OnHost(
            export_host.EXPORT.name,
            name="ExportOnBackend",
            requires=("volume", "attachment_id", "reach", "operation"),
            provides=export_host.EXPORT.outputs,
        ),
        OnHost(
            attach_host.KIND.name,
            name="AttachOnHost",
            host="instance_host",
            requires=("volume_id", "instance_uuid", "attachment_id", "connection", "operation"),
            provides=(),
        ),
        LetVolumeGo(states.ATTACHING, states.IN_USE, before=states.AVAILABLE),
        LetInstanceGo(ATTACHING),
        NotifyVolumeEnd("volume.attach"),
    )


def inputs(operation: Operation) -> dict[str, Any]:
    """The attachment's id follows from the operation."""
    return operation_inputs(operation) | {"attachment_id": attachment_id(operation.id)}


def attachment_id(operation: str) -> str:
    return str(uuid.uuid5(uuid.UUID(operation), "attachment"))


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """It is taken from the guest where that was when it got it."""
    recorded = results.get("FindInstance")
    if recorded is None or operation.state != "FINISHED":
        return None
    found = services["volume_attachments"].of_volume(results["HoldVolume"][0])
    if found is None or found.id != attachment_id(operation.id):
        return "its instance was evacuated"
    return not_there(recorded[0], recorded[1], services["instances"])


KIND = FlowKind("volume-attach", 1, build, inputs=inputs, check_undo=check_undo)
