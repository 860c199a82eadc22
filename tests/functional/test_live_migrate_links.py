"""Guests that move over a link that is slow, or is cut while they are under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.migrating import Movers, Watched, with_busy_guest
from tests.lab.processes import wait_until

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

ONE, TWO = "labhost1", "labhost2"
LONGER_THAN_LIBVIRT_WAITS = 35.0
"""It asks every five seconds, and gives up after five times without an answer."""


@contextmanager
def cut(movers: Movers) -> Iterator[None]:
    """The second host is reached by nobody."""
    switch = movers.workers.lab.switch
    switch.ip("link", "set", "h2", "down")
    try:
        yield
    finally:
        switch.ip("link", "set", "h2", "up")


@with_busy_guest("slow")
def test_a_slow_link_is_slow_and_nothing_else(movers: Movers) -> None:
    last = movers.ticks(ONE, "slow")[-1]
    with movers.slowed(TWO, "200mbit"), Watched(movers, "slow"):
        movers.ended(movers.migrate("slow", auto_converge=True))
        movers.wait_ticks(TWO, "slow", last + 2)
    settled_on(movers, "slow", TWO)


def test_a_link_that_is_cut_for_a_moment_is_waited_for(movers: Movers) -> None:
    movers.spawn("moment", ONE)
    movers.mark(ONE, "moment", mib=40)
    with Watched(movers, "moment"):
        asked = movers.migrate("moment", bandwidth=4)
        movers.wait_half_way(asked)
        with cut(movers):
            assert not wait_until(lambda: movers.is_over(asked), 3, 0.5)
        movers.ended(asked)
    settled_on(movers, "moment", TWO)


def test_a_link_that_stays_cut_leaves_the_guest_where_it_was(movers: Movers) -> None:
    movers.spawn("cut", ONE)
    movers.mark(ONE, "cut", mib=40)
    with Watched(movers, "cut"):
        asked = movers.migrate("cut", bandwidth=2)
        movers.wait_half_way(asked)
        with cut(movers):
            time.sleep(LONGER_THAN_LIBVIRT_WAITS)
            assert "running" in movers.virsh(ONE, "domstate", "cut")
        # What QEMU has sent into the dark keeps its disk job from ending; TCP tries again when it is time.
        movers.ended(asked, "REVERTED")
    settled_on(movers, "cut", ONE)


def settled_on(movers: Movers, name: str, host: str) -> None:
    """It runs there alone, with what was on its disk, and nothing is left of its move."""
    assert movers.settled() == []
    assert (movers.instance(name).host, movers.runs_on(name)) == (host, [host])
    if name in movers.marks:
        assert movers.is_marked(host, name)
