"""What every volume driver must do, as tests to inherit:

    class TestMyDriver(VolumeDriverConformance):
        @pytest.fixture
        def driver(self, tmp_path): return MyDriver(...)

The fixture ``driver`` is a fresh driver over an empty backend. Content is looked at through
``export``: override ``read`` and ``write`` where a connection is no file or device of this host.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtflow.errors import VirtflowError
from virtflow.images.qemu_img import QemuImg
from virtflow.volumes.driver import Connection, VolumeDriver

MIB = 1 << 20
A, B, SNAPSHOT = "volume-a", "volume-b", "snapshot-s"
PATTERN = b"conformance".ljust(4096, b".")


class VolumeDriverConformance:
    """The suite. ``smallest`` is a size in bytes that the driver can make, and the step by which sizes differ."""

    smallest = 4 * MIB

    def write(self, driver: VolumeDriver, name: str, offset: int, content: bytes, scratch: Path) -> None:
        """Put content into a volume that nobody else uses."""
        connection, size = driver.export(name), driver.size(name)
        raw = _as_raw(connection, scratch / "written")
        with raw.open("r+b") as file:
            file.seek(offset)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if raw != Path(connection.path):
            QemuImg().convert(raw, "raw", connection.path, connection.format)
        assert driver.size(name) == size

    def read(self, driver: VolumeDriver, name: str, offset: int, length: int, scratch: Path) -> bytes:
        with _as_raw(driver.export(name), scratch / "read").open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def image(self, scratch: Path, size: int) -> Path:
        path = scratch / "image"
        path.write_bytes(PATTERN)
        with path.open("r+b") as file:
            file.truncate(size)
        return path

    def test_a_blank_volume_has_its_size_and_reads_as_zeros(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        assert driver.size(A) == self.smallest
        assert not any(self.read(driver, A, 0, 65536, tmp_path))

    def test_making_a_volume_twice_is_making_it_once(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        self.write(driver, A, 0, PATTERN, tmp_path)
        driver.create(A, self.smallest)
        assert self.read(driver, A, 0, len(PATTERN), tmp_path) == PATTERN

    def test_another_volume_of_the_same_name_is_refused(self, driver: VolumeDriver) -> None:
        driver.create(A, self.smallest)
        with pytest.raises(VirtflowError):
            driver.create(A, 2 * self.smallest)
        assert driver.size(A) == self.smallest

    def test_a_volume_of_an_image_has_its_content_and_the_size_asked_for(
        self, driver: VolumeDriver, tmp_path: Path
    ) -> None:
        image = self.image(tmp_path, self.smallest)
        if not driver.clone_image(A, image, 2 * self.smallest):
            assert driver.size(A) is None, "what could not be cloned leaves nothing"
            driver.copy_image(A, image, 2 * self.smallest)
        assert driver.size(A) == 2 * self.smallest
        assert self.read(driver, A, 0, len(PATTERN), tmp_path) == PATTERN
        assert not any(self.read(driver, A, self.smallest, 65536, tmp_path))

    def test_a_copied_image_is_copied_once(self, driver: VolumeDriver, tmp_path: Path) -> None:
        image = self.image(tmp_path, self.smallest)
        driver.copy_image(A, image, self.smallest)
        self.write(driver, A, 0, b"changed", tmp_path)
        driver.copy_image(A, image, self.smallest)
        assert self.read(driver, A, 0, 7, tmp_path) == b"changed"

    def test_a_clone_is_a_volume_of_its_own(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        self.write(driver, A, 0, PATTERN, tmp_path)
        driver.clone(B, A, 2 * self.smallest)
        self.write(driver, A, 0, b"changed", tmp_path)
        assert driver.size(B) == 2 * self.smallest
        assert self.read(driver, B, 0, len(PATTERN), tmp_path) == PATTERN

    def test_a_snapshot_keeps_what_the_volume_had(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        self.write(driver, A, 0, PATTERN, tmp_path)
        driver.snapshot(SNAPSHOT, A)
        driver.snapshot(SNAPSHOT, A)
        self.write(driver, A, 0, b"changed", tmp_path)
        driver.clone(B, SNAPSHOT, self.smallest)
        assert self.read(driver, B, 0, len(PATTERN), tmp_path) == PATTERN

    def test_a_volume_grows_and_keeps_its_content(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        self.write(driver, A, 0, PATTERN, tmp_path)
        for _again in range(2):
            driver.extend(A, 2 * self.smallest)
        driver.extend(A, self.smallest)
        assert driver.size(A) == 2 * self.smallest
        assert self.read(driver, A, 0, len(PATTERN), tmp_path) == PATTERN

    def test_what_was_written_beyond_the_old_end_is_never_cut_off(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        driver.extend(A, 2 * self.smallest)
        self.write(driver, A, self.smallest, PATTERN, tmp_path)
        with pytest.raises(VirtflowError):
            driver.shrink(A, self.smallest)
        assert self.read(driver, A, self.smallest, len(PATTERN), tmp_path) == PATTERN

    def test_a_deleted_volume_comes_back_from_the_trash(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, self.smallest)
        self.write(driver, A, 0, PATTERN, tmp_path)
        for _again in range(2):
            driver.delete(A, "one")
        assert (driver.size(A), driver.in_trash("one")) == (None, True)
        for _again in range(2):
            driver.restore(A, "one")
        assert not driver.in_trash("one")
        assert self.read(driver, A, 0, len(PATTERN), tmp_path) == PATTERN

    def test_a_purge_takes_one_trash_and_no_other(self, driver: VolumeDriver) -> None:
        for name, trash in ((A, "one"), (B, "two")):
            driver.create(name, self.smallest)
            driver.delete(name, trash)
        for _again in range(2):
            driver.purge("one")
        assert (driver.in_trash("one"), driver.in_trash("two")) == (False, True)

    def test_what_was_removed_leaves_nothing(self, driver: VolumeDriver) -> None:
        before = driver.contents()
        driver.create(A, self.smallest)
        driver.snapshot(SNAPSHOT, A)
        assert set(driver.contents()) == {*before, A, SNAPSHOT}
        for name in (A, SNAPSHOT, A, SNAPSHOT):
            driver.remove(name)
        assert driver.contents() == before

    def test_what_is_not_there_is_not_exported(self, driver: VolumeDriver) -> None:
        with pytest.raises(VirtflowError):
            driver.export(A)

    def test_exporting_and_unexporting_may_be_repeated(self, driver: VolumeDriver) -> None:
        driver.create(A, self.smallest)
        assert driver.export(A) == driver.export(A)
        for _again in range(2):
            driver.unexport(A)
        assert driver.size(A) == self.smallest

    def test_a_backend_knows_how_much_room_it_has(self, driver: VolumeDriver) -> None:
        capacity = driver.capacity()
        assert 0 < capacity.free <= capacity.total

    def test_nothing_is_served_that_nobody_has_asked_for(self, driver: VolumeDriver) -> None:
        driver.create(A, self.smallest)
        driver.export(A)
        driver.unexport(A)
        assert driver.exported() == []

    def test_what_an_extension_adds_reads_as_zeros(self, driver: VolumeDriver, tmp_path: Path) -> None:
        driver.create(A, 2 * self.smallest)
        self.write(driver, A, self.smallest, PATTERN, tmp_path)
        driver.remove(A)
        driver.create(B, self.smallest)
        driver.extend(B, 2 * self.smallest)
        assert not any(self.read(driver, B, self.smallest, self.smallest, tmp_path))


def _as_raw(connection: Connection, scratch: Path) -> Path:
    """The volume itself where it is raw, otherwise a copy of its content."""
    if connection.format == "raw":
        return Path(connection.path)
    QemuImg().convert(connection.path, connection.format, scratch, "raw")
    return scratch
