from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import CommandFailed
from virtflow.images.qemu_img import DiskInfo, QemuImg

MIB = 1 << 20

ODD_NAMES = ["a,b=c", "json:{}", "nbd:x:1", "-o", "with space", "é", "new\nline", "file.driver=raw,,x"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_a_path_whatever_it_looks_like(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    directory.mkdir()
    qemu_img = QemuImg()
    base, disk, copy = directory / "base", directory / name, directory / "copy"
    qemu_img.create(base, "raw", MIB)
    qemu_img.create_overlay(disk, base, "raw", 4 * MIB)
    info = qemu_img.info(disk, "qcow2")
    assert (info.format, info.virtual_size) == ("qcow2", 4 * MIB)
    assert (info.backing_file, info.backing_format) == (str(base), "raw")
    qemu_img.resize(disk, "qcow2", 8 * MIB)
    qemu_img.convert(disk, "qcow2", copy, "raw")
    qemu_img.check(disk, "qcow2")
    assert copy.stat().st_size == 8 * MIB


def test_info_of_a_plain_disk_tells_of_nothing_else(tmp_path: Path) -> None:
    QemuImg().create(tmp_path / "disk", "qcow2", MIB)
    info = QemuImg().info(tmp_path / "disk", "qcow2")
    actual = os.stat(tmp_path / "disk").st_blocks * 512
    assert info == DiskInfo("qcow2", MIB, actual, None, None, False, None, False, False)


def test_info_tells_of_a_data_file_and_of_encryption(tmp_path: Path) -> None:
    data, encrypted = tmp_path / "data.qcow2", tmp_path / "aes.qcow2"
    options = ["-o", f"data_file={tmp_path}/outside"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, data, "1M"], check=True)
    QemuImg().create(encrypted, "qcow2", MIB)
    content = bytearray(encrypted.read_bytes())
    content[32:36] = b"\0\0\0\1"
    encrypted.write_bytes(content)
    assert QemuImg().info(data, "qcow2").data_file == f"{tmp_path}/outside"
    assert QemuImg().info(encrypted, "qcow2").encrypted


def test_a_qcow2_header_that_a_guest_wrote_on_its_raw_disk_stays_data(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
    assert QemuImg().info(disk, "raw").virtual_size < MIB
    QemuImg().resize(disk, "raw", 2 * MIB)
    assert disk.stat().st_size == 2 * MIB


def test_shrinking_fails_and_says_why(tmp_path: Path) -> None:
    QemuImg().create(tmp_path / "disk", "qcow2", 2 * MIB)
    with pytest.raises(CommandFailed, match="shrink"):
        QemuImg().resize(tmp_path / "disk", "qcow2", MIB)


def test_a_relative_path_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        QemuImg().info("json:{}", "raw")


def test_a_missing_program_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="nonexistent"):
        QemuImg("/nonexistent/nonexistent").create(tmp_path / "disk", "raw", MIB)


def test_corruption_fails_a_check_and_leaked_clusters_do_not(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    QemuImg().create(disk, "qcow2", MIB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 64k", disk], check=True, stdout=subprocess.DEVNULL)
    content = bytearray(disk.read_bytes())
    leaked, corrupt = tmp_path / "leaked", tmp_path / "corrupt"
    l1 = int.from_bytes(content[40:48], "big")
    leaked.write_bytes(content[:l1] + bytes(8) + content[l1 + 8 :])
    QemuImg().check(leaked, "qcow2")
    corrupt.write_bytes(content[: 2 * 65536] + bytes(65536) + content[3 * 65536 :])
    with pytest.raises(CommandFailed, match="exit status 2"):
        QemuImg().check(corrupt, "qcow2")


def test_a_header_cannot_make_an_inspection_take_all_memory(tmp_path: Path) -> None:
    """The limits reach the program: with an address space of 1 MiB not even its libraries can be loaded."""
    from virtflow.processes import Limits

    QemuImg().create(tmp_path / "disk", "qcow2", MIB)
    with pytest.raises(CommandFailed):
        QemuImg(limits=Limits(address_space=1 << 20)).info(tmp_path / "disk", "qcow2")


def test_a_conversion_reports_how_far_the_target_has_grown(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(MIB))
    told: list[tuple[int, int | None]] = []

    class Told(Activity):
        def report(self, done: int, total: int | None) -> None:
            told.append((done, total))

    QemuImg().convert(source, "raw", tmp_path / "target", "qcow2", Told(), total_bytes=MIB)
    assert told[-1] == (MIB, MIB)
