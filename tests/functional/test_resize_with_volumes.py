"""Volumes go with an instance that is resized or moved: to their own host, away from it, and between two others.

The guest counts its boots on the volume that it boots from: each one has read and written what the one before wrote.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.processes import wait_until
from tests.lab.serving import COUNTING, SECTOR, Place, halting, place_up
from tests.lab.workers import IMAGE
from virtflow.errors import Conflict
from virtflow.images.luks import payload
from virtflow.requests import (
    ConfirmRequest,
    DeleteRequest,
    MigrateRequest,
    ResizeRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

GIB = 1 << 30
HOME, AWAY, BEYOND = "labhost1", "labhost2", "labhost3"
"""The first has the volumes."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), {"resize.shutdown_timeout": "0"}, 3) as up:
        yield up


def moved(place: Place, name: str, host: str, kind: str = "iscsi") -> None:
    """It runs there and nowhere else, its volumes are reached from there, and no other host knows how."""
    assert (place.runs_on(name), place.instance(name).host) == ([host], host)
    rows = [row for row in place.rows("volume_attachments") if row["instance"] == place.uuid(name)]
    assert {(row["host"], row["connection"]["kind"]) for row in rows} == {(host, kind)}
    for other in place.hosts.values():
        known = {usage.removeprefix("virtflow/") for usage in place.passwords(other)}
        mine = {row["volume"] for row in rows}
        assert not known & mine or other.name == host
    assert all(row["state"] == "IN_USE" for row in place.rows("volumes") if row["id"] in mine)
    assert place.settled() == []


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_guest_takes_its_volumes_everywhere_and_back(place: Place, encrypted: bool) -> None:
    name, root, data = ("web1", "root1", "data1") if not encrypted else ("web2", "root2", "data2")
    place.run(VolumeCreateRequest(name=root, size_gib=1, image=COUNTING, encrypted=encrypted))
    place.run(VolumeCreateRequest(name=data, size_gib=1, encrypted=encrypted))
    place.write(data, 10 * SECTOR, 0x5A)
    place.run(halting(name, boot_volume=root, host=HOME))
    place.run(VolumeAttachRequest(name=data, instance=name))
    moved(place, name, HOME, "file")
    counted = place.boots(root)
    sizes = place.sizes(name, place.hosts[HOME])
    assert sizes == ({"vda": payload(GIB), "vdb": payload(GIB)} if encrypted else {"vda": GIB, "vdb": GIB})

    def now_on(host: str, kind: str = "iscsi") -> None:
        nonlocal counted
        moved(place, name, host, kind)
        assert place.sizes(name, place.hosts[host]) == sizes
        counted = _counted_on(place, root, counted)

    away = place.run(MigrateRequest(name=name, host=AWAY))
    now_on(AWAY)
    assert len(place.tgt.targets()) == 2
    place.undo(away)
    now_on(HOME, "file")
    assert (place.tgt.targets(), [row for row in place.rows("secrets") if row["name"] == "chap"]) == ([], [])
    place.run(MigrateRequest(name=name, host=AWAY))
    now_on(AWAY)
    place.run(ConfirmRequest(name=name))
    moved(place, name, AWAY)
    beyond = place.run(ResizeRequest(name=name, host=BEYOND, vcpus=2))
    now_on(BEYOND)
    place.undo(beyond)
    now_on(AWAY)
    place.run(ResizeRequest(name=name, host=BEYOND, vcpus=2))
    place.run(ConfirmRequest(name=name))
    now_on(BEYOND)
    home = place.run(MigrateRequest(name=name, host=HOME))
    now_on(HOME, "file")
    assert place.tgt.targets() == [], "nobody logs in from where it was"
    place.undo(home)
    now_on(BEYOND)
    assert len(place.tgt.targets()) == 2
    home = place.run(MigrateRequest(name=name, host=HOME))
    now_on(HOME, "file")
    confirmed = place.run(ConfirmRequest(name=name))
    moved(place, name, HOME, "file")
    assert [row for row in place.rows("secrets") if row["name"] == "chap"] == []
    place.undo(confirmed)
    place.undo(home)
    now_on(BEYOND)
    assert place.read(data, 10 * SECTOR) == b"\x5a" * SECTOR
    place.run(VolumeExtendRequest(name=data, size_gib=2))
    place.run(DeleteRequest(name=name))
    for volume in (root, data):
        place.run(VolumeDeleteRequest(name=volume))
    assert place.tgt.targets() == []
    assert place.settled() == []


