"""Guests that are to move while they run, between hosts that have their disks in common.

libvirt moves them where it knows the file system to be a shared one (here GlusterFS, each host with a client of its
own). Where it does not, it refuses, and nothing is lost by that.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import gluster
from tests.lab.gluster import Gluster
from tests.lab.hosts import missing
from tests.lab.migrating import TICKING, Movers, Watched, movers_up
from virtflow.requests import DeleteRequest
from virtflow.testing.guest import build_guest

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

ONE, TWO = "labhost1", "labhost2"


@pytest.fixture(scope="module")
def movers() -> Iterator[Movers]:
    if reason := missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="vflab-"))
    with movers_up(root, **{"instances.path": str(root / "instances")}) as up:
        yield up


@pytest.fixture(scope="module")
def sharers() -> Iterator[Movers]:
    """Each host has the instances at one path, through a mount of its own; so has this process."""
    if reason := missing() or gluster.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="vfgl-"))
    shared = root / "shared"
    volume = Gluster(root)
    try:
        volume.start()
        for directory in (root / ONE, root / TWO, shared):
            volume.mount(directory)
        lab = Path(tempfile.mkdtemp(prefix="vflab-"))
        with movers_up(lab, lambda host: ((root / host, shared),), **{"instances.path": str(shared)}) as up:
            yield up
    finally:
        volume.stop()
        shutil.rmtree(root)


def test_a_guest_moves_without_its_disks_which_stay_where_they_are(sharers: Movers) -> None:
    sharers.furnish_guests(build_guest())
    sharers.spawn("guest", ONE, TICKING, ephemeral_gib=[{"size": 1}], swap_mib=4, memory_mib=96)
    sharers.mark(ONE, "guest")
    sharers.wait_ticks(ONE, "guest", 1)
    directory = sharers.directory(ONE, "guest")
    before = {path.name: path.stat().st_ino for path in directory.iterdir()}
    for source, destination in ((ONE, TWO), (TWO, ONE)):
        last = max(sharers.ticks(source, "guest"))
        with Watched(sharers, "guest"):
            operation = sharers.ended(sharers.migrate("guest", host=destination))
        assert (sharers.instance("guest").host, sharers.runs_on("guest")) == (destination, [destination])
        assert sharers.went(operation)["disk_total"] == 0
        sharers.wait_ticks(destination, "guest", last + 2)
        assert sharers.settled() == []
        assert {path.name: path.stat().st_ino for path in directory.iterdir()} == before
    assert sharers.is_marked(ONE, "guest")
    sharers.ended(sharers.client.submit(DeleteRequest(name="guest")))


@pytest.mark.parametrize(
    ("block", "reason"),
    [(None, "Migration without shared storage is unsafe"), (True, "both hosts have the same storage")],
    ids=["its memory alone", "its disks as well"],
)
def test_what_is_refused_takes_nothing_from_the_disks_that_both_hosts_have(
    movers: Movers, block: bool | None, reason: str
) -> None:
    name = f"shared-{block}"
    movers.spawn(name, ONE, swap_mib=4)
    movers.mark(ONE, name)
    directory = movers.directory(ONE, name)
    assert movers.directory(TWO, name) == directory
    before = {path.name: path.stat().st_ino for path in directory.iterdir()}
    with Watched(movers, name):
        fields = {} if block is None else {"block": block}
        refused = movers.ended(movers.migrate(name, **fields), "REVERTED")
    assert reason in str(refused.error)
    assert (movers.instance(name).host, movers.runs_on(name)) == (ONE, [ONE])
    assert movers.settled() == []
    assert {path.name: path.stat().st_ino for path in directory.iterdir()} == before
    assert movers.is_marked(ONE, name)
