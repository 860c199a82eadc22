"""Volumes that other hosts reach: real servers, and QEMU's own clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import tgt as lab_tgt
from tests.lab.servers import free_port
from tests.lab.tgt import Tgt
from virtflow.errors import HostLacks, VolumeError, VolumeServerFailed
from virtflow.images.qemu_img import QemuImg
from virtflow.volumes.driver import Connection, Reach
from virtflow.volumes.exports.nbd import NbdExporter
from virtflow.volumes.exports.tgt import Portal, TgtExporter
from virtflow.volumes.exports.tgt_daemon import TgtDaemon
from virtflow.volumes.file_driver import FileDriver

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

MIB = 1 << 20
A, B = "volume-a", "volume-b"
PREFIX = "iqn.2026-01.virtflow.test:"
ALICE = Reach(local=False, user="alice", password="alices-password")


def client(connection: Connection, password: str = ALICE.password) -> list[str]:
    """Arguments with which a program of QEMU opens it as a raw disk."""
    if connection.kind == "nbd":
        server = {"type": "inet", "host": connection.address, "port": str(connection.port)}
        disk = {"driver": "nbd", "server": server, "export": connection.target}
    else:
        portal = f"{connection.address}:{connection.port}"
        disk = {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": connection.target, "lun": 1}
        if connection.user:
            disk |= {"user": connection.user, "password-secret": "chap"}
    opened = json.dumps({"driver": "raw", "file": disk})
    return ["--object", f"secret,id=chap,data={password}", f"json:{opened}"]


def measured(connection: Connection, password: str = ALICE.password) -> int:
    """Its size in bytes, as a client sees it; CalledProcessError where it is not let in."""
    command = ["qemu-img", "info", "--output=json", *client(connection, password)]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return int(json.loads(shown.stdout)["virtual-size"])


def write(connection: Connection, pattern: str) -> None:
    *secret, disk = client(connection)
    command = ["qemu-io", *secret, "-c", f"write -P {pattern} 0 4096", disk]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, text=True)
    assert "wrote 4096/4096" in done.stdout, done.stdout


@pytest.fixture(scope="module")
def tgtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tgt]:
    if reason := lab_tgt.missing():
        pytest.skip(reason)
    with lab_tgt.tgt(tmp_path_factory.mktemp("tgtd")) as running:
        yield running


class TestTgt:
    @pytest.fixture
    def daemon(self, tgtd: Tgt) -> TgtDaemon:
        return TgtDaemon(tgtd.control)

    @pytest.fixture
    def driver(self, tgtd: Tgt, daemon: TgtDaemon, tmp_path: Path) -> Iterator[FileDriver]:
        exporter = TgtExporter(daemon, Portal(tgtd.address, tgtd.port), PREFIX, tmp_path / "lock")
        driver = FileDriver(tmp_path / "backend", "raw", QemuImg(), exporter)
        for name in (A, B):
            driver.create(name, 16 * MIB)
        yield driver
        for name in (A, B):
            driver.unexport(name)
        assert (daemon.targets(), daemon.accounts()) == ({}, [])

    def test_what_a_client_writes_is_on_the_volume(self, driver: FileDriver, tmp_path: Path) -> None:
        connection = driver.export(A, ALICE)
        assert connection == driver.export(A, ALICE)
        assert "password" not in json.dumps(connection.to_dict())
        write(connection, "0x5a")
        assert (tmp_path / "backend" / A).read_bytes()[:4096] == b"\x5a" * 4096
        assert driver.exported() == [A]

    @pytest.mark.parametrize("password", ["alices-passw0rd", "another-password"])
    def test_nobody_gets_in_without_the_password(self, driver: FileDriver, password: str) -> None:
        connection = driver.export(A, ALICE)
        with pytest.raises(subprocess.CalledProcessError):
            measured(connection, password)
        with pytest.raises(subprocess.CalledProcessError):
            measured(Connection.from_dict(connection.to_dict() | {"user": ""}))

    def test_another_user_locks_the_one_before_out(self, driver: FileDriver) -> None:
        before = driver.export(A, ALICE)
        bob = Reach(local=False, user="bob", password="bobs-password")
        after = driver.export(A, bob)
        assert measured(after, bob.password) == 16 * MIB
        with pytest.raises(subprocess.CalledProcessError):
            measured(before)

    @pytest.mark.parametrize("last", ["add_target", "add_account", "bind_account", "add_lun", "let_in"])
    def test_an_export_that_was_killed_lets_nobody_in_and_is_completed_later(
        self, last: str, driver: FileDriver, daemon: TgtDaemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dying(*_args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(TgtDaemon, last, dying)
            with pytest.raises(KeyboardInterrupt):
                driver.export(A, ALICE)
        assert not any(each.initiators for each in daemon.targets().values())
        assert driver.exported() == [], "nobody would complete it"
        assert measured(driver.export(A, ALICE)) == 16 * MIB
        assert driver.exported() == [A]

    def test_a_daemon_that_was_killed_serves_again_what_is_exported_again(self, driver: FileDriver, tgtd: Tgt) -> None:
        connection = driver.export(A, ALICE)
        tgtd.kill()
        with pytest.raises(HostLacks, match="tgtd"):
            driver.export(A, ALICE)
        driver.unexport(A)  # who does not run serves nobody
        assert driver.exported() == []
        tgtd.start()
        assert driver.exported() == []
        assert driver.export(A, ALICE) == connection
        assert measured(connection) == 16 * MIB

    def test_an_export_that_nobody_wants_any_more_is_not_made(self, driver: FileDriver, daemon: TgtDaemon) -> None:
        with pytest.raises(VolumeError, match="nobody wants it"):
            driver.export(A, Reach(local=False, user="alice", password=ALICE.password, wanted=lambda: False))
        assert daemon.targets() == {}

    def test_a_number_that_another_target_has_now_is_left_alone(
        self, driver: FileDriver, daemon: TgtDaemon, tgtd: Tgt
    ) -> None:
        driver.export(A, ALICE)
        number = daemon.targets()[PREFIX + A].id
        tgtd.kill()
        tgtd.start()
        driver.export(B, Reach(local=False, user="bob", password="bobs-password"))
        assert daemon.targets()[PREFIX + B].id == number
        driver.unexport(A)
        driver.export(A, ALICE)
        assert driver.exported() == [A, B]
        assert daemon.targets()[PREFIX + A].id != number

    def test_a_target_that_serves_something_else_is_neither_used_nor_removed(
        self, driver: FileDriver, daemon: TgtDaemon, tmp_path: Path
    ) -> None:
        other = tmp_path / "somebody-elses"
        other.write_bytes(bytes(MIB))
        daemon.add_target(7, PREFIX + A)
        daemon.add_lun(7, 1, other)
        for attempt in (
            lambda: driver.export(A, ALICE),
            lambda: driver.unexport(A),
            lambda: driver.extend(A, 32 * MIB),
        ):
            with pytest.raises(VolumeError, match="somebody-elses"):
                attempt()
        assert daemon.targets()[PREFIX + A].luns == {1: str(other)}
        daemon.delete_target(7)

    def test_what_the_daemon_refuses_is_said_without_the_password(
        self, driver: FileDriver, daemon: TgtDaemon, tmp_path: Path
    ) -> None:
        driver.export(A, ALICE)
        with pytest.raises(VolumeServerFailed, match="tgtd cannot add accounts: the account exists already") as found:
            daemon.add_account(ALICE.user, ALICE.password)
        assert ALICE.password not in str(found.value)
        number = daemon.targets()[PREFIX + A].id
        with pytest.raises(VolumeServerFailed, match="the LUN exists already"):
            daemon.add_lun(number, 1, tmp_path / "backend" / B)
        with pytest.raises(VolumeServerFailed, match="no such target"):
            daemon.delete_target(number + 1)

    def test_more_targets_than_one_answer_of_the_socket_holds_are_listed(self, daemon: TgtDaemon) -> None:
        names = [f"{PREFIX}many-{number}" for number in range(1, 301)]
        try:
            for number, name in enumerate(names, 1):
                daemon.add_target(number, name)
            assert sorted(daemon.targets()) == sorted(names)
        finally:
            for target in daemon.targets().values():
                daemon.delete_target(target.id)

    def test_a_client_sees_a_volume_grow(self, driver: FileDriver) -> None:
        connection = driver.export(A, ALICE)
        driver.extend(A, 32 * MIB)
        assert measured(connection) == 32 * MIB
        driver.shrink(A, 16 * MIB)
        assert measured(connection) == 16 * MIB

    def test_a_qcow2_file_is_refused(self, driver: FileDriver, tmp_path: Path, tgtd: Tgt, daemon: TgtDaemon) -> None:
        exporter = TgtExporter(daemon, Portal(tgtd.address, tgtd.port), PREFIX, tmp_path / "lock")
        other = FileDriver(tmp_path / "other", "qcow2", QemuImg(), exporter)
        other.create(A, MIB)
        with pytest.raises(VolumeError, match="nbd"):
            other.export(A, ALICE)


@pytest.mark.parametrize("kept", ["raw", "qcow2"])
class TestNbd:
    @pytest.fixture
    def exporter(self, tmp_path: Path) -> NbdExporter:
        port = free_port()
        return NbdExporter("127.0.0.1", port, min(port + 20, 65535), tmp_path / "exports")

    @pytest.fixture
    def driver(self, exporter: NbdExporter, kept: str, tmp_path: Path) -> Iterator[FileDriver]:
        driver = FileDriver(tmp_path / "backend", kept, QemuImg(), exporter)
        for name in (A, B):
            driver.create(name, 16 * MIB)
        yield driver
        for name in (A, B):
            driver.unexport(name)
        assert [path.name for path in (tmp_path / "exports").iterdir()] == [".lock"]

    def server(self, tmp_path: Path, name: str) -> int:
        return int((tmp_path / "exports" / f"{name}.pid").read_text())

    def test_what_a_client_writes_is_on_the_volume(self, driver: FileDriver, kept: str, tmp_path: Path) -> None:
        connection = driver.export(A, ALICE)
        assert connection == driver.export(A, ALICE)
        write(connection, "0x5a")
        driver.unexport(A)
        with pytest.raises(subprocess.CalledProcessError):
            measured(connection)
        QemuImg().convert(tmp_path / "backend" / A, kept, tmp_path / "read", "raw")
        assert (tmp_path / "read").read_bytes()[:4096] == b"\x5a" * 4096

    def test_each_volume_has_a_port_of_its_own(self, driver: FileDriver) -> None:
        first, second = driver.export(A, ALICE), driver.export(B, ALICE)
        assert first.port != second.port
        assert (measured(first), driver.exported()) == (16 * MIB, [A, B])

    def test_who_looks_for_a_volume_at_a_port_that_another_one_has_by_now_finds_nothing(
        self, driver: FileDriver
    ) -> None:
        before = driver.export(A, ALICE)
        driver.unexport(A)
        assert driver.export(B, ALICE).port == before.port
        with pytest.raises(subprocess.CalledProcessError):
            measured(before)

    def test_a_server_that_was_killed_comes_back_where_it_was(self, driver: FileDriver, tmp_path: Path) -> None:
        connection = driver.export(A, ALICE)
        os.kill(self.server(tmp_path, A), signal.SIGKILL)
        with pytest.raises(subprocess.CalledProcessError):
            measured(connection)
        assert driver.export(A, ALICE) == connection
        assert measured(connection) == 16 * MIB

    def test_a_process_that_has_the_servers_number_by_now_is_left_alone(
        self, driver: FileDriver, tmp_path: Path
    ) -> None:
        driver.export(A, ALICE)
        os.kill(self.server(tmp_path, A), signal.SIGKILL)
        (tmp_path / "exports" / f"{A}.pid").write_text(str(os.getpid()))
        driver.unexport(A)

    def test_a_port_that_is_taken_is_passed_over(self, driver: FileDriver, exporter: NbdExporter) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", exporter._ports[0]))
            taken.listen()
            assert driver.export(A, ALICE).port != exporter._ports[0]

    def test_a_volume_that_is_served_does_not_grow(self, driver: FileDriver) -> None:
        driver.export(A, ALICE)
        with pytest.raises(VolumeError, match="detach it first"):
            driver.extend(A, 32 * MIB)
        assert driver.size(A) == 16 * MIB
        driver.unexport(A)
        driver.extend(A, 32 * MIB)
        assert measured(driver.export(A, ALICE)) == 32 * MIB
