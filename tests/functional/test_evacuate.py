"""A host dies with its guests; they are made anew on another one, and what it finds when it is back does not run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import missing
from tests.faults.test_workers import never_twice
from virtflow.engine.leaving import Departure, evacuate_host, still_there
from virtflow.errors import Conflict
from virtflow.persistence.instances import GOING_ON
from virtflow.persistence.operations import Operation
from virtflow.requests import EvacuateRequest
from virtflow.testing.fleet import Fleet, FleetHost, await_
from virtflow.testing.networks import call_in

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def _fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(apart=True) as fleet:
        yield fleet


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    _fleet.start()
    with never_twice(_fleet):
        yield _fleet
        _fleet.start()
        assert _fleet.settle() == []


def spawned(fleet: Fleet, host: str = "h1", **fields: Any) -> str:
    request = fleet.small(host=host, **fields)
    done = fleet.wait(fleet.client.submit(request))
    assert done.outcome == "SUCCESS", done.error
    return str(request.name)


def instance(fleet: Fleet, name: str) -> Any:
    return fleet.client.services["instances"].find(name, fleet.client.config.project)


def ports(fleet: Fleet, name: str) -> list[tuple[str, str]]:
    return [(each.address, each.mac) for each in fleet.client.services["networks"].ports(instance(fleet, name).uuid)]


def power_cut(fleet: Fleet, host: FleetHost) -> None:
    """Its worker and its guests are gone at once, and the taps with them."""
    host.kill()
    for pid in host.guests().values():
        os.kill(pid, signal.SIGKILL)
    await_(lambda: not host.guests(), f"the end of {host.name}'s guests")
    assert host.network is not None
    call_in(host.network, lambda: [_cut(name) for name in sorted(os.listdir("/sys/class/net"))])
    hosts = fleet.client.core.hosts
    await_(lambda: hosts.get(host.name).state == "DOWN", f"that {host.name} is down")


def _cut(link: str) -> None:
    if link != "lo":
        os.system(f"ip link delete {link} 2>/dev/null")


def evacuated(fleet: Fleet, host: str = "h1") -> list[Departure]:
    fleet.client.core.hosts.fence(host)
    return evacuate_host(fleet.client, host)


def test_what_a_dead_host_ran_runs_elsewhere_and_what_it_has_is_cleaned_up_when_it_is_back(fleet: Fleet) -> None:
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    names = [spawned(fleet), spawned(fleet, swap_mib=4, ephemeral_gib=[{"size": 1}])]
    before = {name: (instance(fleet, name).uuid, ports(fleet, name)) for name in names}
    quota = fleet.client.services["quotas"].usage(fleet.client.config.project)
    power_cut(fleet, h1)
    # It died while it let this guest go on, and nobody takes that mark away any more.
    fleet.client.services["instances"].compare_and_set(before[names[0]][0], {}, {"task_state": GOING_ON})
    with pytest.raises(Conflict, match="not fenced"):
        evacuate_host(fleet.client, "h1")
    with pytest.raises(Conflict, match="not fenced"):
        fleet.client.submit(EvacuateRequest(name=names[0]))
    gone = evacuated(fleet)
    assert {(each.instance, each.host) for each in gone if each.instance in names} == {(name, "h2") for name in names}
    assert still_there(gone) == []
    for name in names:
        assert name in h2.guests()
        assert (instance(fleet, name).uuid, ports(fleet, name)) == before[name]
        assert instance(fleet, name).vm_state == "ACTIVE"
        held = fleet.client.services["placement"].allocations(consumer=before[name][0])
        assert [each.host for each in held] == ["h2"]
        drive = h2.config.instances.path / before[name][0] / "disk.config"
        assert drive.exists()
    assert fleet.client.services["quotas"].usage(fleet.client.config.project) == quota
    await_(lambda: len(owing(fleet)) == len(names), "that what the dead host owes is there to be seen")
    owed = owing(fleet)
    h1.start()
    fleet.await_registered(h1)
    await_(lambda: all(fleet.over(each) for each in owed), "the end of what h1 owes")
    assert fleet.settle() == []
    for name in names:
        assert name not in domains(h1)
        assert not (h1.config.instances.path / before[name][0]).exists()
        assert {each.host for each in references(fleet, name)} == {"h2"}
    assert trashed(h1) == {before[name][0] for name in names}, "nobody's data is lost by surprise"


def test_a_host_that_is_back_in_the_middle_pulls_the_plug_of_what_is_being_evacuated(fleet: Fleet) -> None:
    """Only its worker was dead: who has fenced it was wrong, and yet nothing runs twice."""
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    name = spawned(fleet)
    h1.kill()
    hosts = fleet.client.core.hosts
    await_(lambda: hosts.get("h1").state == "DOWN", "that h1 is down")
    h2.stop()
    h2.start("DefineDomain:before:sleep=4")
    fleet.await_registered(h2)
    hosts.fence("h1")
    asked = fleet.client.submit(EvacuateRequest(name=name))
    fleet.wait_for_task(asked, "DefineDomain", host="h2")
    assert name in h1.guests()
    h1.start()
    fleet.await_registered(h1)
    ended = fleet.wait(asked)
    assert (ended.outcome, instance(fleet, name).host) == ("REVERTED", "h1")
    assert "not fenced" in str(ended.error)
    assert name not in h1.guests()


@pytest.mark.parametrize("fault", ["DefineDomain:after:raise", "WaitRunning:after:raise"])
def test_an_evacuation_that_fails_leaves_the_instance_to_its_dead_host(fleet: Fleet, fault: str) -> None:
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    name = spawned(fleet)
    uuid = instance(fleet, name).uuid
    power_cut(fleet, h1)
    h2.stop()
    h2.start(fault)
    fleet.await_registered(h2)
    fleet.client.core.hosts.fence("h1")
    # This one alone: what other tests have left on h1 would meet the fault first.
    failed = fleet.wait(fleet.client.submit(EvacuateRequest(name=name)))
    assert (failed.outcome, instance(fleet, name).host) == ("REVERTED", "h1")
    assert (instance(fleet, name).vm_state, instance(fleet, name).task_state) == ("ACTIVE", None)
    assert not (h2.config.instances.path / uuid).exists()
    h2.stop()
    h2.start()
    fleet.await_registered(h2)
    again = fleet.wait(fleet.client.submit(EvacuateRequest(name=name)))
    assert (again.outcome, instance(fleet, name).host) == ("SUCCESS", "h2"), "the next time it goes well"


def test_a_worker_that_is_killed_while_it_evacuates_ends_it_when_it_is_back(fleet: Fleet) -> None:
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    name = spawned(fleet)
    power_cut(fleet, h1)
    h2.stop()
    h2.start("StartDomain:after:kill")
    fleet.await_registered(h2)
    fleet.client.core.hosts.fence("h1")
    asked: Operation = fleet.client.submit(EvacuateRequest(name=name))
    await_(lambda: not h2.alive, "the death of h2's worker")
    h1.start()
    fleet.await_registered(h1)
    h2.start()
    assert fleet.wait(asked).outcome == "SUCCESS"
    assert instance(fleet, name).host == "h2"
    await_(lambda: name not in domains(h1), "the end of what h1 still has of it")


def test_disks_that_hosts_share_are_kept(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(apart=True, **{"instances.path": str(tmp_path / "instances")}) as fleet:
        fleet.start()
        h1 = fleet.hosts["h1"]
        name = spawned(fleet, swap_mib=4)
        uuid = instance(fleet, name).uuid
        disk = tmp_path / "instances" / uuid / "disk"
        power_cut(fleet, h1)
        written = disk.stat().st_ino
        (moved,) = evacuated(fleet)
        assert moved.host == "h2", moved.reason
        assert name in fleet.hosts["h2"].guests()
        assert disk.stat().st_ino == written, "it is the same disk"
        fleet.start()
        assert fleet.settle() == []
        assert disk.exists(), "what h2 has taken over is no business of h1's"
        assert name not in domains(h1)


def owing(fleet: Fleet) -> list[Operation]:
    return [each for each in fleet.client.operations.list(kind="evacuate-clean") if each.state != "FINISHED"]


def domains(host: FleetHost) -> set[str]:
    assert host.config.libvirt.embed_root is not None
    return {path.stem for path in host.config.libvirt.embed_root.glob("etc/qemu/*.xml")}


def references(fleet: Fleet, name: str) -> list[Any]:
    return list(fleet.client.services["base_references"].references(consumer=instance(fleet, name).uuid))


def trashed(host: FleetHost) -> set[str]:
    """The instances in its trash."""
    found = set()
    for text in host.config.instances.path.glob("_trash/*/libvirt.xml"):
        found.add(text.read_text().partition("<uuid>")[2].partition("</uuid>")[0])
    return found
