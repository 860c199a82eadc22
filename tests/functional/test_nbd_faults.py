"""A guest on one host writes to a volume of another by NBD, and the qemu-nbd that serves it dies.

QEMU's NBD client fails what is asked of it without a server; the guest has to be halted then, and to go on later,
and what it was told is written has to be on the volume, in whatever format that is kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.hosts import LabHost, missing
from tests.lab.processes import alive, wait_until
from tests.lab.serving import SECONDS, WRITER, Place, halting, place_up
from tests.lab.writing import differing, written
from virtflow.engine.halted_guests import HaltedGuests
from virtflow.engine.services import Services
from virtflow.persistence.database import Database
from virtflow.persistence.instances import GOING_ON
from virtflow.requests import (
    DeleteRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
)
from virtflow.testing.guest import build_guest

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

IO_ERROR, BY_USER = "paused (I/O error)", "paused (user)"
_ROUND = 5.0
"""Seconds between two looks of a worker."""


@pytest.fixture(scope="module")
def _place() -> Iterator[Place]:
    if reason := missing():
        pytest.skip(reason)
    settings = {"volumes.backends": "plain:file:raw,thin:file:qcow2"}
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), settings, nbd=True) as up:
        up.furnish_guests(build_guest())
        for name in ("plain", "thin"):
            up.client.services["volume_types"].create(name, {"backend": name})
        up.run(halting("writer", image=WRITER, disk_gib=1, memory_mib=128, host=up.compute.name))
        yield up
        up.run(DeleteRequest(name="writer"))


@pytest.fixture
def place(_place: Place) -> Iterator[Place]:
    """Both workers run before a test and after it; then nothing is left of it."""
    yield _place
    for host in _place.workers.lab.hosts:
        _place.start(host)
    assert _place.settled() == []


@dataclass
class Data:
    """A volume to which the guest writes; ``said`` is how much the guest had said before it had that."""

    place: Place
    name: str
    said: int

    def console(self) -> str:
        return self.place.console("writer")[self.said :]

    def unharmed(self, scratch: Path) -> bool:
        """Whether the guest has seen no error, and all that it was told is written is on the volume."""
        told, content = self.console(), scratch / "content"
        kind = "qcow2" if "@thin" in str(self.place.volume(self.name).backend) else "raw"
        source = f"driver={kind},file.driver=file,file.filename={self.place.file(self.name)},file.locking=off"
        subprocess.run(["qemu-img", "convert", "-U", "--image-opts", "-O", "raw", source, content], check=True)
        assert len(written(told)) > 1
        assert differing(content, written(told)) == []
        assert "NOT-WRITTEN" not in told
        return "I/O error" not in told


@pytest.fixture(params=["plain", "thin"])
def data(place: Place, request: pytest.FixtureRequest) -> Iterator[Data]:
    place.run(VolumeCreateRequest(name="data", size_gib=1, type=request.param))
    found = Data(place, "data", len(place.console("writer")))
    place.run(VolumeAttachRequest(name="data", instance="writer"))
    place.goes_on("writer")
    yield found
    for host in place.workers.lab.hosts:
        place.start(host)
    place.goes_on("writer")
    place.run(VolumeDetachRequest(name="data"))
    assert (records(place), place.rows("volume_attachments")) == ([], [])
    place.run(VolumeDeleteRequest(name="data"))


def records(place: Place) -> list[Path]:
    """What the backend's host keeps of what it serves."""
    return sorted((place.workers.config(place.storage).volumes.path / ".exports").glob("volume-*"))


def kill_server(place: Place) -> None:
    """At once, with whatever it has in its memory."""
    (file,) = (path for path in records(place) if path.suffix == ".pid")
    pid = int(file.read_text())
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not alive(pid), SECONDS, 0.01)


def state(place: Place) -> str:
    return place.virsh("domstate", "--reason", place.uuid("writer"))


def halt(place: Place, *workers: LabHost) -> None:
    """The server and these workers are gone, and the guest has tried to write."""
    for host in workers:
        place.kill(host)
    kill_server(place)
    assert wait_until(lambda: state(place) == IO_ERROR, SECONDS, 0.1), state(place)


def test_a_guest_whose_server_was_killed_again_and_again_goes_on_and_loses_nothing(
    place: Place, data: Data, tmp_path: Path
) -> None:
    for _again in range(2):
        kill_server(place)
        place.goes_on("writer")
        assert data.unharmed(tmp_path)


def test_a_guest_is_halted_as_long_as_nobody_serves_its_volume(place: Place, data: Data, tmp_path: Path) -> None:
    halt(place, place.storage)
    time.sleep(_ROUND + 1)
    assert state(place) == IO_ERROR
    assert any("data is not served to labhost2" in line for line in place.problems())
    place.start(place.storage)
    place.goes_on("writer")
    assert state(place).startswith("running")
    assert data.unharmed(tmp_path)
    assert wait_until(lambda: place.instance("writer").task_state is None, SECONDS, 0.1)


@pytest.mark.parametrize("data", ["plain"], indirect=True)
def test_a_guest_that_somebody_has_paused_stays_so(place: Place, data: Data, tmp_path: Path) -> None:
    place.virsh("suspend", place.uuid("writer"))
    kill_server(place)
    time.sleep(2 * _ROUND + 1)
    assert state(place) == BY_USER
    place.virsh("resume", place.uuid("writer"))
    place.goes_on("writer")
    assert data.unharmed(tmp_path)


@pytest.mark.parametrize("data", ["plain"], indirect=True)
def test_a_halted_guest_stays_so_while_an_operation_is_at_work_on_it(place: Place, data: Data, tmp_path: Path) -> None:
    halt(place, place.compute, place.storage)
    place.start(place.storage)
    config, uuid = place.workers.config(place.compute), place.uuid("writer")
    database = Database(config.database.url)
    services = Services(config, database)
    try:
        instances, mark = services["instances"], "HALTING/an-operation"
        assert instances.compare_and_set(uuid, {"task_state": None}, {"task_state": mark})
        halted = HaltedGuests(services, place.compute.name)
        assert (halted.let_go_on(), state(place)) == ([], IO_ERROR)
        assert instances.compare_and_set(uuid, {"task_state": mark}, {"task_state": GOING_ON})
        halted = HaltedGuests(services, place.compute.name)  # that was the mark of one that was killed
        assert wait_until(lambda: halted.let_go_on() == [uuid], SECONDS, 1)
        assert instances.get(uuid).task_state is None
    finally:
        services.close()
        database.close()
    place.goes_on("writer")
    assert data.unharmed(tmp_path)


@pytest.mark.parametrize("data", ["plain"], indirect=True)
def test_a_halted_guest_lets_go_of_its_volume_as_soon_as_that_is_served(place: Place, data: Data) -> None:
    halt(place, place.compute, place.storage)
    place.start(place.storage)
    asked = place.client.submit(VolumeDetachRequest(name=data.name))
    assert wait_until(lambda: place.instance("writer").task_state is not None, SECONDS, 0.1)
    assert state(place) == IO_ERROR
    place.start(place.compute)
    assert place.ended(asked).outcome == "SUCCESS"
    assert state(place).startswith("running")
    place.run(VolumeAttachRequest(name=data.name, instance="writer"))
