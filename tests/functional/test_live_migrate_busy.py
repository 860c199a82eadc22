"""A guest that writes to its memory all the while moves between real hosts: what is left is fetched, or it is halted.

The last of it has to be sent within a millisecond, so that it never ends by itself, however little the guest comes to
run. One that arrives broken does not count on: the console of the other host tells.
"""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.lab.migrating import Movers, Watched, with_busy_guest
from tests.lab.processes import wait_until
from virtflow.hypervisor.connection import open_connection

libvirt = pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO = "labhost1", "labhost2"
SETTINGS = {"live_migration.downtime": "1"}
"""Guests may hardly be halted."""


def there_and_here(movers: Movers) -> tuple[str, str]:
    here = str(movers.instance("busy").host)
    return here, TWO if here == ONE else ONE


def counts_on(movers: Movers, here: str, there: str, before: list[int]) -> None:
    """It is there, and goes on from where it was."""
    assert movers.settled() == []
    assert (movers.instance("busy").host, movers.runs_on("busy")) == (there, [there])
    movers.wait_ticks(there, "busy", before[-1] + 3)
    counted = before + movers.ticks(there, "busy")
    assert counted == sorted(counted), "it never began anew"
    assert not movers.directory(here, "busy").exists()


@with_busy_guest("busy")
def test_a_busy_guest_fetches_its_memory_afterwards_and_back_again(movers: Movers) -> None:
    for _way in ("there", "back"):
        here, there = there_and_here(movers)
        before = movers.ticks(here, "busy")
        with Watched(movers, "busy"):
            moved = movers.ended(movers.migrate("busy", post_copy=True, auto_converge=False, bandwidth=12))
        assert movers.went(moved)["post_copy"]
        counts_on(movers, here, there, before)


@with_busy_guest("busy")
def test_a_busy_guest_is_halted_so_that_it_arrives_in_the_end(movers: Movers) -> None:
    here, there = there_and_here(movers)
    before = movers.ticks(here, "busy")
    wanted = {"auto_converge": False, "bandwidth": 12, "complete_within": 15.0, "on_timeout": "force"}
    with Watched(movers, "busy"):
        moved = movers.ended(movers.migrate("busy", **wanted))
    assert (movers.went(moved)["forced"], movers.went(moved)["post_copy"]) == (True, False)
    counts_on(movers, here, there, before)


@with_busy_guest("busy")
def test_a_busy_guest_that_was_halted_in_vain_goes_on_where_it_was(movers: Movers) -> None:
    here, there = there_and_here(movers)
    wanted = {"auto_converge": False, "bandwidth": 1, "complete_within": 3.0, "on_timeout": "force"}
    with Watched(movers, "busy"):
        failed = movers.ended(movers.migrate("busy", **wanted), "REVERTED")
    assert "longer than it may" in str(failed.error)
    assert movers.settled() == []
    assert (movers.instance("busy").host, movers.runs_on("busy")) == (here, [here])
    movers.wait_ticks(here, "busy", movers.ticks(here, "busy")[-1] + 3)
    assert not movers.directory(there, "busy").exists()


@with_busy_guest("busy")
def test_a_guest_whose_host_dies_before_all_of_its_memory_came_begins_anew_from_its_disks(movers: Movers) -> None:
    here, there = there_and_here(movers)
    movers.mark(here, "busy")
    movers.wait_ticks(here, "busy", 3)
    pid = movers.qemu_pid(here, "busy")
    assert pid is not None
    with (
        movers.slowed(there, "100mbit"),
        contextlib.closing(open_connection(movers.hosts[there].local_uri)) as destination,
    ):
        asked = movers.migrate("busy", post_copy=True, auto_converge=False)
        fetching = [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY]
        assert wait_until(lambda: state_of(destination, "busy") == fetching, 120, 0.001), movers.told(asked)
        os.kill(pid, signal.SIGKILL)
    movers.ended(asked)
    # The call of a libvirt whose guest dies like that may never return, and it lets nobody near the domain until then.
    host = movers.hosts[here]
    os.kill(host.libvirtd_pid(), signal.SIGKILL)
    host.start()
    assert movers.settled(120) == []
    assert (movers.instance("busy").host, movers.runs_on("busy")) == (there, [there])
    movers.wait_ticks(there, "busy", 2)
    assert movers.is_marked(there, "busy")
    assert not movers.directory(here, "busy").exists()


def state_of(connection: libvirt.virConnect, name: str) -> list[int]:
    with contextlib.suppress(libvirt.libvirtError):
        return list(connection.lookupByName(name).state())
    return []
