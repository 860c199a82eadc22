"""Guests that move while they run, between two real hosts: a libvirtd and a worker on each."""

from __future__ import annotations

import os
import signal

import pytest

from tests.lab.migrating import Movers, Watched, Wire, with_busy_guest
from tests.lab.processes import wait_until
from virtflow.errors import Busy, Conflict

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO = "labhost1", "labhost2"


def test_a_guest_moves_with_all_its_disks_and_leaves_nothing_behind(movers: Movers) -> None:
    movers.spawn("web1", ONE, ephemeral_gib=[{"size": 1}], swap_mib=4)
    movers.mark(ONE, "web1")
    old = movers.directory(ONE, "web1")
    drive = (old / "disk.config").read_bytes()
    with Wire(movers) as wire, Watched(movers, "web1"):
        moved = movers.ended(movers.migrate("web1"))
    assert wire.in_the_clear, "this is what TLS is for"
    found = movers.instance("web1")
    assert (found.host, found.vm_state, found.task_state) == (TWO, "ACTIVE", None)
    assert movers.runs_on("web1") == [TWO]
    new = movers.directory(TWO, "web1")
    assert movers.is_marked(TWO, "web1")
    assert (new / "disk.config").read_bytes() == drive
    assert {path.name for path in new.iterdir()} >= {"disk", "disk.local", "disk.swap", "disk.config"}
    assert "web1" in movers.virsh(TWO, "list", "--persistent", "--name")
    assert movers.settled() == []
    assert not old.exists()
    assert movers.virsh(ONE, "list", "--all", "--name") == ""
    with pytest.raises(Conflict, match="live-migrate it back"):
        movers.client.request_undo(moved.id)


@with_busy_guest("busy")
def test_a_guest_that_writes_to_its_memory_is_slowed_down_and_goes_on_counting_wherever_it_is(movers: Movers) -> None:
    before = movers.ticks(ONE, "busy")
    with Watched(movers, "busy"):
        movers.ended(movers.migrate("busy", auto_converge=True, bandwidth=40))
        movers.wait_ticks(TWO, "busy", before[-1] + 3)
    counted = before + movers.ticks(TWO, "busy")
    assert counted == sorted(counted), "it never began anew"
    stays_on(movers, "busy", TWO, ONE)


def test_a_cancelled_migration_leaves_the_guest_where_it_is_and_the_other_host_clean(movers: Movers) -> None:
    movers.spawn("stays", ONE)
    movers.mark(ONE, "stays", mib=40)
    with Watched(movers, "stays"):
        asked = movers.migrate("stays", bandwidth=2)
        movers.wait_half_way(asked)
        with pytest.raises(Busy):
            movers.migrate("stays")
        movers.client.cancel(asked.id)
        movers.ended(asked, "CANCELLED")
    stays_on(movers, "stays", ONE, TWO)


def test_a_worker_that_is_killed_half_way_finds_the_migration_and_ends_it(movers: Movers) -> None:
    movers.spawn("goes", ONE)
    movers.mark(ONE, "goes", mib=40)
    with Watched(movers, "goes"):
        asked = movers.migrate("goes", bandwidth=4)
        movers.wait_half_way(asked)
        movers.kill(ONE)
        movers.start(ONE)
        ended = movers.ended(asked)
    assert [task.attempts for task in ended.tasks if task.name == "Migrate"] == [2]
    stays_on(movers, "goes", TWO, ONE)


def test_the_other_hosts_qemu_and_libvirtd_may_die_half_way(movers: Movers) -> None:
    movers.spawn("stays2", ONE)
    movers.mark(ONE, "stays2", mib=40)
    with Watched(movers, "stays2"):
        asked = movers.migrate("stays2", bandwidth=2)
        movers.wait_half_way(asked)
        pid = movers.qemu_pid(TWO, "stays2")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        failed = movers.ended(asked, "REVERTED")
        assert "was not migrated" in str(failed.error)
        stays_on(movers, "stays2", ONE, TWO)
        asked = movers.migrate("stays2", bandwidth=2)
        movers.wait_half_way(asked)
        os.kill(movers.hosts[TWO].libvirtd_pid(), signal.SIGKILL)
        assert wait_until(lambda: movers.is_over(asked), 120, 0.2), movers.told(asked)
        movers.hosts[TWO].start()
        assert wait_until(lambda: movers.outcome(asked) == "REVERTED", 60, 0.2), movers.told(asked)
    stays_on(movers, "stays2", ONE, TWO)


def test_a_guest_that_dies_half_way_is_started_again_where_it_was(movers: Movers) -> None:
    movers.spawn("dies", ONE)
    movers.mark(ONE, "dies", mib=40)
    with Watched(movers, "dies"):
        asked = movers.migrate("dies", bandwidth=2)
        movers.wait_half_way(asked)
        pid = movers.qemu_pid(ONE, "dies")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        movers.ended(asked, "REVERTED")
    stays_on(movers, "dies", ONE, TWO)


def test_a_directory_that_is_not_ours_survives_and_so_does_the_guest(movers: Movers) -> None:
    movers.spawn("stays3", ONE)
    new = movers.directory(TWO, "stays3")
    new.mkdir()
    (new / "precious").write_text("somebody else's")
    failed = movers.ended(movers.migrate("stays3"), "REVERTED")
    assert "something of that name is there" in str(failed.error)
    assert (new / "precious").read_text() == "somebody else's"
    (new / "precious").unlink()
    new.rmdir()
    stays_on(movers, "stays3", ONE, TWO)


def test_what_cannot_be_done_in_time_is_given_up(movers: Movers) -> None:
    movers.spawn("late", ONE)
    movers.mark(ONE, "late", mib=30)
    failed = movers.ended(movers.migrate("late", bandwidth=1, complete_within=3), "REVERTED")
    assert "longer than it may" in str(failed.error)
    stays_on(movers, "late", ONE, TWO)


def stays_on(movers: Movers, name: str, here: str, not_there: str) -> None:
    """It runs here with what was on its disk, and nothing of it is there."""
    assert movers.settled() == []
    found = movers.instance(name)
    assert (found.host, found.vm_state, found.task_state) == (here, "ACTIVE", None)
    assert movers.runs_on(name) == [here]
    assert not movers.directory(not_there, name).exists()
    assert name not in movers.virsh(not_there, "list", "--all", "--name").split()
    if movers.marks.get(name):
        assert movers.is_marked(here, name)
