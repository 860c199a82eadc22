"""Guests that move while they run and write to volumes, between hosts of which the first one has these volumes.

There QEMU opens their files, elsewhere it reaches them by iSCSI with CHAP: what is written on either side of a move has
to be on the volume in the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.migrating import BOOTING, PATIENCE, WRITING, Movers, Watched, movers_up
from tests.lab.processes import wait_until
from tests.lab.workers import NETWORK
from tests.lab.writing import SECTOR, differing, written
from virtflow.engine.leaving import LIVE, drain_host, still_there
from virtflow.persistence.models import metadata
from virtflow.persistence.volumes import Volume
from virtflow.requests import (
    DeleteRequest,
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    SpawnRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)
from virtflow.tasks.volume_encryption import KEY
from virtflow.testing.guest import build_guest

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

ONE, TWO, THREE = "labhost1", "labhost2", "labhost3"
GIB = 1 << 30


@pytest.fixture(scope="module")
def movers() -> Iterator[Movers]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with movers_up(Path(tempfile.mkdtemp(prefix="vflab-")), hosts=3, volumes=True) as up:
        up.furnish_guests(build_guest())
        yield up


def rows(movers: Movers, table: str, **where: Any) -> list[dict[str, Any]]:
    with movers.client.database.connect() as connection:
        found = connection.execute(sa.select(metadata.tables[table]).filter_by(**where))
        return [dict(row._mapping) for row in found]


def volume(movers: Movers, name: str) -> Volume:
    found: Volume = movers.client.services["volumes"].find(name, movers.client.config.project)
    return found


def file_of(movers: Movers, name: str) -> Path:
    """What the backend keeps it in."""
    found = volume(movers, name)
    backend = str(found.backend).partition("@")[2]
    return movers.workers.config(movers.hosts[ONE]).volumes.path / backend / f"volume-{found.id}"


def secrets(movers: Movers, host: str) -> set[str]:
    """The usages of those that libvirt keeps on a host."""
    return {line.split()[-1] for line in movers.virsh(host, "secret-list").splitlines()}


def console(movers: Movers, host: str, guest: str) -> str:
    """What the guest has said on this host."""
    path = movers.directory(host, guest) / "console.log"
    return path.read_text(errors="replace") if path.exists() else ""


def goes_on(movers: Movers, host: str, guest: str, sectors: int = 5) -> int:
    """Wait until the guest has written some more on this host; the last one."""
    before = len(written(console(movers, host, guest)))
    more = wait_until(lambda: len(written(console(movers, host, guest))) >= before + sectors, PATIENCE, 0.1)
    assert more, f"it does not write: {console(movers, host, guest)[-1000:]}"
    return written(console(movers, host, guest))[-1]


def decrypted(movers: Movers, name: str, into: Path, last: int) -> Path:
    """The beginning of an encrypted volume, as far as those sectors."""
    store = movers.client.services["secrets"]
    secret = ["--object", "secret,id=key,file=/dev/stdin"]
    image = f"if=driver=luks,key-secret=key,file.filename={file_of(movers, name)},file.locking=off"
    argv = ["qemu-img", "dd", *secret, "--image-opts", "-U", "-O", "raw"]
    argv += [image, f"of={into}", f"bs={SECTOR}", f"count={last + 1}"]
    key = store.get(store.reference(volume(movers, name).id, KEY))
    subprocess.run(argv, input=key, check=True)
    return into


def spawn_from(movers: Movers, root: str, name: str, host: str) -> None:
    """One that boots from this volume."""
    fields = {"vcpus": 1, "memory_mib": 128, "networks": [{"network": NETWORK}], "host": host}
    movers.run(SpawnRequest(**{"name": name, "boot_volume": root, **fields}))  # type: ignore[arg-type]


def moves(movers: Movers, guest: str, host: str) -> None:
    """It goes there, writes on, and nothing is left anywhere of where it was."""
    source = str(movers.instance(guest).host)
    goes_on(movers, source, guest)
    assert "NOT-WRITTEN" not in console(movers, source, guest)
    with Watched(movers, guest):
        movers.ended(movers.migrate(guest, host=host))
        goes_on(movers, host, guest)
    assert "NOT-WRITTEN" not in console(movers, host, guest)
    assert (movers.instance(guest).host, movers.runs_on(guest)) == (host, [host])
    assert movers.settled() == []


def test_a_guest_takes_its_volumes_to_other_hosts_and_back_and_loses_nothing_that_it_has_written(
    movers: Movers, tmp_path: Path
) -> None:
    assert movers.tgt is not None
    movers.run(VolumeCreateRequest(name="data", size_gib=1))
    movers.run(VolumeCreateRequest(name="sealed", size_gib=1, encrypted=True))
    ids = {name: volume(movers, name).id for name in ("data", "sealed")}
    key = f"virtflow/{ids['sealed']}"
    movers.spawn("plain", ONE, WRITING, memory_mib=128, volumes=["sealed", "data"])
    for host in (TWO, ONE, THREE):
        moves(movers, "plain", host)
        attachments = rows(movers, "volume_attachments")
        assert {each["host"] for each in attachments} == {host}
        assert {each["connection"]["kind"] for each in attachments} == {"file" if host == ONE else "iscsi"}
        assert len(movers.tgt.targets()) == (0 if host == ONE else 2)
        reach = {key} if host == ONE else {key, *ids.values()}
        assert {each: secrets(movers, each) for each in movers.hosts} == {each: set() for each in movers.hosts} | {
            host: reach
        }
        owners = {row["owner"] for row in rows(movers, "secrets")}
        assert owners == {ids["sealed"]} | ({each["id"] for each in attachments} if host != ONE else set())
        assert {volume(movers, name).state for name in ids} == {"IN_USE"}
    last = goes_on(movers, THREE, "plain")
    assert differing(file_of(movers, "data"), range(1, last + 1)) == []
    # What it is after a start is what its definition says: the present host's way to the volumes.
    movers.virsh(THREE, "destroy", "plain")
    movers.run(VolumeDetachRequest(name="data"))
    movers.virsh(THREE, "start", "plain")
    for host in (TWO, ONE):
        moves(movers, "plain", host)
    last = goes_on(movers, ONE, "plain")
    assert differing(decrypted(movers, "sealed", tmp_path / "sealed", last), range(1, last + 1)) == []
    movers.run(VolumeAttachRequest(name="data", instance="plain"))
    movers.run(DeleteRequest(name="plain"))
    assert (movers.tgt.targets(), rows(movers, "volume_attachments")) == ([], [])
    assert [secrets(movers, each) for each in movers.hosts] == [set(), set(), set()]
    assert {row["owner"] for row in rows(movers, "secrets")} == {ids["sealed"]}
    assert movers.settled() == []


def has(movers: Movers, host: str, guest: str, **disks: int) -> None:
    """Wait until the guest says that it has these disks, of so many GiB, and no other."""
    wanted = {disk: f"{size * GIB // 1024}" for disk, size in disks.items()}

    def told() -> dict[str, str]:
        lines = re.findall(r"^PARTS (.*?) *\r?$", console(movers, host, guest), re.MULTILINE)
        found = dict(part.split("=") for part in lines[-1].split()) if lines else {}
        return {disk: size for disk, size in found.items() if re.fullmatch("vd[a-z]", disk)}

    assert wait_until(lambda: told() == wanted, PATIENCE, 0.2), (told(), console(movers, host, guest)[-1000:])


def test_a_volume_of_an_image_is_booted_from_and_another_written_extended_copied_and_both_moved(
    movers: Movers,
) -> None:
    assert movers.tgt is not None
    movers.run(VolumeCreateRequest(name="root", size_gib=1, image=BOOTING))
    spawn_from(movers, "root", "teller", TWO)
    has(movers, TWO, "teller", vda=1)
    assert rows(movers, "volume_attachments")[0]["connection"]["kind"] == "iscsi"
    movers.run(VolumeCreateRequest(name="first", size_gib=1))
    movers.run(VolumeAttachRequest(name="first", instance="teller"))
    has(movers, TWO, "teller", vda=1, vdb=1)
    goes_on(movers, TWO, "teller")
    movers.run(VolumeExtendRequest(name="first", size_gib=2))
    has(movers, TWO, "teller", vda=1, vdb=2)
    goes_on(movers, TWO, "teller")
    before = written(console(movers, TWO, "teller"))
    movers.run(SnapshotCreateRequest(name="then", volume="first"))
    movers.run(VolumeCreateRequest(name="second", snapshot="then"))
    assert differing(file_of(movers, "second"), before) == []
    goes_on(movers, TWO, "teller")
    assert "NOT-WRITTEN" not in console(movers, TWO, "teller")
    movers.run(VolumeDetachRequest(name="first"))
    has(movers, TWO, "teller", vda=1)
    movers.run(VolumeAttachRequest(name="second", instance="teller"))
    has(movers, TWO, "teller", vda=1, vdb=2)
    goes_on(movers, TWO, "teller")
    for host in (ONE, THREE):
        with Watched(movers, "teller"):
            movers.ended(movers.migrate("teller", host=host))
            goes_on(movers, host, "teller")
        assert movers.runs_on("teller") == [host]
        assert movers.settled() == []
    after = written(console(movers, THREE, "teller"))
    assert min(after) > max(before)
    assert differing(file_of(movers, "second"), [*before, *after]) == []
    assert differing(file_of(movers, "first"), before) == []
    movers.run(DeleteRequest(name="teller"))
    movers.run(SnapshotDeleteRequest(name="then"))
    for name in ("root", "first", "second"):
        movers.run(VolumeDeleteRequest(name=name))
    assert movers.client.purge(older_than=0)
    assert (movers.tgt.targets(), rows(movers, "volume_attachments")) == ([], [])
    assert [secrets(movers, each) for each in movers.hosts] == [set(), set(), set()]
    assert movers.settled() == []


def test_a_guest_that_dies_half_way_with_its_libvirt_is_started_again_and_reaches_its_volume(movers: Movers) -> None:
    # libvirt has forgotten the volume's password by then; once it has that again, the guest starts, and goes.
    movers.run(VolumeCreateRequest(name="kept", size_gib=1, encrypted=True))
    movers.spawn("dies", TWO, volumes=["kept"])
    movers.mark(TWO, "dies", mib=40)
    reach = {volume(movers, "kept").id, f"virtflow/{volume(movers, 'kept').id}"}
    assert secrets(movers, TWO) >= reach
    with Watched(movers, "dies"):
        asked = movers.migrate("dies", host=THREE, bandwidth=2)
        movers.wait_half_way(asked)
        pid = movers.qemu_pid(TWO, "dies")
        assert pid is not None
        for each in (pid, movers.hosts[TWO].libvirtd_pid()):
            os.kill(each, signal.SIGKILL)
        movers.hosts[TWO].start()
        ended = movers.ended(asked)
    assert [task.attempts for task in ended.tasks if task.name == "Migrate"] == [2]
    assert (movers.instance("dies").host, movers.runs_on("dies")) == (THREE, [THREE])
    assert movers.is_marked(THREE, "dies")
    assert (volume(movers, "kept").state, secrets(movers, THREE) >= reach) == ("IN_USE", True)
    assert movers.settled() == []


def test_a_host_that_has_volumes_is_drained_of_guests_that_boot_from_them_while_they_run(movers: Movers) -> None:
    movers.run(VolumeCreateRequest(name="base", size_gib=1, image=BOOTING))
    names = ["one", "two"]
    for name in names:
        movers.run(VolumeCreateRequest(name=f"root-{name}", source_volume="base"))
        spawn_from(movers, f"root-{name}", name, ONE)
    with Watched(movers, *names):
        gone = drain_host(movers.client, ONE, how=LIVE)
        assert still_there(gone) == []
    for name in names:
        assert movers.runs_on(name) == [movers.instance(name).host] != [ONE]
    movers.client.core.hosts.enable(ONE)
    assert movers.settled() == []
