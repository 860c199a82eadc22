"""The operations on volumes, as scenarios for the sweep. Guests are stopped: what a running one does is for tests of
their own, because the guest that costs nothing lets go of nothing either."""

from __future__ import annotations

from dataclasses import replace

from virtflow.engine.child_operations import child_id
from virtflow.engine.runner import Runner
from virtflow.flows.resize.destination import DestinationShape
from virtflow.flows.resize.source import SourceShape
from virtflow.flows.spawn.disks import DiskShape
from virtflow.flows.spawn.host import HostShape
from virtflow.flows.spawn.operation import instance_uuid
from virtflow.flows.volume.attach import attachment_id
from virtflow.flows.volume.create import volume_id
from virtflow.flows.volume.create_host import ENCRYPTED_IMAGE
from virtflow.flows.volume.snapshot_create import snapshot_id
from virtflow.persistence.secrets import SecretStore
from virtflow.requests import (
    DeleteRequest,
    ResizeRequest,
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    SpawnRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)
from virtflow.tasks.spawn_volumes import spawned_attachment_id
from virtflow.tasks.volume_encryption import KEY
from virtflow.tasks.volume_request import BLANK, IMAGE, SNAPSHOT
from virtflow.testing import scenarios
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep_cases import tasks_of
from virtflow.testing.throwaway_host import IMAGE as HALTING

_INSTANCE = "swept"


def _make_volume(runner: Runner) -> None:
    runner.run(VolumeCreateRequest(name="v", size_gib=1))


def _make_encrypted_volume(runner: Runner) -> None:
    runner.run(VolumeCreateRequest(name="v", size_gib=1, encrypted=True))


def _take_snapshot(runner: Runner) -> None:
    runner.run(SnapshotCreateRequest(name="s", volume="v"))


def _make_snapshot(runner: Runner) -> None:
    _make_volume(runner)
    _take_snapshot(runner)


def _make_stopped_guest(runner: Runner) -> None:
    _make_volume(runner)
    runner.run(SpawnRequest(name=_INSTANCE, image=HALTING, vcpus=1, memory_mib=32, disk_gib=1))
    instance = runner.services["instances"].find(_INSTANCE, runner.config.project)
    runner.services["hypervisor"].destroy(instance.uuid)


def _make_attached(runner: Runner) -> None:
    _make_stopped_guest(runner)
    runner.run(VolumeAttachRequest(name="v", instance=_INSTANCE))


def _make_two(runner: Runner) -> None:
    """One to boot from."""
    runner.run(VolumeCreateRequest(name="root", size_gib=1, image=HALTING))
    _make_volume(runner)


def _spawn_from_volume() -> SpawnRequest:
    return SpawnRequest(name=_INSTANCE, boot_volume="root", volumes=["v"], vcpus=1, memory_mib=32)


def _spawn_of_image() -> SpawnRequest:
    return SpawnRequest(name=_INSTANCE, image=HALTING, boot_volume_gib=1, delete_volume=True, vcpus=1, memory_mib=32)


def _spawn_with_own_volume(runner: Runner) -> None:
    runner.run(_spawn_of_image())


def _spawn_with_volumes(runner: Runner) -> None:
    _make_two(runner)
    runner.run(_spawn_from_volume())


def _identities(operation: str) -> dict[str, str]:
    return {
        operation: "<operation>",
        volume_id(operation): "<volume>",
        SecretStore.reference(volume_id(operation), KEY): "<key>",
        SecretStore.reference(snapshot_id(operation), KEY): "<key of the snapshot>",
        snapshot_id(operation): "<snapshot>",
        attachment_id(operation): "<attachment>",
        instance_uuid(operation): "<instance>",
        child_id(operation, "boot-volume"): "<operation of the volume>",
        child_id(operation, "delete-volume/0"): "<operation that deletes it>",
        volume_id(child_id(operation, "boot-volume")): "<volume of the instance>",
        **{spawned_attachment_id(operation, number): f"<attachment {number}>" for number in range(2)},
    }


def _names(*scenarios: Scenario) -> frozenset[str]:
    return frozenset(swept.task for scenario in scenarios for swept in tasks_of(scenario))


_TOLD = frozenset(("NotifyVolumeStart", "NotifyVolumeEnd"))
"""What is told is swept once."""

