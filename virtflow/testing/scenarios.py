"""The operations that virtflow ships, as scenarios for the sweep."""

from __future__ import annotations

import shutil
from dataclasses import replace

from pydantic import SecretStr

from virtflow.engine.runner import Runner
from virtflow.flows.resize.destination import DestinationShape
from virtflow.flows.resize.source import SourceShape
from virtflow.flows.spawn.disks import DiskShape
from virtflow.flows.spawn.host import HostShape
from virtflow.flows.spawn.operation import instance_uuid
from virtflow.images.catalog import LocalCatalog
from virtflow.network.addressing import mac_for, tap_name
from virtflow.requests import (
    ConfirmRequest,
    DeleteRequest,
    InjectedFile,
    NetworkRequest,
    ResizeRequest,
    SpawnRequest,
)
from virtflow.requests.disks import EphemeralRequest
from virtflow.tasks.network import port_id
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep_cases import Case, tasks_of
from virtflow.testing.swept_images import SNAPSHOT, add_snapshot
from virtflow.testing.throwaway_host import IMAGE, NETWORK, ThrowawayHost

PASSWORD = "canary-of-the-password-3141"
_GROUP = "swept-group"
USER_DATA = b"#!/bin/sh\necho canary-of-the-user-data-2718\n"
_COLD = (
    *("FetchBase", "SizeBase", "FetchDelta", "FetchSnapshotBase", "FetchKernel", "FetchRamdisk"),
    *("CreateEphemerals", "CreateSwap"),
)
"""Tasks that have work to do only while the image is not in the cache."""


def _spawn_request() -> SpawnRequest:
    return SpawnRequest(
        name="swept",
        image=IMAGE,
        vcpus=1,
        memory_mib=32,
        disk_gib=1,
        networks=[NetworkRequest(network=NETWORK)],
        admin_password=SecretStr(PASSWORD),
        user_data=USER_DATA,
    )


def _rich_request() -> SpawnRequest:
    return SpawnRequest(
        name="swept",
        image=IMAGE,
        vcpus=1,
        memory_mib=32,
        disk_gib=1,
        ephemeral_gib=[EphemeralRequest(size=1)],
        swap_mib=4,
        server_group=_GROUP,
    )


def _told_request() -> SpawnRequest:
    content = b"canary-of-the-file-1618"
    return SpawnRequest(
        name="swept",
        image=SNAPSHOT,
        vcpus=1,
        memory_mib=32,
        disk_gib=1,
        admin_password=SecretStr(PASSWORD),
        files=[InjectedFile(path="/etc/canary", content=content)],
    )


def _injecting_runner(host: ThrowawayHost) -> Runner:
    settings = {"config_drive.force": "False", "injection.partition": "-1", "injection.admin_password": "True"}
    return Runner(host.config(**settings))


def _add_snapshot(runner: Runner) -> None:
    add_snapshot(LocalCatalog(runner.config.images.catalog))


def _runner_with_raw_disks(host: ThrowawayHost) -> Runner:
    return Runner(host.config(**{"instances.disk_backend": "raw"}))


def _make_group(runner: Runner) -> None:
    runner.services["server_groups"].create(_GROUP, runner.config.project_name, "affinity")


def _delete_request() -> DeleteRequest:
    return DeleteRequest(name="swept")


def _spawn_first(runner: Runner) -> None:
    runner.run(_spawn_request())


def _cool_down(host: ThrowawayHost, case: Case) -> None:
    if case.kill_after is not None or any(f"/{task}/" in case.name for task in _COLD):
        shutil.rmtree(host.config().instances.path / "_base", ignore_errors=True)


def _spawn_identities(operation: str) -> dict[str, str]:
    instance = instance_uuid(operation)
    port = port_id(instance, 0)
    return {
        operation: "<operation>",
        instance: "<instance>",
        port: "<port>",
        tap_name(port): "<tap>",
        mac_for(port, 0): "<mac>",
    }


