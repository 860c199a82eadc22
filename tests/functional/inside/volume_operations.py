"""Operations on volumes that are logical volumes of a thin pool: what a host makes of them, from an image to the purge.

Runs in the appliance (``tests/functional/test_appliance.py``).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.functional.inside.iscsi_host import GROUP, sessions
from tests.functional.inside.lvm_runner import on_thin
from virtflow.engine.audit import audit_of
from virtflow.engine.runner import Runner
from virtflow.images.catalog import LocalCatalog
from virtflow.images.luks import payload
from virtflow.requests import (
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeExtendRequest,
)
from virtflow.tasks.volume_encryption import KEY
from virtflow.testing.throwaway_host import ThrowawayHost
from virtflow.volumes.connectors.os_brick import OsBrickConnector
from virtflow.volumes.driver import Connection, Reach, volume_name

MIB, GIB = 1 << 20, 1 << 30
IMAGE, WRITTEN, LATER = (word.ljust(4096) for word in (b"the image", b"what was written", b"what was written later"))


@pytest.fixture
def runner(iscsi_host: None) -> Iterator[Runner]:
    """Afterwards nothing is left: neither volumes nor targets nor sessions nor rows."""
    host = ThrowawayHost.make()
    host.migrate()
    with on_thin(host) as runner:
        image = host.root / "image.raw"
        image.write_bytes(IMAGE.ljust(4 * MIB, b"\0"))
        LocalCatalog(runner.config.images.catalog).add(image, "image", "raw")
        yield runner
        (driver,) = (runner.services["volume_drivers"].get(name) for name in runner.services["volume_drivers"].names())
        assert (driver.contents(), driver.exported(), sessions()) == ([], [], b"")
        assert audit_of(runner) == []
    host.discard()


@contextmanager
def connected(runner: Runner, connector: OsBrickConnector, name: str) -> Iterator[tuple[Path, Connection]]:
    """The device that a volume is on this host, by iSCSI, with a password."""
    found = runner.services["volumes"].find(name, runner.config.project)
    driver, on_backend = runner.services["volume_drivers"].get(found.backend), volume_name(found.id)
    connection = driver.export(on_backend, Reach(local=False, user="alice", password="alices-password"))
    try:
        yield Path(connector.connect(connection, "alices-password").path), connection
    finally:
        connector.disconnect(connection)
        driver.unexport(on_backend)


def write(device: Path, offset: int, content: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), content, offset)
        os.fsync(file.fileno())


def read(device: Path, offset: int) -> bytes:
    with device.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), 4096, offset)


def test_a_volume_of_an_image_is_used_extended_kept_copied_and_deleted(
    runner: Runner, connector: OsBrickConnector
) -> None:
    runner.run(VolumeCreateRequest(name="root", size_gib=1, image="image"))
    with connected(runner, connector, "root") as (device, connection):
        assert read(device, 0) == IMAGE
        write(device, MIB, WRITTEN)
        runner.run(VolumeExtendRequest(name="root", size_gib=2))
        connector.extend(connection)
        write(device, 2 * GIB - 4096, WRITTEN)
        assert read(device, MIB) == WRITTEN
    runner.run(SnapshotCreateRequest(name="then", volume="root"))
    with connected(runner, connector, "root") as (device, _connection):
        assert read(device, 2 * GIB - 4096) == WRITTEN
        write(device, MIB, LATER)
    runner.run(VolumeCreateRequest(name="copy", snapshot="then"))
    with connected(runner, connector, "copy") as (device, _connection):
        assert [read(device, offset) for offset in (0, MIB, 2 * GIB - 4096)] == [IMAGE, WRITTEN, WRITTEN]
    runner.run(SnapshotDeleteRequest(name="then"))
    for name in ("copy", "root"):
        runner.run(VolumeDeleteRequest(name=name))
    runner.purge(older_than=0)


def test_an_encrypted_logical_volume_has_the_image_for_whoever_has_its_key(runner: Runner) -> None:
    runner.run(VolumeCreateRequest(name="sealed", size_gib=1, image="image", encrypted=True))
    made = runner.services["volumes"].find("sealed", runner.config.project)
    device = Path("/dev", GROUP, volume_name(made.id))
    assert read(device, 0).startswith(b"LUKS\xba\xbe")
    secrets = runner.services["secrets"]
    disk = f"driver=luks,key-secret=key,file.driver=host_device,file.filename={device}"
    words = ["qemu-img", "info", "--output=json", "--object", "secret,id=key,file=/dev/stdin", "--image-opts", disk]
    key = secrets.get(secrets.reference(made.id, KEY))
    shown = subprocess.run(words, input=key, check=True, capture_output=True, timeout=60).stdout
    assert f'"virtual-size": {payload(GIB)}'.encode() in shown
    words = ["qemu-io", "-r", "--object", "secret,id=key,file=/dev/stdin", "--image-opts", "-c", "read -v 0 16", disk]
    shown = subprocess.run(words, input=key, check=True, capture_output=True, timeout=60).stdout
    assert b"the.image" in shown
    runner.run(VolumeDeleteRequest(name="sealed"))
    runner.purge(older_than=0)
