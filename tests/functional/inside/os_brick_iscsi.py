"""A logical volume that tgt exports with CHAP, connected by the kernel's initiator through os-brick.

Runs in the appliance (``tests/functional/test_appliance.py``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.inside.iscsi_host import CONTROL, GROUP, PORT, sessions
from virtflow.errors import VolumeError
from virtflow.images.qemu_img import QemuImg
from virtflow.volumes.connectors.os_brick import OsBrickConnector
from virtflow.volumes.driver import Reach
from virtflow.volumes.exports.tgt import Portal, TgtExporter
from virtflow.volumes.exports.tgt_daemon import TgtDaemon
from virtflow.volumes.lvm_driver import LvmDriver
from virtflow.volumes.lvm_group import VolumeGroup

MIB = 1 << 20
NAME, PASSWORD = "volume-a", "alices-password"
ALICE = Reach(local=False, user="alice", password=PASSWORD)


@pytest.fixture(scope="module")
def driver(iscsi_host: None) -> LvmDriver:
    portal, prefix = Portal("127.0.0.1", PORT), "iqn.2026-01.virtflow.test:"
    exporter = TgtExporter(TgtDaemon(CONTROL), portal, prefix, Path("/run/tgt.lock"))
    return LvmDriver(VolumeGroup(GROUP), "", "virtflow.test", QemuImg(), exporter)


@pytest.fixture
def volume(driver: LvmDriver) -> Iterator[None]:
    driver.create(NAME, 32 * MIB)
    yield
    driver.unexport(NAME)
    driver.remove(NAME)
    assert (driver.contents(), driver.exported()) == ([], [])


def size_of(path: str) -> int:
    with open(path, "rb") as device:
        return device.seek(0, os.SEEK_END)


@pytest.mark.usefixtures("volume")
def test_what_is_written_to_the_device_is_on_the_logical_volume(driver: LvmDriver, connector: OsBrickConnector) -> None:
    connection = driver.export(NAME, ALICE)
    attached = connector.connect(connection, PASSWORD)
    assert connector.connect(connection, PASSWORD) == attached
    assert attached.path.startswith("/dev/disk/by-path/")
    with open(attached.path, "r+b") as device:
        device.write(b"through iscsi".ljust(4096))
        device.flush()
        os.fsync(device.fileno())
    assert Path("/dev", GROUP, NAME).read_bytes().startswith(b"through iscsi")
    driver.extend(NAME, 64 * MIB)
    connector.extend(connection)
    assert size_of(attached.path) == 64 * MIB
    for _again in range(2):
        connector.disconnect(connection)
    assert not Path(attached.path).exists()
    assert sessions() == b""
    assert "eventlet" not in sys.modules


@pytest.mark.usefixtures("volume")
def test_a_wrong_password_connects_nothing_and_is_not_told(driver: LvmDriver, connector: OsBrickConnector) -> None:
    connection = driver.export(NAME, ALICE)
    with pytest.raises(VolumeError) as refused:
        connector.connect(connection, "mallorys-guess")
    assert "mallorys-guess" not in str(refused.value)
    assert sessions() == b""
