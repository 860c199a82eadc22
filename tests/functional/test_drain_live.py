"""A real host is emptied of guests that run: worker and drain are killed in the middle, no guest stops or is lost."""

from __future__ import annotations

import pytest

from tests.lab.migrating import Movers, Watched
from virtflow.engine.leaving import LIVE, Departure, drain_host, still_there

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO = "labhost1", "labhost2"


class Interrupted(Exception):
    pass


def test_five_guests_leave_while_they_run_although_worker_and_drain_are_killed_in_the_middle(movers: Movers) -> None:
    names = [f"vm-{number}" for number in range(5)]
    for name in names:
        movers.spawn(name, ONE)
        movers.mark(ONE, name)

    def killed(_departure: Departure) -> None:
        movers.kill(ONE)
        raise Interrupted

    with Watched(movers, *names):
        with pytest.raises(Interrupted):
            drain_host(movers.client, ONE, how=LIVE, at_once=2, tell=killed)
        assert set(movers.virsh(ONE, "list", "--name").split()) & set(names), "it was in the middle"
        movers.start(ONE)
        gone = drain_host(movers.client, ONE, how=LIVE, at_once=2)
        assert still_there(gone) == []
        assert movers.settled() == []
    for name in names:
        found = movers.instance(name)
        assert (found.host, found.vm_state, found.task_state) == (TWO, "ACTIVE", None)
        assert movers.runs_on(name) == [TWO]
        assert movers.is_marked(TWO, name)
        assert not movers.directory(ONE, name).exists()
    assert movers.virsh(ONE, "list", "--all", "--name") == ""
    held = movers.client.services["placement"].allocations(host=ONE)
    assert list(held) == [], "nothing of the host is held any more"
    assert movers.client.core.hosts.get(ONE).draining
