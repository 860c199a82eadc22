from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from virtflow.errors import CommandFailed, ConfigurationError, HostElsewhere
from virtflow.images.qemu_img import QemuImg
from virtflow.testing.volume_conformance import MIB, VolumeDriverConformance
from virtflow.volumes.drivers import BackendSettings, VolumeDrivers
from virtflow.volumes.file_driver import FileDriver

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")


@needs_qemu_img
class TestRawFiles(VolumeDriverConformance):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FileDriver:
        return FileDriver(tmp_path / "backend", "raw", QemuImg())

    def test_holes_of_an_image_stay_holes(self, driver: FileDriver, tmp_path: Path) -> None:
        driver.copy_image("volume-a", self.image(tmp_path, 64 * MIB), 64 * MIB)
        assert (tmp_path / "backend" / "volume-a").stat().st_blocks * 512 < MIB

    def test_an_extension_that_nobody_has_written_to_can_be_taken_back(self, driver: FileDriver) -> None:
        driver.create("volume-a", MIB)
        driver.extend("volume-a", 2 * MIB)
        driver.shrink("volume-a", MIB)
        assert driver.size("volume-a") == MIB

    def test_a_copy_that_fails_leaves_nothing_half_done(self, driver: FileDriver, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed):
            driver.copy_image("volume-a", tmp_path / "there is none", MIB)
        assert driver.contents() == []

    def test_a_volume_is_its_owners_alone(self, driver: FileDriver, tmp_path: Path) -> None:
        driver.create("volume-a", MIB)
        assert (tmp_path / "backend" / "volume-a").stat().st_mode & 0o777 == 0o600


@needs_qemu_img
class TestQcow2Files(VolumeDriverConformance):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FileDriver:
        return FileDriver(tmp_path / "backend", "qcow2", QemuImg())


def drivers(*backends: str, path: Path = Path("/nowhere")) -> VolumeDrivers:
    return VolumeDrivers("node1", backends, BackendSettings("", path, "raw", QemuImg()))


def test_backends_are_called_after_their_host() -> None:
    assert drivers("fast:file", "slow:file").names() == {"node1@fast": "file", "node1@slow": "file"}


def test_each_backend_has_files_of_its_own(tmp_path: Path) -> None:
    both = drivers("fast:file", "slow:file", path=tmp_path)
    for name in ("fast", "slow"):
        both.get(f"node1@{name}").capacity()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fast", "slow"]


def test_a_backend_of_another_host_cannot_be_reached_from_here() -> None:
    with pytest.raises(HostElsewhere):
        drivers("fast:file").get("node2@fast")


def test_what_follows_the_driver_is_the_backends_own(tmp_path: Path) -> None:
    both = drivers("plain:file", "thin:file:qcow2", "fast:lvm:vg0", "pool:lvm:vg0/pool", path=tmp_path)
    assert both.get("node1@plain").capabilities()["format"] == "raw"
    assert both.get("node1@thin").capabilities()["format"] == "qcow2"
    fast, pool = both.get("node1@fast").capabilities(), both.get("node1@pool").capabilities()
    assert (fast["volume_group"], fast["thin"], pool["thin"]) == ("vg0", False, True)


@pytest.mark.parametrize(
    "entry", ["a:file:vmdk", "a:lvm", "a:lvm:", "a:lvm:vg0/", "a:lvm:-f", "a:lvm:vg0/../x", "a:lvm:v g"]
)
def test_a_setting_that_the_driver_does_not_know_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError):
        drivers(entry).get("node1@a")


@pytest.mark.parametrize("entry", ["fast", "fast:", "../etc:file", ":file", "a b:file"])
def test_a_backend_that_is_no_name_and_driver_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError):
        drivers(entry)


@pytest.mark.parametrize("backend", ["node1@slow", "node1@fast"])
def test_an_unknown_backend_or_driver_is_the_configurations_mistake(backend: str) -> None:
    with pytest.raises(ConfigurationError):
        drivers("fast:nothing-of-that-name").get(backend)
