"""Spawn an instance.

1. ValidateRequest      resolve image, flavor and networks; refuse what cannot work
2. ReserveQuota         charge the project
3. CreateInstanceEntry  the instance's row, BUILDING: from here its name is taken
4. NotifyStart          its revert tells of a failure
5. JoinServerGroup      where the request names a server group
6. StashSecrets         references to what must not be in the store
7. HoldVolumes          where the request names volumes: ATTACHING, for nobody else
8. Accept               a submitted operation is put down here: it was accepted
9. CreateBootVolume     where the volume to boot from is made of the image; HoldVolumes comes after it then
10. NextHost            from here to 17, once more with another host if one fails
11. SelectHost          which host, and why not the others
12. ClaimHost           a part of the host's inventory
13. CheckGroupPolicy    where there is a server group: does the claimed host suit it?
14. ReserveAttachments  where there are volumes: the rows that keep other hosts out
15. MakeCredentialsOfAll, with the passwords of the claimed host
16. ExportVolumes       each as a segment on its backend's host (volume/export_host.py)
17. SpawnOnHost         everything on the host, as a segment (host.py)
18. CommitQuota         the reservation becomes use
19. LetVolumesGo        where there are volumes: IN_USE
20. FinishInstance      ACTIVE
21. PurgeSecrets        the guest has them
22. NotifyEnd
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.spawn import host
from virtflow.flows.spawn.preview import preview
from virtflow.flows.volume.export_host import export_volumes
from virtflow.persistence.operations import FINISHED, Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.boot_volume import CreateBootVolume
from virtflow.tasks.instances import CreateInstanceEntry, FinishInstance
from virtflow.tasks.notifications import NotifyEnd, NotifyStart
from virtflow.tasks.placement import ClaimHost
from virtflow.tasks.quota import CommitQuota, ReserveQuota
from virtflow.tasks.request import ValidateRequest
from virtflow.tasks.scheduling import NextHost, SelectHost
from virtflow.tasks.secrets import PurgeSecrets, StashSecrets
from virtflow.tasks.segments import OnHost
from virtflow.tasks.server_groups import CheckGroupPolicy, JoinServerGroup
from virtflow.tasks.spawn_volumes import (
    HoldVolumes,
    LetVolumesGo,
    MakeCredentialsOfAll,
    ReserveAttachments,
)


@dataclass(frozen=True)
class Shape:
    """What decides the graph: whether there is a server group, volumes, and one of them that is made for it."""

    grouped: bool = False
    volumes: bool = False
    made: bool = False


def shape(inputs: Mapping[str, Any]) -> Shape:
    """From the request alone, also one of a version that knew no volumes."""
    request = inputs["request"]
    made = bool(request.get("boot_volume_gib"))
    volumes = made or bool(request.get("volumes") or request.get("boot_volume"))
    return Shape(request["server_group"] is not None, volumes, made)


def build(wanted: Hashable) -> Flow:
    """The parent flow."""
    assert isinstance(wanted, Shape)
    grouped = wanted.grouped
    spec = "placed_spec" if wanted.made else "spec"
    placed = {"spec": spec}
    exporting = [ReserveAttachments(), MakeCredentialsOfAll(), export_volumes()] if wanted.volumes else []
    reached = ("spawn_volumes", "connections") if wanted.volumes else ()
    return linear_flow.Flow("spawn").add(
        ValidateRequest(),
        # Quota before the row: a name must not be taken by what the project may not have.
        ReserveQuota(),
        CreateInstanceEntry(),
        # After the row, of which it tells, and before everything whose failure it has to tell of.
        NotifyStart("instance.create"),
        *([JoinServerGroup()] if grouped else []),
        StashSecrets(),
        *([HoldVolumes()] if wanted.volumes and not wanted.made else []),
        Accept(),
        # It takes as long as the image is large: nobody who submits it waits for that.
        *([CreateBootVolume(), HoldVolumes(rebind=placed, revert_rebind=placed)] if wanted.made else []),
        # What was made on a host that fails is gone before the next one is chosen.
        linear_flow.Flow("build", retry=NextHost(spec=spec)).add(
            SelectHost(rebind=placed),
            # Others choose at the same time: the host is this instance's only once it is claimed.
            ClaimHost(),
            # Only now: members that look for hosts at the same time see each other by what they have claimed.
            *([CheckGroupPolicy()] if grouped else []),
            # Before anybody connects it is written down who will have them, and how they are reached.
            *exporting,
            OnHost(
                host.KIND.name,
                name="SpawnOnHost",
                requires=("spec", "instance_uuid", "operation", "project", "secret_refs", *reached),
                provides=(),
                guards=("StartDomain", "StartDomainPaused"),
            ),
        ),
        # Only what runs is charged for good.
        CommitQuota(),
        *([LetVolumesGo()] if wanted.volumes else []),
        FinishInstance(),
        PurgeSecrets(),
        NotifyEnd("instance.create"),
    )


def inputs(operation: Operation) -> dict[str, Any]:
    """The instance's uuid follows from the operation: every execution makes the same instance."""
    return operation_inputs(operation) | {"instance_uuid": instance_uuid(operation.id)}


def instance_uuid(operation: str) -> str:
    return str(uuid.uuid5(uuid.UUID(operation), "instance"))


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """An instance that is being changed, that is gone, or that has other volumes than it was made with, is not taken
    back by undoing its spawn; nor is a volume that was made for it and has snapshots."""
    from virtflow.errors import NotFound

    try:
        instance = services["instances"].get(instance_uuid(operation.id))
    except NotFound:
        return "its instance is gone"
    if instance.deleted_at is not None:
        return "its instance was deleted"
    return _of_volumes(instance.uuid, services, results) if operation.state == FINISHED else None


def _of_volumes(instance: str, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    spawned = {each["attachment_id"]: each["name"] for each in results.get("HoldVolumes", ())}
    attached = {each.id: each.volume for each in services["volume_attachments"].list(instance=instance)}
    for identity, name in spawned.items():
        if identity not in attached:
            return f"volume {name} was detached from its instance"
    for identity, volume in attached.items():
        if identity not in spawned:
            return f"volume {services['volumes'].get(volume).name} was attached to its instance"
    made = results["CreateBootVolume"]["volumes"][0] if "CreateBootVolume" in results else None
    if made is not None and services["volume_snapshots"].ever(volume=made["id"]):
        return f"snapshots were taken of its volume {made['name']}"
    return None


KIND = FlowKind(
    "spawn",
    1,
    build,
    shape=shape,
    inputs=inputs,
    check_undo=check_undo,
    preview=preview,
    shapes=(Shape(), Shape(grouped=True, volumes=True), Shape(volumes=True, made=True)),
)
