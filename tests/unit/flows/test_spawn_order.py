"""What comes before what in a spawn, in every shape of its graphs: each order avoids a race."""

from __future__ import annotations

from collections.abc import Hashable

import networkx
import pytest

from virtflow.engine.taskflow_engine import Template
from virtflow.flows.spawn import host, operation


def order(kind: object, shape: Hashable) -> dict[str, set[str]]:
    """Everything that a task waits for, by task."""
    graph = Template(kind.build(shape)).compilation.execution_graph  # type: ignore[attr-defined]
    names = {node: getattr(node, "name", str(node)) for node in graph}
    return {names[node]: {names[each] for each in networkx.ancestors(graph, node)} for node in graph}


@pytest.mark.parametrize("grouped", operation.KIND.shapes)
def test_quota_comes_before_the_entry_and_the_entry_before_everything_else(grouped: Hashable) -> None:
    waits = order(operation.KIND, grouped)
    assert "ReserveQuota" in waits["CreateInstanceEntry"]
    for later in ("NotifyStart", "StashSecrets", "Accept", "ClaimHost", "SpawnOnHost"):
        assert "CreateInstanceEntry" in waits[later]
    assert {"SpawnOnHost"} <= waits["CommitQuota"] & waits["FinishInstance"] & waits["NotifyEnd"]


def test_a_groups_policy_is_checked_between_claim_and_host() -> None:
    waits = order(operation.KIND, operation.Shape(grouped=True))
    assert "ClaimHost" in waits["CheckGroupPolicy"]
    assert "CheckGroupPolicy" in waits["SpawnOnHost"]
    assert "CheckGroupPolicy" not in order(operation.KIND, operation.Shape())


def test_volumes_are_held_reserved_and_exported_before_a_host_connects_and_connected_before_the_domain() -> None:
    waits = order(operation.KIND, operation.Shape(volumes=True))
    assert {"HoldVolumes", "ClaimHost"} <= waits["ReserveAttachments"]
    assert {"ReserveAttachments", "MakeCredentialsOfAll", "ExportVolumes"} <= waits["SpawnOnHost"]
    assert "SpawnOnHost" in waits["LetVolumesGo"]
    boots = next(shape for shape in host.KIND.shapes if shape.disks.volumes)
    assert "ConnectVolumes" in order(host.KIND, boots)["DefineDomain"]
    assert not {"FetchBase", "SizeBase", "CreateCowOverlay"} & order(host.KIND, boots).keys()


@pytest.mark.parametrize("shape", host.KIND.shapes)
def test_cables_and_filters_are_there_before_the_domain_and_the_domain_before_its_start(shape: host.HostShape) -> None:
    waits = order(host.KIND, shape)
    assert {"PlugVifs", "AllocatePorts", "MakeInstanceDir", "BuildConfigDrive"} <= waits["DefineDomain"]
    start = "StartDomainPaused" if shape.vif_events else "StartDomain"
    assert {"DefineDomain", "PlugVifs"} <= waits[start]
    assert start in waits["WaitRunning"]


@pytest.mark.parametrize("shape", host.KIND.shapes)
def test_events_are_expected_before_plugging_and_waited_for_before_resuming(shape: host.HostShape) -> None:
    waits = order(host.KIND, shape)
    if not shape.vif_events:
        assert not {"ExpectVifEvents", "WaitVifPlugged", "ResumeDomain"} & waits.keys()
        return
    assert "ExpectVifEvents" in waits["PlugVifs"]
    assert "StartDomainPaused" in waits["WaitVifPlugged"]
    assert "WaitVifPlugged" in waits["ResumeDomain"]
    assert "ResumeDomain" in waits["WaitRunning"]


@pytest.mark.parametrize("shape", host.KIND.shapes)
def test_disks_network_and_config_drive_do_not_wait_for_each_other(shape: host.HostShape) -> None:
    waits = order(host.KIND, shape)
    disks = {"FetchBase", "FetchDelta", "SizeBase", "CreateCowOverlay", "CreateFlatDisk", "CreateSnapshotDisk"}
    network = {"AllocatePorts", "PlugVifs", "BuildConfigDrive"}
    for task in disks & waits.keys():
        assert not waits[task] & network
    for task in network:
        assert not waits[task] & disks
