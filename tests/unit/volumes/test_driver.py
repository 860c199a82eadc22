from __future__ import annotations

import pytest

from virtflow.errors import VolumeError
from virtflow.volumes.connectors.connector import Attached
from virtflow.volumes.connectors.qemu import QemuConnector
from virtflow.volumes.driver import REMOTE, Connection, Reach
from virtflow.volumes.file_driver import FileDriver

ISCSI = Connection("iscsi", address="192.0.2.1", port=3260, target="iqn.2026-01.test:volume-a", lun=1, user="u")


def test_a_connection_is_read_as_it_was_saved() -> None:
    assert Connection.from_dict(ISCSI.to_dict()) == ISCSI


def test_a_connection_of_another_version_is_read_as_far_as_it_is_understood() -> None:
    saved = {"kind": "file", "path": "/volumes/volume-a", "format": "qcow2", "of tomorrow": 1}
    assert Connection.from_dict(saved) == Connection("file", path="/volumes/volume-a", format="qcow2")


def test_a_password_is_not_shown() -> None:
    assert "hidden" not in repr(Reach(local=False, user="u", password="hidden"))


def test_qemu_opens_files_and_devices_by_path_and_everything_else_by_itself() -> None:
    connector = QemuConnector()
    assert connector.connect(Connection("block", path="/dev/vg/volume-a")) == Attached("block", "/dev/vg/volume-a")
    assert connector.connect(ISCSI, "secret") == Attached("network")


def test_only_an_nbd_server_that_has_gone_is_waited_for() -> None:
    connector, nbd = QemuConnector(lambda: 30), Connection("nbd", address="192.0.2.1", port=10809, target="volume-a")
    assert [connector.connect(each).reconnect for each in (nbd, ISCSI)] == [30, 0]


def test_a_backend_without_a_server_serves_its_own_host_only(tmp_path) -> None:
    driver = FileDriver(tmp_path, "raw", disk_tool=None)
    (tmp_path / "volume-a").write_bytes(b"")
    assert driver.export("volume-a").path == str(tmp_path / "volume-a")
    with pytest.raises(VolumeError, match="export = tgt or nbd"):
        driver.export("volume-a", REMOTE)
