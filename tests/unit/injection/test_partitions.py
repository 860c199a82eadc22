"""Partition tables and superblocks, as sfdisk and mke2fs write them and as an enemy would."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from virtflow.injection.filesystem import Unsupported
from virtflow.injection.partitions import INSPECT, WHOLE_DISK, Partition, find_partitions, superblock

MIB = 1 << 20


@contextmanager
def opened(disk: Path) -> Iterator[int]:
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def found(disk: Path, wanted: int = INSPECT) -> list[Partition]:
    with opened(disk) as descriptor:
        return find_partitions(descriptor, wanted)


def make(disk: Path, table: str, *starts: int, size: int = 32 * MIB) -> Path:
    """A disk with a partition table, and an ext4 file system of 2 MiB at each of ``starts``, in MiB."""
    for program in ("sfdisk", "mke2fs"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/sbin:/usr/sbin") is None:
            pytest.skip(f"{program} is missing")
    with disk.open("wb") as file:
        file.truncate(size)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/sbin:/usr/sbin"}
    if table:
        subprocess.run(["sfdisk", "-q", disk], input=table.encode(), check=True, env=environment)
    for start in starts:
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={start * MIB}", disk, "2048k"],
            check=True,
            env=environment,
            capture_output=True,
        )
    return disk


def test_a_file_system_without_a_table_is_partition_0(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk", "", 0)
    assert found(disk) == found(disk, WHOLE_DISK) == [Partition(0, 0, 32 * MIB)]


def test_mbr_partitions_are_found_by_their_slots(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk", "label: dos\nstart=2048,size=4096,type=e\nstart=8192,size=8192,type=83\n", 4)
    assert found(disk) == found(disk, 2) == [Partition(2, 4 * MIB, 4 * MIB)]


def test_logical_partitions_are_counted_from_5(tmp_path: Path) -> None:
    table = (
        "label: dos\nstart=2048,size=2048,type=83\nstart=4096,size=57344,type=5\n"
        "start=6144,size=8192\nstart=16384,size=8192\n"
    )
    disk = make(tmp_path / "disk", table, 3, 8)
    assert found(disk, 5) == [Partition(5, 3 * MIB, 4 * MIB)]
    assert found(disk, 6) == [Partition(6, 8 * MIB, 4 * MIB)]


def test_gpt_partitions_are_found_and_the_one_that_says_it_is_root_comes_first(tmp_path: Path) -> None:
    root = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
    table = f"label: gpt\nstart=2048,size=8192\nstart=10240,size=8192,type={root}\n"
    disk = make(tmp_path / "disk", table, 1, 5)
    assert [(each.number, each.is_root) for each in found(disk)] == [(2, True), (1, False)]
    assert found(disk, 1) == [Partition(1, MIB, 4 * MIB)]


@pytest.mark.parametrize("wanted", [WHOLE_DISK, 1, 7])
def test_a_partition_without_a_file_system_is_told_by_its_number(tmp_path: Path, wanted: int) -> None:
    disk = make(tmp_path / "disk", "label: dos\nstart=2048,size=4096,type=e\nstart=8192,size=8192,type=83\n", 4)
    with pytest.raises(Unsupported, match="whole disk" if wanted == 0 else f"partition {wanted}"):
        found(disk, wanted)


def test_a_file_system_that_was_not_unmounted_is_not_clean(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk", "", 0)
    with opened(disk) as descriptor:
        assert getattr(superblock(descriptor, Partition(0, 0, 32 * MIB)), "clean", None) is True
    with disk.open("r+b") as file:
        file.seek(1024 + 0x60)
        flags = struct.unpack("<I", file.read(4))[0]
        file.seek(1024 + 0x60)
        file.write(struct.pack("<I", flags | 0x4))
    with opened(disk) as descriptor:
        assert getattr(superblock(descriptor, Partition(0, 0, 32 * MIB)), "clean", None) is False


def test_a_journal_on_another_device_is_noticed(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk", "", 0)
    with disk.open("r+b") as file:
        file.seek(1024 + 0xE0)
        file.write(struct.pack("<II", 0, 0x0801))
        file.seek(1024 + 0x5C)
        compatible = struct.unpack("<I", file.read(4))[0]
        file.seek(1024 + 0x5C)
        file.write(struct.pack("<I", compatible | 0x4))
    with opened(disk) as descriptor:
        assert getattr(superblock(descriptor, Partition(0, 0, 32 * MIB)), "external_journal", None) is True


def mbr(*entries: tuple[int, int, int]) -> bytes:
    slots = b"".join(struct.pack("<4xB3xII", *entry) for entry in entries)
    return bytes(446) + slots.ljust(64, b"\0") + b"\x55\xaa"


def test_a_partition_beyond_the_disk_is_none(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(mbr((0x83, 1, 0xFFFFFFFF), (0x83, 0xFFFFFFF0, 8)) + bytes(MIB))
    with pytest.raises(Unsupported):
        found(disk, 1)


def test_a_chain_of_logical_partitions_without_end_ends(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(mbr((0x05, 1, 100)) + mbr((0x83, 1, 2), (0x05, 0, 100)) + bytes(MIB))
    with pytest.raises(Unsupported):
        found(disk, 5)


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_gpt_makes_it_fail_or_take_long(noise: bytes, table: int, count: int, length: int) -> None:
    assume(b"\x53\xef" not in noise * 2)  # the magic of ext: a file system on the whole disk
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", table, count, length)
    memory = os.memfd_create("disk", os.MFD_CLOEXEC)
    try:
        os.write(memory, mbr((0xEE, 1, 100)) + header.ljust(512, b"\0") + noise * 600)
        with pytest.raises(Unsupported):
            find_partitions(memory, INSPECT)
    finally:
        os.close(memory)
