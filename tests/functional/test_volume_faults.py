"""What breaks while a guest on one host uses a volume of another: its data is right, and nothing is left behind.

The books are kept by PostgreSQL.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import postgres as lab_postgres
from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.postgres import postgres
from tests.lab.processes import wait_until
from tests.lab.serving import EMPTY, SECONDS, WRITER, Place, halting, place_up
from tests.lab.workers import IMAGE
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.engine.services import Services
from virtflow.errors import Busy, Conflict, OperationFailed, VirtflowError
from virtflow.persistence.database import Database
from virtflow.persistence.operations import Operation
from virtflow.requests import (
    DeleteRequest,
    Request,
    SpawnRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)
from virtflow.testing.guest import build_guest
from virtflow.volumes.driver import Reach, volume_name
from virtflow.worker.connecting import connect

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

NOTHING, ONE = (0, 0, 0, 0), (1, 1, 1, 1)


@pytest.fixture(scope="module")
def _place() -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing() or lab_postgres.missing():
        pytest.skip(reason)
    with postgres() as server:
        url = server.socket_url(server.create_database())
        settings = {"database.url": url, "volumes.detach_timeout": "10"}
        with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), settings) as up:
            up.furnish_guests(build_guest())
            yield up


@pytest.fixture
def place(_place: Place) -> Iterator[Place]:
    """Both workers run without faults, before a test and after it; then nothing is left of it."""
    yield _place
    for host in _place.workers.lab.hosts:
        _place.start(host)
    assert _place.settled() == []


# -- the server of the volumes -----------------------------------------------------------------------------------------


@pytest.fixture
def writing(place: Place) -> Iterator[str]:
    """A guest that writes to a volume of the other host. Afterwards the two are deleted, and nothing is left."""
    place.run(halting("writer", image=WRITER, disk_gib=1, memory_mib=128, host=place.compute.name))
    place.run(VolumeCreateRequest(name="data", size_gib=1))
    place.run(VolumeAttachRequest(name="data", instance="writer"))
    place.goes_on("writer")
    yield "writer"
    place.run(VolumeDetachRequest(name="data"))
    assert place.attached() == NOTHING
    place.run(VolumeDeleteRequest(name="data"))
    place.run(DeleteRequest(name="writer"))


def says(place: Place, words: str) -> bool:
    """Whether the audit of some host does, within a while."""
    return wait_until(lambda: any(words in line for line in place.problems()), SECONDS, 0.2)


def test_a_guest_goes_on_when_tgtd_was_killed_and_started_again(place: Place, writing: str) -> None:
    place.tgt.kill()
    assert says(place, "data is not served to labhost2")
    place.tgt.start()
    assert place.tgt.targets() == []
    place.goes_on(writing)
    assert place.tgt.targets() == [place.target("data")]
    assert "NOT-WRITTEN" not in place.console(writing)
    assert place.differing(writing, "data") == []


def test_a_guest_goes_on_when_its_target_was_removed_while_the_worker_was_away(place: Place, writing: str) -> None:
    place.kill(place.storage)
    place.tgt.remove(place.target("data"))
    assert says(place, "data is not served to labhost2")
    before = place.written(writing)
    place.start(place.storage)
    place.goes_on(writing)
    assert place.differing(writing, "data") == []
    assert (place.tgt.targets(), before < place.written(writing)) == ([place.target("data")], True)


def test_an_instance_is_deleted_although_nobody_serves_its_volume(place: Place, writing: str) -> None:
    place.tgt.kill()
    deleted = place.run(DeleteRequest(name=writing))
    assert (place.passwords(), place.rows("volume_attachments"), place.state("data")) == ([], [], "AVAILABLE")
    place.tgt.start()
    place.client.request_undo(deleted.id)
    assert wait_until(lambda: place.client.operations.get(deleted.id).outcome == "UNDONE", SECONDS, 0.2)
    place.goes_on(writing)


def test_a_guest_keeps_a_volume_that_nobody_serves_and_lets_go_of_it_later(place: Place, writing: str) -> None:
    place.tgt.kill()
    for request in (VolumeDetachRequest(name="data"), VolumeExtendRequest(name="data", size_gib=2)):
        refused = place.ends(request)
        assert (refused.outcome, "does not answer" in str(refused.error)) == ("REVERTED", True), refused.error
    assert (place.state("data"), place.virsh("domstate", place.uuid(writing))) == ("IN_USE", "running")
    place.tgt.start()
    place.run(VolumeExtendRequest(name="data", size_gib=2))
    place.goes_on(writing)


@pytest.mark.parametrize("verb", ["detach", "extend"])
def test_a_guest_that_waits_for_a_target_is_served_while_an_operation_holds_its_volume(
    place: Place, writing: str, verb: str
) -> None:
    place.tgt.remove(place.target("data"))
    if verb == "extend":
        place.run(VolumeExtendRequest(name="data", size_gib=2))
    else:
        place.run(VolumeDetachRequest(name="data"))
        place.run(VolumeAttachRequest(name="data", instance=writing))
    place.goes_on(writing)


# -- two at once -------------------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(place: Place) -> Iterator[str]:
    """A volume that two instances would like to have, ``one`` and ``two``, which are stopped."""
    for name in ("one", "two"):
        place.run(halting(name, image=IMAGE, disk_gib=1, host=place.compute.name))
        place.virsh("destroy", place.uuid(name))
    place.run(VolumeCreateRequest(name="wanted", size_gib=1))
    yield "wanted"
    place.run(VolumeDeleteRequest(name="wanted"))
    for name in ("one", "two"):
        place.run(DeleteRequest(name=name))


def won(place: Place, asked: Sequence[Operation | VirtflowError]) -> int:
    """Which one of them succeeded; the other one was refused, or is as if it had never begun."""
    ends = [place.ended(each).outcome if isinstance(each, Operation) else type(each) for each in asked]
    assert ends.count("SUCCESS") == 1, (asked, ends)
    assert {end for end in ends if end != "SUCCESS"} <= {"REVERTED", Busy, Conflict, OperationFailed}, (asked, ends)
    assert (place.attached(), place.state("wanted")) == (ONE, "IN_USE")
    return ends.index("SUCCESS")


SPAWN = {"image": IMAGE, "disk_gib": 1, "volumes": ["wanted"], "host": "labhost2"}
SPAWN_A, SPAWN_B = (halting(name, **SPAWN) for name in ("a", "b"))
ATTACH_1, ATTACH_2 = (VolumeAttachRequest(name="wanted", instance=name) for name in ("one", "two"))


@pytest.mark.parametrize(
    "requests",
    [(ATTACH_1, ATTACH_2), (ATTACH_1, SPAWN_A), (SPAWN_A, SPAWN_B)],
    ids=["attach and attach", "attach and spawn", "spawn and spawn"],
)
def test_of_two_who_want_one_volume_at_once_one_gets_it(
    place: Place, wanted: str, requests: tuple[Request, Request]
) -> None:
    with ExitStack() as clients:
        runners = [clients.enter_context(connect(load([place.workers.client], env={}))[0]) for _ in requests]
        for _again in range(3):
            barrier = threading.Barrier(2)

            def ask(
                runner: Runner, request: Request, barrier: threading.Barrier = barrier
            ) -> Operation | VirtflowError:
                barrier.wait()
                try:
                    return runner.submit(request)
                except VirtflowError as refused:
                    return refused

            with ThreadPoolExecutor(2) as threads:
                asked = list(threads.map(ask, runners, requests))
            winner = requests[won(place, asked)]
            if isinstance(winner, SpawnRequest):
                place.run(DeleteRequest(name=winner.name))
            else:
                place.run(VolumeDetachRequest(name=wanted))
            assert place.attached() == NOTHING


def test_of_two_processes_that_attach_one_volume_at_once_one_does(place: Place, wanted: str) -> None:
    program = [sys.executable, "-P", "-m", "virtflow", "--config-file", str(place.workers.client), "volume", "attach"]
    asking = [
        subprocess.Popen([*program, wanted, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    told = [(each.communicate(timeout=SECONDS), each.returncode) for each in asking]
    assert sorted(code == 0 for _said, code in told) == [False, True], told
    assert place.attached() == ONE
    place.run(VolumeDetachRequest(name=wanted))


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _steady(_place: Place) -> Iterator[None]:
    """A guest, and a volume."""
    _place.run(halting("steady", image=WRITER, disk_gib=1, memory_mib=128, host=_place.compute.name))
    _place.run(VolumeCreateRequest(name="carried", size_gib=1))
    yield
    for host in _place.workers.lab.hosts:
        _place.start(host)
    _place.run(DeleteRequest(name="steady"))
    _place.run(VolumeDeleteRequest(name="carried"))


KILLS = {
    "attach": (
        ("ExportVolume:before:kill", "ConnectVolume:before:kill"),
        ("ExportVolume:after:kill", "ConnectVolume:after:kill"),
        ("SaveConnection:before:kill", "AttachLive:after:kill"),
        ("SaveConnection:after:kill", "AttachPersistent:after:kill"),
        ("ExportVolume.revert:before:kill", "AttachPersistent:before:raise;AttachLive.revert:after:kill"),
        ("ExportVolume.revert:after:kill", "AttachPersistent:after:raise;ConnectVolume.revert:before:kill"),
    ),
    "detach": (
        ("ForgetConnection:after:kill", "DetachLive:after:kill"),
        ("UnexportVolume:before:kill", "DetachPersistent:after:kill"),
        ("UnexportVolume:after:kill", "DisconnectVolume:after:kill"),
    ),
}


@pytest.mark.usefixtures("_steady")
@pytest.mark.parametrize(
    ("verb", "storage", "compute"),
    [(verb, *each) for verb, pairs in KILLS.items() for each in pairs],
)
def test_workers_of_both_hosts_that_are_killed_in_the_middle_leave_it_done_or_not_begun(
    place: Place, verb: str, storage: str, compute: str
) -> None:
    if verb == "detach":
        place.run(VolumeAttachRequest(name="carried", instance="steady"))
        place.goes_on("steady")
    for host, fault in ((place.storage, storage), (place.compute, compute)):
        place.restart(host, fault)
    attach, detach = VolumeAttachRequest(name="carried", instance="steady"), VolumeDetachRequest(name="carried")
    asked = place.client.submit(attach if verb == "attach" else detach)
    first, then = (place.compute, place.storage) if verb == "detach" or "raise" in compute else place.workers.lab.hosts
    for host in (first, then):
        place.wait_dead(host)
        place.start(host)
    ended = place.ended(asked)
    assert ended.outcome == ("REVERTED" if "raise" in compute else "SUCCESS"), ended.error
    assert place.settled() == []
    if verb == "attach" and ended.outcome == "SUCCESS":
        assert place.attached() == ONE
        place.goes_on("steady")
        place.run(VolumeDetachRequest(name="carried"))
    assert (place.attached(), place.state("carried")) == (NOTHING, "AVAILABLE")
    assert place.differing("steady", "carried") == []


@pytest.mark.usefixtures("_steady")
@pytest.mark.parametrize("first", ["storage", "compute"])
def test_a_worker_that_returns_leaves_what_has_the_number_of_its_target_by_now_alone(place: Place, first: str) -> None:
    place.run(VolumeCreateRequest(name="theirs", size_gib=1))
    pattern = b"\xee" * (16 << 20)
    with place.file("theirs").open("r+b") as file:
        file.write(pattern)
    place.restart(place.compute, "ConnectVolume:before:kill")
    asked = place.client.submit(VolumeAttachRequest(name="carried", instance="steady"))
    place.wait_dead(place.compute)
    place.kill(place.storage)
    number = place.tgt.number(place.target("carried"))
    place.tgt.remove(place.target("carried"))
    with Exported(place, "theirs"):
        assert place.tgt.number(place.target("theirs")) == number
        if first == "storage":
            place.start(place.storage)
            assert wait_until(lambda: place.target("carried") in place.tgt.targets(), SECONDS, 0.1)
            place.start(place.compute)
        else:
            place.start(place.compute)
            assert wait_until(lambda: place.task(asked, "AttachLive") == "REVERTED", 30, 0.1), place.told(asked)
            place.start(place.storage)
        ended = place.ended(asked)
        assert str(ended.outcome).startswith("SUCCESS" if first == "storage" else "REVERTED"), ended.error
        if first == "compute":
            # Where the other host was taken for dead by then, the rest of it is taken back when it has returned.
            assert wait_until(lambda: place.client.operations.get(asked.id).debts == 0, SECONDS, 0.2)
            assert place.tgt.targets() == [place.target("theirs")]
            place.run(VolumeAttachRequest(name="carried", instance="steady"))
        place.goes_on("steady")
        assert place.tgt.number(place.target("carried")) != number
        place.run(VolumeDetachRequest(name="carried"))
        assert place.tgt.targets() == [place.target("theirs")]
    assert place.differing("steady", "carried") == []
    with place.file("theirs").open("rb") as file:
        assert file.read(len(pattern)) == pattern
    place.run(VolumeDeleteRequest(name="theirs"))


class Exported:
    """A volume that is served to somebody as long as the block runs."""

    def __init__(self, place: Place, volume: str) -> None:
        config = place.workers.config(place.storage)
        self._database = Database(config.database.url)
        self._services = Services(config, self._database)
        found = place.client.services["volumes"].find(volume, "default")
        self._driver, self._name = self._services["volume_drivers"].get(found.backend), volume_name(found.id)

    def __enter__(self) -> None:
        self._driver.export(self._name, Reach(local=False, user="somebody", password="somebodys-password"))

    def __exit__(self, *_error: object) -> None:
        self._driver.unexport(self._name)
        self._services.close()
        self._database.close()


# -- a guest that does not let go --------------------------------------------------------------------------------------


def test_a_guest_that_hangs_in_its_firmware_keeps_its_volume_until_it_is_reset_or_gone(place: Place) -> None:
    place.run(halting("stuck", image=EMPTY, disk_gib=1, host=place.compute.name))
    place.run(VolumeCreateRequest(name="held", size_gib=1))
    lets_go = {"reset": lambda: "vdb" not in place.virsh("domblklist", place.uuid("stuck")), "destroy": lambda: True}
    for way, let_go in lets_go.items():
        place.run(VolumeAttachRequest(name="held", instance="stuck"))
        time.sleep(2)  # so that the firmware has found that there is nothing to boot
        refused = place.ends(VolumeDetachRequest(name="held"))
        assert (refused.outcome, refused.debts) == ("REVERTED", 0)
        assert "the guest has not let go of vdb in 10 s" in str(refused.error)
        assert (place.state("held"), place.attached()) == ("IN_USE", ONE)
        assert place.sizes("stuck").keys() == {"vda", "vdb"}
        assert place.settled() == []
        place.virsh(way, place.uuid("stuck"))
        # Asked once, the machine lets go at its next reset, although nobody wants it any more.
        assert wait_until(let_go, SECONDS, 0.2)
        place.run(VolumeDetachRequest(name="held"))
        assert (place.state("held"), place.attached()) == ("AVAILABLE", NOTHING)
    place.run(VolumeDeleteRequest(name="held"))
    place.run(DeleteRequest(name="stuck"))
