"""A guest that writes to volumes moves while it runs to the host that serves them by NBD, and away again.

What is served is locked there: it is reached by NBD on that host, too, and only the server ever opens it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.functional.test_live_migrate_volumes import console, decrypted, file_of, goes_on, moves, rows, volume
from tests.lab.migrating import WRITING, Movers
from tests.lab.writing import differing
from virtflow.requests import DeleteRequest, VolumeAttachRequest, VolumeCreateRequest, VolumeDetachRequest

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO = "labhost1", "labhost2"
SETTINGS = {"nbd": True}


def servers(movers: Movers) -> dict[str, int]:
    """The processes that serve volumes, by the volumes' ids."""
    found = (movers.workers.config(movers.hosts[ONE]).volumes.path / ".exports").glob("volume-*.pid")
    return {path.stem.removeprefix("volume-"): int(path.read_text()) for path in found}


def test_a_guest_comes_to_the_host_that_serves_its_volumes_goes_away_again_and_loses_nothing(
    movers: Movers, tmp_path: Path
) -> None:
    for name in ("data", "sealed"):
        movers.run(VolumeCreateRequest(name=name, size_gib=1, encrypted=name == "sealed"))
    ids = {volume(movers, name).id for name in ("data", "sealed")}
    movers.spawn("writer", TWO, WRITING, memory_mib=128, volumes=["data", "sealed"])
    served = servers(movers)
    assert served.keys() == ids
    for host in (ONE, TWO, ONE):
        moves(movers, "writer", host)
        attachments = rows(movers, "volume_attachments")
        assert {(each["host"], each["connection"]["kind"]) for each in attachments} == {(host, "nbd")}
        assert servers(movers) == served
        assert f"{movers.hosts[ONE].address}" in movers.virsh(host, "dumpxml", "writer", "--inactive")
    for pid in served.values():  # here, too, the guest waits for them
        os.kill(pid, signal.SIGKILL)
    last = goes_on(movers, ONE, "writer")
    assert "NOT-WRITTEN" not in console(movers, ONE, "writer")
    assert servers(movers).keys() == ids
    assert differing(decrypted(movers, "sealed", tmp_path / "sealed", last), range(1, last + 1)) == []
    # Detached and attached again, it is a file of that host.
    detached = movers.run(VolumeDetachRequest(name="data"))
    movers.client.request_undo(detached.id)
    movers.ended(detached, "UNDONE")
    assert {each["connection"]["kind"] for each in rows(movers, "volume_attachments")} == {"nbd"}
    assert movers.settled() == []
    movers.run(VolumeDetachRequest(name="data"))
    movers.run(VolumeAttachRequest(name="data", instance="writer"))
    kinds = {each["volume"]: each["connection"]["kind"] for each in rows(movers, "volume_attachments")}
    assert kinds == {volume(movers, "data").id: "file", volume(movers, "sealed").id: "nbd"}
    assert file_of(movers, "data").exists()
    assert movers.settled() == []
    movers.run(DeleteRequest(name="writer"))
    assert (servers(movers), rows(movers, "volume_attachments")) == ({}, [])
    assert movers.settled() == []
