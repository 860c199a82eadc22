"""A host is emptied: its worker is killed in the middle, and so is the drain; nothing is lost or forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.faults.conftest import missing
from tests.faults.test_workers import never_twice
from tests.functional.test_migrate import SETTINGS, directory, instance, is_marked, mark, spawned
from virtflow.engine.leaving import COLD, Departure, drain_host, still_there
from virtflow.requests import MigrateRequest
from virtflow.testing.fleet import Fleet, await_

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(**SETTINGS) as up:
        yield up


class Interrupted(Exception):
    pass


def stop_at_the_first(_departure: Departure) -> None:
    raise Interrupted


def test_five_guests_leave_although_the_worker_and_the_drain_are_killed_in_the_middle(fleet: Fleet) -> None:
    fleet.start()
    h1, names = fleet.hosts["h1"], [f"vm-{number}" for number in range(5)]
    for name in names:
        spawned(fleet, name)
        mark(directory(fleet, "h1", name) / "disk")
    h1.stop()
    fleet.start({"h1": "PushDisks:after:kill"})

    def bring_back() -> None:
        await_(lambda: not h1.alive, "the death of h1's worker", 120)
        h1.start()

    rescue = threading.Thread(target=bring_back)
    with never_twice(fleet):
        rescue.start()
        with pytest.raises(Interrupted):
            drain_host(fleet.client, "h1", how=COLD, at_once=2, tell=stop_at_the_first)
        rescue.join()
        gone = drain_host(fleet.client, "h1", how=COLD, at_once=2)
    assert still_there(gone) == []
    assert fleet.settle() == []
    for name in names:
        assert (instance(fleet, name).host, instance(fleet, name).vm_state) == ("h2", "ACTIVE")
        assert name in fleet.hosts["h2"].guests()
        assert is_marked(directory(fleet, "h2", name) / "disk")
    assert h1.guests() == {}
    held = fleet.client.services["placement"].allocations(host="h1")
    assert list(held) == [], "nothing of the host is held any more"
    assert fleet.client.core.hosts.get("h1").draining


def test_what_cannot_leave_is_told_with_its_reason_and_a_move_under_way_is_waited_for(fleet: Fleet) -> None:
    fleet.start()
    hosts = fleet.client.core.hosts
    hosts.enable("h1")
    spawned(fleet, "stays")
    spawned(fleet, "moves")
    under_way = fleet.client.submit(MigrateRequest(name="moves"))
    fleet.wait_for_decision(under_way)
    hosts.disable("h2", "new fans")
    gone = {each.instance: each for each in drain_host(fleet.client, "h1", how=COLD)}
    assert (gone["moves"].host, gone["moves"].reason) == ("h2", None)
    assert gone["stays"].host == "h1"
    assert "disabled: new fans" in str(gone["stays"].reason)
    hosts.enable("h2")
    assert still_there(drain_host(fleet.client, "h1", how=COLD)) == []
    assert fleet.settle() == []
