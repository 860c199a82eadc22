"""Volumes go with an instance that is evacuated, and a host that only seemed to be dead is cut off from them.

What is killed is its worker alone: its guest goes on, as that of a host does which somebody has fenced by mistake.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import tgt as lab_tgt
from tests.lab.hosts import LabHost, missing
from tests.lab.processes import stop, wait_until
from tests.lab.serving import COUNTING, SECONDS, WRITER, Place, halting, place_up
from virtflow.errors import Conflict
from virtflow.requests import (
    DeleteRequest,
    EvacuateRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
)
from virtflow.testing.guest import GuestImage

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

HOME, AWAY, BEYOND = "labhost1", "labhost2", "labhost3"
"""The first has the volumes."""
SILENT = 3.0
"""Seconds in which a guest that can would have written several times."""


@pytest.fixture(scope="module")
def place(guest_image: GuestImage) -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), hosts=3) as up:
        up.furnish_guests(guest_image)
        yield up


def given_up(place: Place, host: LabHost) -> None:
    """Its worker is gone, its guests are not, and somebody vouches for the opposite."""
    place.kill(host)
    hosts = place.client.core.hosts
    assert wait_until(lambda: hosts.get(host.name).state == "DOWN", SECONDS, 0.2)
    hosts.fence(host.name)


def back(place: Place, host: LabHost, name: str) -> None:
    """Its worker is, and of the instance nothing is left there."""
    place.start(host)
    assert wait_until(lambda: place.uuid(name) not in place.virsh("list", "--all", "--uuid", host=host), SECONDS, 0.2)
    assert place.passwords(host) == []
    assert place.settled() == []


def attachment(place: Place, name: str) -> dict[str, Any]:
    (found,) = place.rows("volume_attachments", instance=place.uuid(name))
    return found


def passwords(place: Place) -> list[str]:
    """Whose they are."""
    return [row["owner"] for row in place.rows("secrets", name="chap")]


def test_a_host_that_seemed_to_be_dead_writes_no_more_and_writes_again_when_the_evacuation_fails(place: Place) -> None:
    place.run(VolumeCreateRequest(name="data", size_gib=1))
    place.run(halting("web1", image=WRITER, memory_mib=128, disk_gib=1, volumes=["data"], host=AWAY))
    place.goes_on("web1")
    before = attachment(place, "web1")
    stop(place.pids[BEYOND])
    place.start(place.hosts[BEYOND], "WaitRunning:after:raise")
    given_up(place, place.compute)
    failed = place.ends(EvacuateRequest(name="web1", host=BEYOND))
    assert (failed.outcome, failed.debts) == ("REVERTED", 0), failed.error
    assert (attachment(place, "web1"), place.instance("web1").host) == (before, AWAY)
    assert passwords(place) == [before["id"]]
    assert (place.passwords(place.hosts[BEYOND]), place.state("data")) == ([], "IN_USE")
    place.goes_on("web1")
    stop(place.pids[BEYOND])
    place.start(place.hosts[BEYOND])
    place.run(EvacuateRequest(name="web1", host=BEYOND))
    now = attachment(place, "web1")
    assert (now["host"], now["device"], place.state("data")) == (BEYOND, before["device"], "IN_USE")
    assert now["id"] != before["id"]
    assert passwords(place) == [now["id"]], "what the other host knows opens nothing"
    assert place.runs_on("web1") == [AWAY, BEYOND], "it was not dead"
    written = place.written("web1")
    time.sleep(SILENT)
    assert place.written("web1") == written, "two hosts write to one volume"
    console = place.workers.config(place.hosts[BEYOND]).instances.path / place.uuid("web1") / "console.log"
    assert wait_until(lambda: "WROTE 3" in console.read_text(errors="replace"), SECONDS, 0.2), console.read_text()
    back(place, place.compute, "web1")
    assert place.passwords(place.hosts[BEYOND]) == [now["volume"]]
    assert place.runs_on("web1") == [BEYOND]
    place.run(DeleteRequest(name="web1"))
    place.run(VolumeDeleteRequest(name="data"))
    assert place.attached() == (0, 0, 0, 0)
    assert place.settled() == []


@pytest.mark.parametrize("destination", [HOME, BEYOND])
def test_a_guest_boots_from_the_encrypted_volume_that_it_had(place: Place, destination: str) -> None:
    name, root = f"boots-{destination}", f"root-{destination}"
    place.run(VolumeCreateRequest(name=root, size_gib=1, image=COUNTING, encrypted=True))
    place.run(halting(name, boot_volume=root, host=AWAY))
    assert wait_until(lambda: place.boots(root) == 1, SECONDS, 0.2)
    given_up(place, place.compute)
    place.run(EvacuateRequest(name=name, host=destination))
    assert wait_until(lambda: place.boots(root) == 2, SECONDS, 0.2), "it has what was on it"
    found = attachment(place, name)
    assert (found["host"], found["connection"]["kind"]) == (destination, "file" if destination == HOME else "iscsi")
    assert (len(place.tgt.targets()), len(passwords(place))) == ((0, 0) if destination == HOME else (1, 1))
    back(place, place.compute, name)
    assert place.runs_on(name) == [destination]
    place.run(DeleteRequest(name=name))
    place.run(VolumeDeleteRequest(name=root))
    assert place.tgt.targets() == []
    assert place.settled() == []


def test_what_only_the_dead_host_has_is_not_evacuated(place: Place) -> None:
    place.run(VolumeCreateRequest(name="lost", size_gib=1))
    place.run(halting("web3", image=COUNTING, disk_gib=1, host=HOME))
    place.run(VolumeAttachRequest(name="lost", instance="web3"))
    before = attachment(place, "web3")
    given_up(place, place.storage)
    with pytest.raises(Conflict, match="its volume lost is on that host, labhost1, and cannot be reached without it"):
        place.client.submit(EvacuateRequest(name="web3"))
    assert (attachment(place, "web3"), place.instance("web3").task_state) == (before, None)
    place.start(place.storage)
    place.run(DeleteRequest(name="web3"))
    place.run(VolumeDeleteRequest(name="lost"))
    assert place.settled() == []