def _counted_on(place: Place, root: str, before: int) -> int:
    assert wait_until(lambda: place.boots(root) > before, 30, 0.2), "the guest has not booted from its volume"
    return place.boots(root)


@pytest.mark.parametrize("host", [HOME, AWAY])
def test_a_guest_that_is_resized_where_it_is_keeps_its_volumes(place: Place, host: str) -> None:
    name = f"stays-{host}"
    place.run(VolumeCreateRequest(name="kept", size_gib=1))
    place.run(halting(name, image=IMAGE, disk_gib=1, host=host))
    place.run(VolumeAttachRequest(name="kept", instance=name))
    kind = "file" if host == HOME else "iscsi"
    resized = place.run(ResizeRequest(name=name, vcpus=2, disk_gib=2, host=host))
    moved(place, name, host, kind)
    assert place.sizes(name, place.hosts[host]) == {"vda": 2 * GIB, "vdb": GIB}
    place.undo(resized)
    moved(place, name, host, kind)
    assert place.sizes(name, place.hosts[host]) == {"vda": GIB, "vdb": GIB}
    place.run(ResizeRequest(name=name, vcpus=2, host=host))
    place.run(ConfirmRequest(name=name))
    moved(place, name, host, kind)
    place.virsh("destroy", place.uuid(name), host=place.hosts[host])
    place.run(VolumeDetachRequest(name="kept"))
    place.run(
        ResizeRequest(name=name, vcpus=1, host=host)
    )  # it was attached once, and is nothing of the instance's now
    place.run(ConfirmRequest(name=name))
    place.run(DeleteRequest(name=name))
    place.run(VolumeDeleteRequest(name="kept"))
    assert place.settled() == []


def test_what_is_at_work_on_a_volume_and_a_move_exclude_each_other(place: Place) -> None:
    place.run(VolumeCreateRequest(name="busy", size_gib=1))
    place.run(halting("web3", image=IMAGE, disk_gib=1, host=AWAY))
    attached = place.run(VolumeAttachRequest(name="busy", instance="web3"))
    volume = place.volume("busy").id
    volumes, other = place.client.services["volumes"], "00000000-0000-0000-0000-000000000001"
    assert volumes.hold(volume, ("IN_USE",), "EXTENDING", other)
    with pytest.raises(Conflict, match="cannot move volume 'busy': it is EXTENDING"):
        place.client.submit(MigrateRequest(name="web3"))
    volumes.let_go(volume, other)
    done = place.run(MigrateRequest(name="web3", host=BEYOND))
    assert volumes.hold(volume, ("IN_USE",), "EXTENDING", other)
    with pytest.raises(Conflict, match="its volume busy is EXTENDING"):
        place.client.request_undo(done.id)
    volumes.let_go(volume, other)
    with pytest.raises(Conflict, match=f"instance web3 is on {BEYOND} by now"):
        place.client.request_undo(attached.id)
    with pytest.raises(Conflict, match="VERIFY_RESIZE"):
        place.client.submit(VolumeDetachRequest(name="busy"))
    place.undo(done)
    moved(place, "web3", AWAY)
    done = place.run(MigrateRequest(name="web3", host=BEYOND))
    confirmed = place.run(ConfirmRequest(name="web3"))
    place.virsh("destroy", place.uuid("web3"), host=place.hosts[BEYOND])
    place.run(VolumeDetachRequest(name="busy"))
    with pytest.raises(Conflict, match="its volumes are others by now"):
        place.client.request_undo(confirmed.id)
    place.run(DeleteRequest(name="web3"))
    place.run(VolumeDeleteRequest(name="busy"))
    assert place.settled() == []
