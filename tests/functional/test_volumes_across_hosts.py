"""Volumes on one host, served by tgtd with CHAP, and guests on another; each host has a libvirtd and a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.processes import wait_until
from tests.lab.serving import SECONDS, Place, halting, place_up
from tests.lab.workers import IMAGE
from virtflow.images.luks import payload
from virtflow.requests import (
    DeleteRequest,
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

GIB = 1 << 30


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-"))) as up:
        yield up


def test_a_volume_goes_to_a_running_guest_of_another_host_grows_and_comes_back(place: Place) -> None:
    place.run(halting("far", image=IMAGE, disk_gib=1, host=place.compute.name))
    place.run(VolumeCreateRequest(name="data", size_gib=1))
    place.run(VolumeAttachRequest(name="data", instance="far"))
    (attachment,) = place.rows("volume_attachments")
    assert (attachment["host"], attachment["device"]) == (place.compute.name, "vdb")
    connection = attachment["connection"]
    assert (connection["kind"], connection["user"]) == ("iscsi", attachment["id"])
    assert place.passwords() == [attachment["volume"]]
    assert place.sizes("far") == {"vda": GIB, "vdb": GIB}
    assert place.settled() == []
    place.run(VolumeExtendRequest(name="data", size_gib=2))
    assert (place.sizes("far"), place.virsh("domstate", place.uuid("far"))) == ({"vda": GIB, "vdb": 2 * GIB}, "running")
    place.virsh("destroy", place.uuid("far"))  # it has halted its processor, and lets go of nothing while it runs
    place.run(VolumeDetachRequest(name="data"))
    assert (place.passwords(), place.rows("volume_attachments"), place.rows("secrets")) == ([], [], [])
    assert place.tgt.targets() == []
    assert place.settled() == []


def test_a_guest_boots_from_a_volume_of_another_host_and_everything_is_taken_away_again(place: Place) -> None:
    place.run(VolumeCreateRequest(name="root", size_gib=1, image=IMAGE))
    place.run(halting("booted", boot_volume="root", volumes=["data"], host=place.compute.name))
    assert place.sizes("booted") == {"vda": GIB, "vdb": 2 * GIB}
    assert len(place.passwords()) == len(place.tgt.targets()) == 2
    assert place.settled() == []
    deleted = place.run(DeleteRequest(name="booted"))
    assert {each["state"] for each in place.rows("volumes") if each["deleted_at"] is None} == {"AVAILABLE"}
    assert (place.passwords(), place.rows("volume_attachments"), place.tgt.targets()) == ([], [], [])
    place.client.request_undo(deleted.id)
    assert wait_until(lambda: place.client.operations.get(deleted.id).outcome == "UNDONE", SECONDS, 0.2)
    assert place.sizes("booted") == {"vda": GIB, "vdb": 2 * GIB}
    place.run(DeleteRequest(name="booted"))
    place.run(SnapshotCreateRequest(name="then", volume="data"))
    place.run(VolumeCreateRequest(name="copy", snapshot="then"))
    place.run(SnapshotDeleteRequest(name="then"))
    for name in ("root", "data", "copy"):
        place.run(VolumeDeleteRequest(name=name))
    assert (place.passwords(), place.rows("volume_attachments"), place.rows("secrets")) == ([], [], [])
    assert place.tgt.targets() == []
    assert place.settled() == []


def test_a_volume_to_boot_from_is_made_for_a_guest_of_another_host_and_goes_with_it(place: Place) -> None:
    place.run(halting("owner", image=IMAGE, boot_volume_gib=1, delete_volume=True, host=place.compute.name))
    assert place.sizes("owner") == {"vda": GIB}
    (attachment,) = place.rows("volume_attachments")
    assert (attachment["host"], attachment["connection"]["kind"]) == (place.compute.name, "iscsi")
    deleted = place.run(DeleteRequest(name="owner"))
    assert [each["name"] for each in place.rows("volumes") if each["deleted_at"] is None] == []
    place.client.request_undo(deleted.id)
    assert wait_until(lambda: place.client.operations.get(deleted.id).outcome == "UNDONE", SECONDS, 0.2)
    assert place.sizes("owner") == {"vda": GIB}
    place.run(DeleteRequest(name="owner"))
    assert (place.passwords(), place.rows("volume_attachments"), place.tgt.targets()) == ([], [], [])
    assert place.settled() == []


def test_an_encrypted_volume_is_opened_by_its_guest_on_another_host_which_has_the_key_as_long(place: Place) -> None:
    place.run(VolumeCreateRequest(name="sealed", size_gib=1, image=IMAGE, encrypted=True))
    place.run(halting("locked", boot_volume="sealed", host=place.compute.name))
    (attachment,) = place.rows("volume_attachments")
    volume = attachment["volume"]
    assert sorted(place.passwords()) == [volume, f"virtflow/{volume}"]
    assert place.sizes("locked") == {"vda": payload(GIB)}
    place.run(VolumeExtendRequest(name="sealed", size_gib=2))
    assert place.sizes("locked") == {"vda": payload(2 * GIB)}
    assert place.settled() == []
    deleted = place.run(DeleteRequest(name="locked"))
    assert (place.passwords(), place.tgt.targets()) == ([], [])
    place.client.request_undo(deleted.id)
    assert wait_until(lambda: place.client.operations.get(deleted.id).outcome == "UNDONE", SECONDS, 0.2)
    assert sorted(place.passwords()) == [volume, f"virtflow/{volume}"]
    place.run(DeleteRequest(name="locked"))
    place.run(VolumeDeleteRequest(name="sealed"))
    assert (place.passwords(), place.tgt.targets()) == ([], [])
    assert [row["owner"] for row in place.rows("secrets")] == [volume], "the key goes with the purge"
    assert place.settled() == []


def test_a_spawn_with_volumes_goes_to_another_host_when_the_first_one_fails(place: Place) -> None:
    heavy = place.run(halting("heavy", image=IMAGE, disk_gib=1, memory_mib=1024, host=place.compute.name))
    place.run(VolumeCreateRequest(name="wanted", size_gib=1))
    place.kill(place.storage)
    place.start(place.storage, fault="DefineDomain:before:raise")
    spawned = place.run(halting("second", image=IMAGE, disk_gib=1, volumes=["wanted"]))
    tried = place.rows("decisions", operation=spawned.id)
    assert [each["chosen"] for each in tried] == [place.storage.name, place.compute.name]
    (attachment,) = place.rows("volume_attachments")
    assert (attachment["host"], attachment["connection"]["kind"]) == (place.compute.name, "iscsi")
    assert place.sizes("second") == {"vda": GIB, "vdb": GIB}
    assert place.settled() == []
    place.client.request_undo(spawned.id)
    place.client.request_undo(heavy.id)
    for each in (spawned, heavy):
        assert wait_until(lambda each=each: place.client.operations.get(each.id).outcome == "UNDONE", SECONDS, 0.2)
    place.run(VolumeDeleteRequest(name="wanted"))
    assert place.settled() == []
