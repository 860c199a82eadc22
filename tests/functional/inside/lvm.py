"""The driver ``lvm`` on real volume groups. Runs in the appliance (``tests/functional/test_appliance.py``)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import OperationCancelled, VirtflowError, VolumeError
from virtflow.images.qemu_img import QemuImg
from virtflow.testing.volume_conformance import MIB, PATTERN, VolumeDriverConformance
from virtflow.volumes.exports.exporter import NO_SERVER
from virtflow.volumes.lvm_driver import LvmDriver
from virtflow.volumes.lvm_group import VolumeGroup

TAG = "virtflow.test"
# No copies of metadata that nobody reads, and no daemons.
QUICK = 'backup{backup=0 archive=0} activation{monitoring=0 udev_sync=0 udev_rules=0} global{thin_check_executable=""}'
A, B = "volume-a", "volume-b"


def lvm(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="class")
def group(request: pytest.FixtureRequest) -> VolumeGroup:
    # The blocks have held something before: what is new has to read as zeros all the same.
    Path(request.cls.disk).write_bytes(b"\xee" * (128 * MIB))
    name = f"lab-{Path(request.cls.disk).name}"
    lvm("vgcreate", "-q", name, request.cls.disk)
    lvm("lvcreate", "-q", "-y", "-Wn", "-n", "somebody-elses", "-L", "4m", name)
    if request.cls.pool:
        lvm("lvcreate", "-q", "-L", "96m", "--thinpool", request.cls.pool, name)
    return VolumeGroup(name, QUICK)


class _Lvm(VolumeDriverConformance):
    pool = ""
    disk = ""

    @pytest.fixture
    def driver(self, group: VolumeGroup) -> Iterator[LvmDriver]:
        driver = LvmDriver(group, self.pool, TAG, QemuImg(), NO_SERVER, clear=True)
        yield driver
        for name, volume in group.volumes().items():
            if TAG in volume.tags:
                group.remove(name)

    def test_a_volume_of_somebody_else_is_neither_shown_nor_touched(
        self, driver: LvmDriver, group: VolumeGroup
    ) -> None:
        assert driver.contents() == []
        with pytest.raises(VolumeError, match="not this backend's"):
            driver.create("somebody-elses", 4 * MIB)
        driver.remove("somebody-elses")
        driver.delete("somebody-elses", "one")
        assert "somebody-elses" in group.volumes()


class TestThick(_Lvm):
    disk = "/dev/vda"

    def test_a_full_group_takes_nothing_and_keeps_nothing(self, driver: LvmDriver) -> None:
        with pytest.raises(VirtflowError):
            driver.create(A, 4096 * MIB)
        assert driver.contents() == []

    def test_a_copy_that_is_cancelled_leaves_nothing(self, driver: LvmDriver, tmp_path: Path) -> None:
        class Cancelled(Activity):
            def cancelled(self) -> bool:
                return "volume-a.part" in driver.contents()

        with pytest.raises(OperationCancelled):
            driver.copy_image(A, self.image(tmp_path, 32 * MIB), 32 * MIB, Cancelled())
        assert driver.contents() == []

    def test_an_extension_that_was_killed_is_zeroed_by_the_next(
        self, driver: LvmDriver, group: VolumeGroup, tmp_path: Path
    ) -> None:
        driver.create(A, 4 * MIB)
        group.tag(A, add=[f"virtflow.growing-from.{4 * MIB}"])
        group.extend(A, 8 * MIB)
        self.write(driver, A, 4 * MIB, PATTERN, tmp_path)
        driver.extend(A, 8 * MIB)
        assert not any(self.read(driver, A, 4 * MIB, 4 * MIB, tmp_path))
        assert group.volumes()[A].tags == (TAG,)


class TestThin(_Lvm):
    pool = "pool"
    disk = "/dev/vdb"

    def test_an_image_takes_no_more_room_than_it_has(self, driver: LvmDriver, tmp_path: Path) -> None:
        before = driver.capacity().free
        driver.copy_image(A, self.image(tmp_path, 64 * MIB), 64 * MIB)
        assert before - driver.capacity().free < 4 * MIB
        assert self.read(driver, A, 0, len(PATTERN), tmp_path) == PATTERN

    def test_a_snapshot_outlives_its_volume_and_takes_no_room(self, driver: LvmDriver, tmp_path: Path) -> None:
        driver.create(A, 32 * MIB)
        self.write(driver, A, 0, PATTERN * 1024, tmp_path)
        before = driver.capacity().free
        driver.snapshot("snapshot-s", A)
        assert before - driver.capacity().free < MIB
        driver.remove(A)
        driver.clone(B, "snapshot-s", 64 * MIB)
        assert driver.size(B) == 64 * MIB
        assert self.read(driver, B, 0, len(PATTERN), tmp_path) == PATTERN
