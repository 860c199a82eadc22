"""The host that a guest is leaving loses its power for good: once that is vouched for, the migration ends.

Where the guest has arrived it stays, and where it has not it is still the dead host's, to be evacuated. The link goes
first, so that the other host's libvirt is told of nothing.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.lab.migrating import PATIENCE, Movers, Watched
from tests.lab.processes import alive, wait_until
from virtflow.engine.leaving import evacuate_host, still_there
from virtflow.persistence.operations import Operation

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO = "labhost1", "labhost2"


def cut_power(movers: Movers, *names: str) -> None:
    """Of the first host: link, worker, libvirtd and these guests, and all that it kept in memory."""
    host = movers.hosts[ONE]
    movers.workers.lab.switch.ip("link", "set", f"h{host.number}", "down")
    for pid in (movers.pids[ONE], host.libvirtd_pid(), *(movers.qemu_pid(ONE, name) for name in names)):
        if pid is not None and alive(pid):
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda pid=pid: not alive(pid), PATIENCE)  # type: ignore[misc]
    shutil.rmtree(host.root / "run/libvirt")
    (host.root / "run/libvirt").mkdir()
    hosts = movers.client.core.hosts
    assert wait_until(lambda: hosts.get(ONE).state == "DOWN", PATIENCE, 0.2)


def bring_back(movers: Movers) -> None:
    host = movers.hosts[ONE]
    movers.workers.lab.switch.ip("link", "set", f"h{host.number}", "up")
    host.start()
    movers.start(ONE)


def restart_with(movers: Movers, fault: str) -> None:
    movers.stop(TWO)
    movers.start(TWO, fault)


def ended(movers: Movers, asked: Operation) -> bool:
    """Whether it is over. The worker that has met the fault and was killed comes back without."""
    movers.start(TWO)
    return movers.is_over(asked)


def test_a_guest_that_had_not_arrived_is_the_dead_hosts_and_can_be_evacuated(movers: Movers) -> None:
    movers.spawn("caught", ONE)
    movers.mark(ONE, "caught", mib=40)
    restart_with(movers, "FindArrived:before:kill")
    with Watched(movers, "caught"):
        asked = movers.migrate("caught", bandwidth=2)
        movers.wait_half_way(asked)
        cut_power(movers, "caught")
        assert not movers.is_over(asked), "nobody knows yet where the guest runs"
        movers.client.core.hosts.fence(ONE)
        assert wait_until(lambda: ended(movers, asked), PATIENCE, 0.3), movers.told(asked)
        failed = movers.ended(asked, "REVERTED_WITH_DEBT")
        assert "fenced" in str(failed.error)
        found = movers.instance("caught")
        assert (found.host, found.task_state, movers.runs_on("caught")) == (ONE, None, [])
        assert not movers.directory(TWO, "caught").exists()
        assert movers.virsh(TWO, "list", "--all", "--name") == ""
        assert still_there(evacuate_host(movers.client, ONE)) == []
        assert (movers.instance("caught").host, movers.runs_on("caught")) == (TWO, [TWO])
        bring_back(movers)
        assert movers.settled(PATIENCE) == []
        assert wait_until(lambda: movers.outcome(asked) == "REVERTED", PATIENCE, 0.3), movers.told(asked)
    assert (movers.instance("caught").host, movers.runs_on("caught")) == (TWO, [TWO])
    assert movers.virsh(ONE, "list", "--all", "--name") == ""


def test_a_guest_that_had_arrived_before_its_host_could_say_so_stays_there(movers: Movers) -> None:
    movers.spawn("arrived", ONE)
    movers.mark(ONE, "arrived")
    movers.stop(ONE)
    movers.start(ONE, "Migrate:after:kill")
    restart_with(movers, "FindArrived:after:raise")
    with Watched(movers, "arrived"):
        asked = movers.migrate("arrived")
        assert wait_until(lambda: not alive(movers.pids[ONE]), PATIENCE), movers.told(asked)
        cut_power(movers, "arrived")
        assert not movers.is_over(asked), "nobody knows yet where the guest runs"
        movers.client.core.hosts.fence(ONE)
        movers.ended(asked)
        assert (movers.instance("arrived").host, movers.runs_on("arrived")) == (TWO, [TWO])
        bring_back(movers)
        assert movers.settled(PATIENCE) == []
    assert movers.is_marked(TWO, "arrived")
    assert not movers.directory(ONE, "arrived").exists()
    assert "arrived" not in movers.virsh(ONE, "list", "--all", "--name").split()
