"""Whatever breaks in an evacuation: the instance runs on its new host alone, or is the dead host's as before.

Every task of it: its worker is killed before or after it and restarted, or the task fails; and every task of the
cleanup on the host that is back. Usually each ``EVERY``-th case is tried; VIRTFLOW_WHOLE_SWEEP=1 takes them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.conftest import missing
from tests.faults.test_workers import never_twice
from tests.functional.test_evacuate import domains, instance, power_cut, spawned
from virtflow.flows.evacuate import clean_host, locate, rebuild, start
from virtflow.flows.evacuate.rebuild import RebuildShape
from virtflow.flows.kind import FlowKind
from virtflow.flows.spawn.disks import DiskShape
from virtflow.requests import DeleteRequest, EvacuateRequest
from virtflow.testing.fleet import Fleet, await_

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EVERY = 9
SEGMENTS: list[tuple[FlowKind, Any]] = [
    (locate.KIND, None),
    (rebuild.KIND, RebuildShape(DiskShape(swap=True))),
    (start.KIND, None),
]
LONG = 120.0
"""Seconds that an operation may take where others are busy."""
KILLED = ("before:kill", "after:kill")


def tasks_of(kind: FlowKind, shape: Any) -> list[str]:
    return sorted(task.name for task, _data in kind.build(shape).iter_nodes())


TASKS = [name for kind, shape in SEGMENTS for name in tasks_of(kind, shape)]
TASKS += ["TakeOwnership", "ReleaseDeadHost", "FinishEvacuation"]
CASES = [("h2", f"{task}:{how}") for how in (*KILLED, "after:raise") for task in TASKS]
CASES += [("h1", f"{task}:{how}") for how in KILLED for task in tasks_of(clean_host.KIND, None)]
CHOSEN = CASES if os.environ.get("VIRTFLOW_WHOLE_SWEEP") else CASES[::EVERY]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(apart=True) as up:
        yield up


@pytest.mark.parametrize(("host", "fault"), CHOSEN, ids=[f"{host} {fault}" for host, fault in CHOSEN])
def test_an_evacuation_that_breaks_ends_well_or_leaves_the_instance_as_it_was(
    fleet: Fleet, host: str, fault: str
) -> None:
    fleet.start()
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    name = spawned(fleet, swap_mib=4)
    uuid = instance(fleet, name).uuid
    with never_twice(fleet):
        power_cut(fleet, h1)
        if host == "h2":
            h2.stop()
            h2.start(fault)
            fleet.await_registered(h2)
        fleet.client.core.hosts.fence("h1")
        asked = fleet.client.submit(EvacuateRequest(name=name))
        if host == "h2" and fault.endswith("kill"):
            await_(lambda: not h2.alive, "the death of h2's worker", LONG)
            h2.start()
        ended = fleet.wait(asked, LONG)
        if fault.endswith("raise"):
            assert ended.outcome == "REVERTED", ended.error
            assert (instance(fleet, name).host, instance(fleet, name).task_state) == ("h1", None)
            assert name not in h2.guests()
            ended = fleet.wait(fleet.client.submit(EvacuateRequest(name=name)), LONG)
        assert (ended.outcome, ended.debts) == ("SUCCESS", 0), ended.error
        if host == "h1":
            h1.start(fault)
            await_(lambda: not h1.alive, "the death of h1's worker", LONG)
        fleet.start()
        await_(lambda: name not in domains(h1), "the end of what h1 still has of it", LONG)
        assert fleet.settle(LONG) == []
        assert (instance(fleet, name).host, fleet.running()[uuid]) == ("h2", 1)
        assert name in h2.guests()
        assert not (h1.config.instances.path / uuid).exists()
    assert fleet.wait(fleet.client.submit(DeleteRequest(name=name)), LONG).outcome == "SUCCESS"
    h2.stop()  # whatever fault it has not met yet
    assert fleet.settle(LONG) == []