CREATE_FROM_IMAGE = Scenario(
    kind="volume-create",
    request=lambda: VolumeCreateRequest(name="w", size_gib=1, image=HALTING),
    identities=_identities,
    shapes={"volume-create.host": IMAGE},
)
CREATE_ENCRYPTED = Scenario(
    kind="volume-create",
    request=lambda: VolumeCreateRequest(name="w", size_gib=1, image=HALTING, encrypted=True),
    identities=_identities,
    shapes={"volume-create.host": ENCRYPTED_IMAGE},
    besides=_names(CREATE_FROM_IMAGE) - {"MakeEncryptionKey"},
)
CREATE_BLANK = Scenario(
    kind="volume-create",
    request=lambda: VolumeCreateRequest(name="w", size_gib=1),
    identities=_identities,
    shapes={"volume-create.host": BLANK},
    besides=_names(CREATE_FROM_IMAGE),
)
CREATE_FROM_SNAPSHOT = Scenario(
    kind="volume-create",
    request=lambda: VolumeCreateRequest(name="w", snapshot="s"),
    prepare=_make_snapshot,
    identities=_identities,
    shapes={"volume-create.host": SNAPSHOT},
    besides=_names(CREATE_FROM_IMAGE),
)
DELETE = Scenario(
    kind="volume-delete",
    request=lambda: VolumeDeleteRequest(name="v"),
    prepare=_make_volume,
    identities=_identities,
    besides=_TOLD,
)
ATTACH = Scenario(
    kind="volume-attach",
    request=lambda: VolumeAttachRequest(name="v", instance=_INSTANCE),
    prepare=_make_stopped_guest,
    identities=_identities,
    besides=_TOLD,
)
DETACH = Scenario(
    kind="volume-detach",
    request=lambda: VolumeDetachRequest(name="v"),
    prepare=_make_attached,
    identities=_identities,
    besides=_TOLD,
)
EXTEND = Scenario(
    kind="volume-extend",
    request=lambda: VolumeExtendRequest(name="v", size_gib=2),
    prepare=_make_attached,
    identities=_identities,
    besides=_TOLD,
)
SNAPSHOT_CREATE = Scenario(
    kind="volume-snapshot-create",
    request=lambda: SnapshotCreateRequest(name="t", volume="v"),
    prepare=_make_encrypted_volume,
    identities=_identities,
    besides=_TOLD,
)
SNAPSHOT_DELETE = Scenario(
    kind="volume-snapshot-delete",
    request=lambda: SnapshotDeleteRequest(name="s"),
    prepare=_make_snapshot,
    identities=_identities,
    besides=_names(DELETE),
)
_OF_VOLUMES = frozenset(
    ("TakeVolumes", "DisconnectVolumes", "UnexportVolumes", "UnexportVolume", "DropAttachments", "GiveVolumesBack")
)
SPAWN = Scenario(
    kind="spawn",
    request=_spawn_from_volume,
    prepare=_make_two,
    identities=_identities,
    shapes={"spawn.host": HostShape(DiskShape(root=False, volumes=True), vif_events=False, injection=False)},
    besides=_names(scenarios.SPAWN),
)
SPAWN_OF_IMAGE = Scenario(
    kind="spawn",
    request=_spawn_of_image,
    identities=_identities,
    shapes={"spawn.host": HostShape(DiskShape(root=False, volumes=True), vif_events=False, injection=False)},
    besides=_names(scenarios.SPAWN, SPAWN),
)
DELETE_WITH_VOLUME = Scenario(
    kind="delete",
    request=lambda: DeleteRequest(name=_INSTANCE),
    prepare=_spawn_with_own_volume,
    identities=_identities,
    shapes={"delete.host": True},
    besides=_names(scenarios.DELETE) - {"DeleteVolumes"},
)
INSTANCE_DELETE = Scenario(
    kind="delete",
    request=lambda: DeleteRequest(name=_INSTANCE),
    prepare=_spawn_with_volumes,
    identities=_identities,
    shapes={"delete.host": True},
    besides=_names(scenarios.DELETE) - _OF_VOLUMES,
)
RESIZE = Scenario(
    kind="resize",
    request=lambda: ResizeRequest(name=_INSTANCE, vcpus=2),
    make_runner=scenarios.RESIZE.make_runner,
    prepare=_spawn_with_volumes,
    identities=_identities,
    early_failure="EnterResizeMigrating",
    absent=scenarios.RESIZE.absent,
    shapes={
        "resize.source": SourceShape(stays=True, volumes=True),
        "resize.destination": DestinationShape(stays=True, volumes=True),
    },
    besides=_names(scenarios.RESIZE) - scenarios.OF_MOVED_VOLUMES,
)
PURGE = Scenario(
    kind="volume-purge",
    request=lambda: VolumeDeleteRequest(name="v"),
    identities=_identities,
    purge=_make_volume,
)
PURGE_SNAPSHOT = replace(
    PURGE,
    request=lambda: SnapshotDeleteRequest(name="s"),
    prepare=_make_encrypted_volume,
    purge=_take_snapshot,
)
UNDO_RESIZE = replace(RESIZE, undo=True)
UNDO_DELETE = replace(DELETE, undo=True)
UNDO_ATTACH = replace(ATTACH, undo=True)
UNDO_DETACH = replace(DETACH, undo=True)