SPAWN = Scenario(
    kind="spawn",
    request=_spawn_request,
    before=_cool_down,
    identities=_spawn_identities,
    secrets=(PASSWORD.encode(), USER_DATA.splitlines()[1]),
    early_failure="DefineDomain",
)
RICH_SPAWN = Scenario(
    kind="spawn",
    request=_rich_request,
    make_runner=_runner_with_raw_disks,
    prepare=_make_group,
    before=_cool_down,
    identities=_spawn_identities,
    early_failure="DefineDomain",
    shapes={"spawn.host": HostShape(DiskShape(overlay=False, ephemerals=True, swap=True), False, False)},
    besides=frozenset(swept.task for swept in tasks_of(SPAWN)),
)
"""Disks of their own kinds, a server group, and no network."""
TOLD_SPAWN = Scenario(
    kind="spawn",
    request=_told_request,
    make_runner=_injecting_runner,
    prepare=_add_snapshot,
    before=_cool_down,
    identities=_spawn_identities,
    secrets=(PASSWORD.encode(), b"canary-of-the-file-1618"),
    early_failure="DefineDomain",
    shapes={"spawn.host": HostShape(DiskShape(delta=True, kernel=True, ramdisk=True), False, True)},
    besides=RICH_SPAWN.besides | {swept.task for swept in tasks_of(RICH_SPAWN)},
)
"""A snapshot of changes with a kernel and a ramdisk, into which is injected what the guest is told."""
UNDO_SPAWN = replace(SPAWN, undo=True)
DELETE = Scenario(
    kind="delete",
    request=_delete_request,
    prepare=_spawn_first,
    secrets=SPAWN.secrets,
    absent=frozenset({"volume-unexport.host"}),
)
UNDO_DELETE = replace(DELETE, undo=True)


def _runner_that_pulls_plugs(host: ThrowawayHost) -> Runner:
    """The guest that halts at once heeds no power button."""
    return Runner(host.config(**{"resize.shutdown_timeout": "0"}))


def _spawn_with_swap(runner: Runner) -> None:
    network = NetworkRequest(network=NETWORK)
    runner.run(
        SpawnRequest(name="swept", image=IMAGE, vcpus=1, memory_mib=32, disk_gib=1, swap_mib=4, networks=[network])
    )


def _resize_request() -> ResizeRequest:
    return ResizeRequest(name="swept", vcpus=2, disk_gib=2)


def _confirm_request() -> ConfirmRequest:
    return ConfirmRequest(name="swept")


def _resize_first(runner: Runner) -> None:
    _spawn_with_swap(runner)
    runner.run(_resize_request())


_SWEPT_ELSEWHERE = frozenset(
    (
        *("NotifyStart", "NotifyEnd", "Accept", "SelectHost", "PurgeSecrets", "DescribeVifs", "RecordDomain"),
        *("ResolveHardware", "BuildDomainXml", "StartDomain", "WaitRunning", "TrashDisks"),
    )
)
"""Tasks that a resize has in common with spawns and deletes."""
OF_MOVED_VOLUMES = frozenset(
    (
        *("HoldMovedVolumes", "MakeMovedCredentials", "ExportMovedVolumes", "CollectConnections"),
        *("SwitchAttachments", "LetMovedVolumesGo"),
    )
)
"""What a resize does with volumes, where there are any."""
RESIZE = Scenario(
    kind="resize",
    request=_resize_request,
    make_runner=_runner_that_pulls_plugs,
    prepare=_spawn_with_swap,
    early_failure="EnterResizeMigrating",
    besides=_SWEPT_ELSEWHERE | OF_MOVED_VOLUMES,
    absent=frozenset({"volume-export.moved"}),
    shapes={"resize.source": SourceShape(stays=True), "resize.destination": DestinationShape(stays=True, swap=True)},
)
"""On one host."""
UNDO_RESIZE = replace(RESIZE, undo=True)
CONFIRM = Scenario(
    kind="resize-confirm",
    request=_confirm_request,
    make_runner=_runner_that_pulls_plugs,
    prepare=_resize_first,
    besides=_SWEPT_ELSEWHERE,
    shapes={"resize.retire": True},
)
