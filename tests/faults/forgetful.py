"""Spawns in which one task forgets to revert: ``WITHOUT_DefineDomain`` and so on. A sweep has to notice each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from virtflow.engine.runner import Runner
from virtflow.tasks import (
    blank_disks,
    disks,
    domain,
    images,
    instances,
    network,
    placement,
    quota,
    root_disks,
    server_groups,
    vif_events,
)
from virtflow.tasks.base import Task
from virtflow.tasks.segments import OnHost
from virtflow.testing.scenario import Scenario
from virtflow.testing.scenarios import RICH_SPAWN, SPAWN, TOLD_SPAWN
from virtflow.testing.sweep_cases import Case
from virtflow.testing.throwaway_host import ThrowawayHost


@dataclass(frozen=True)
class Forgotten:
    """What the audit finds when a task forgets, and a spawn that has the task."""

    finding: str
    scenario: Scenario = SPAWN


TASKS: dict[type[Task], Forgotten] = {
    quota.ReserveQuota: Forgotten("quota"),
    instances.CreateInstanceEntry: Forgotten("instance"),
    server_groups.JoinServerGroup: Forgotten("member", RICH_SPAWN),
    placement.ClaimHost: Forgotten("allocation"),
    OnHost: Forgotten("domain"),
    disks.MakeInstanceDir: Forgotten("directory"),
    images.FetchBase: Forgotten("base_reference"),
    images.SizeBase: Forgotten("base_reference"),
    root_disks.FetchDelta: Forgotten("base_reference", TOLD_SPAWN),
    blank_disks.CreateEphemerals: Forgotten("base_reference", RICH_SPAWN),
    blank_disks.CreateSwap: Forgotten("base_reference", RICH_SPAWN),
    network.AllocatePorts: Forgotten("port"),
    network.PlugVifs: Forgotten("tap"),
    domain.DefineDomain: Forgotten("domain"),
    domain.StartDomain: Forgotten("domain", RICH_SPAWN),
    vif_events.StartDomainPaused: Forgotten("domain"),
}
"""Those whose revert nobody else makes up for."""

MADE_UP_FOR = {
    "CreateCowOverlay": "MakeInstanceDir removes the directory with all that is in it",
    "CreateFlatDisk": "MakeInstanceDir",
    "CreateSnapshotDisk": "MakeInstanceDir",
    "InjectFiles": "MakeInstanceDir",
    "BuildConfigDrive": "MakeInstanceDir",
    "FetchSnapshotBase": "has FetchBase's",
    "FetchKernel": "has FetchBase's",
    "FetchRamdisk": "has FetchBase's",
    "ExpectVifEvents": "the events go with the ports",
    "StashSecrets": "the engine purges the secrets of whatever has ended",
    "Accept": "makes nothing",
    "NotifyStart": "tells of the failure: tests/functional/test_spawn_control.py",
    "NotifyEnd": "makes nothing",
    "CommitQuota": "ReserveQuota removes the charge in whatever state",
    "FinishInstance": "CreateInstanceEntry removes the row",
    "EnterNetworking": "CreateInstanceEntry",
    "EnterBlockDeviceMapping": "CreateInstanceEntry",
    "EnterSpawning": "CreateInstanceEntry",
    "PurgeSecrets": "cannot be taken back, and need not",
    "ValidateRequest": "makes nothing",
    "NextHost": "makes nothing",
    "SelectHost": "makes nothing",
    "CheckGroupPolicy": "makes nothing",
    "ResolveHardware": "makes nothing",
    "BuildDomainXml": "makes nothing",
    "WaitVifPlugged": "makes nothing",
    "ResumeDomain": "makes nothing",
    "WaitRunning": "makes nothing",
}
"""All others of a spawn, and why nothing is left when they forget."""


def __getattr__(name: str) -> Scenario:
    for task, forgotten in TASKS.items():
        if name == f"WITHOUT_{task.__name__}":
            make = partial(_runner, task, forgotten.scenario)
            return replace(forgotten.scenario, before=_begin_to_forget, make_runner=make)
    raise AttributeError(name)


def _begin_to_forget(host: ThrowawayHost, _case: Case) -> None:
    """The run in peace, which is what cases are measured by, is over."""
    (host.root / "forget").touch()


def _runner(task: Any, scenario: Scenario, host: ThrowawayHost) -> Runner:
    if (host.root / "forget").exists():
        task.revert = lambda _self, **_arguments: None
    return scenario.make_runner(host)
