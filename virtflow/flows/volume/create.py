"""Create a volume.

1. ValidateVolumeRequest  resolve type and source; refuse what cannot work
2. ReserveVolumeQuota     charge the project
3. CreateVolumeEntry      the volume's row, CREATING: from here its name is taken
4. MakeEncryptionKey      of an encrypted volume; it lives as long as the volume
5. NotifyVolumeStart      its revert tells of a failure
6. HoldSource             where it is made of a volume or snapshot: nobody writes to that meanwhile
7. Accept                 a submitted operation is put down here: it was accepted
8. NextBackend            from here to 11, once more with another backend if one fails
9. SelectBackend          which backend, and why not the others
10. ClaimBackend          a part of its room
11. CreateOnBackend       the volume itself, as a segment (create_host.py)
12. LetSourceGo
13. CommitVolumeQuota     the reservation becomes use
14. FinishVolume          AVAILABLE
15. NotifyVolumeEnd
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, Preview, operation_inputs
from virtflow.flows.volume import create_host as host
from virtflow.persistence.operations import Operation
from virtflow.persistence.volume_rows import AVAILABLE
from virtflow.tasks.accept import Accept
from virtflow.tasks.volume_choice import ClaimBackend, NextBackend, OnBackend, SelectBackend
from virtflow.tasks.volume_encryption import MakeEncryptionKey
from virtflow.tasks.volume_entries import CreateVolumeEntry, FinishVolume
from virtflow.tasks.volume_holds import HoldSource, LetSourceGo
from virtflow.tasks.volume_notifications import NotifyVolumeEnd, NotifyVolumeStart
from virtflow.tasks.volume_quota import CommitVolumeQuota, ReserveVolumeQuota
from virtflow.tasks.volume_request import SNAPSHOT, VOLUME, ValidateVolumeRequest, source_kind


def shape(inputs: Mapping[str, Any]) -> bool:
    """Whether it is made of a volume or snapshot."""
    return source_kind(inputs["request"]) in (SNAPSHOT, VOLUME)


def build(copied: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("volume-create").add(
        ValidateVolumeRequest(),
        # Quota before the row: a name must not be taken by what the project may not have.
        ReserveVolumeQuota(),
        CreateVolumeEntry(),
        # After the row, which owns it.
        MakeEncryptionKey(),
        # After the row, of which it tells.
        NotifyVolumeStart("volume.create"),
        *([HoldSource()] if copied else []),
        Accept(),
        # What was made on a backend that fails is gone before the next one is chosen.
        linear_flow.Flow("make", retry=NextBackend()).add(
            SelectBackend(),
            # Others choose at the same time: the room is this volume's only once it is claimed.
            ClaimBackend(),
            OnBackend(host.KIND.name, name="CreateOnBackend", requires=("spec", "volume_id", "operation")),
        ),
        *([LetSourceGo()] if copied else []),
        # Only what is there is charged for good.
        CommitVolumeQuota(),
        FinishVolume(),
        NotifyVolumeEnd("volume.create"),
    )


def inputs(operation: Operation) -> dict[str, Any]:
    """The volume's id follows from the operation: every execution makes the same volume."""
    return operation_inputs(operation) | {"volume_id": volume_id(operation.id)}


def volume_id(operation: str) -> str:
    return str(uuid.uuid5(uuid.UUID(operation), "volume"))


def check_undo(operation: Operation, services: Mapping[str, Any], _results: Mapping[str, Any]) -> str | None:
    """A volume that somebody uses, or of which snapshots were taken, is not taken back by undoing its creation."""
    from virtflow.errors import NotFound

    identity = volume_id(operation.id)
    try:
        volume = services["volumes"].get(identity)
    except NotFound:
        return "its volume is gone"
    if volume.deleted_at is not None:
        return "its volume was deleted"
    if volume.state != AVAILABLE:
        return f"its volume is {volume.state}"
    return "snapshots were taken of its volume" if services["volume_snapshots"].ever(volume=identity) else None


def preview(inputs: Mapping[str, Any], services: Mapping[str, Any]) -> Preview:
    """What it would make."""
    names = ("image_source", "volumes", "volume_snapshots", "volume_types")
    task = ValidateVolumeRequest()
    spec = task.execute(inputs["request"], inputs["project"], **{name: services[name] for name in names})
    return Preview((("volume", f"{spec['name']} ({spec['size_gib']} GiB)"),), results={"spec": spec})


KIND = FlowKind(
    "volume-create",
    1,
    build,
    shape=shape,
    inputs=inputs,
    check_undo=check_undo,
    undone_with_it=("volume-extend",),
    preview=preview,
    shapes=(False, True),
)
