"""Where the file systems of a raw disk are, read from its first sectors by ourselves: no kernel parses them.

MBR with logical partitions, and GPT (UEFI specification, section 5). Everything is bounded, because the disk is
hostile: a partition that does not lie inside the disk is none.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from virtflow.injection.filesystem import Unsupported

_SECTOR = 512
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_LOGICAL_LIMIT = 60
_GPT_ENTRIES_LIMIT = 256
_GPT_ENTRY_SIZES = range(128, 4097)
_ROOT_TYPES = frozenset(
    bytes.fromhex(text)
    for text in (
        # The Discoverable Partitions Specification's root partitions for x86-64 and arm64, in their order on disk.
        "e3bc684fcde8b14d96e7fbcaf984b709",
        "45b021b9f01dc341af444c6f280d3fae",
    )
)

INSPECT = -1
WHOLE_DISK = 0


@dataclass(frozen=True)
class Partition:
    """``start`` and ``size`` in bytes; number 0 is the whole disk."""

    number: int
    start: int
    size: int
    is_root: bool = False


@dataclass(frozen=True)
class Superblock:
    """What the superblock of an ext2, ext3 or ext4 file system says that matters here."""

    clean: bool
    external_journal: bool


def find_partitions(disk: int, wanted: int) -> list[Partition]:
    """Where to look for the guest's root on the disk that is open as ``disk``, the likeliest first.

    ``wanted``: INSPECT, WHOLE_DISK, or a partition's number. All have an ext2, ext3 or ext4 file system. Raises
    Unsupported when there is none.
    """
    size = os.lseek(disk, 0, os.SEEK_END)
    whole = Partition(0, 0, size)
    # A file system of the whole disk may have a boot sector that looks like a partition table.
    if wanted == WHOLE_DISK or (wanted == INSPECT and superblock(disk, whole) is not None):
        found = [whole]
    else:
        found = [each for each in _partitions(disk, size) if wanted in (INSPECT, each.number)]
    usable = [each for each in found if superblock(disk, each) is not None]
    if not usable:
        where = {INSPECT: "on it", WHOLE_DISK: "on the whole disk"}.get(wanted, f"in partition {wanted}")
        raise Unsupported(f"there is no ext2, ext3 or ext4 file system {where}")
    return sorted(usable, key=lambda each: (not each.is_root, each.number))


def superblock(disk: int, partition: Partition) -> Superblock | None:
    """The file system's superblock, or None where there is no such file system.

    The layout: Documentation/filesystems/ext4/super.rst in the kernel's sources.
    """
    block = os.pread(disk, 1024, partition.start + 1024)
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        return None
    state = struct.unpack_from("<H", block, 0x3A)[0]
    compatible, incompatible = struct.unpack_from("<II", block, 0x5C)
    journal_inode, journal_device = struct.unpack_from("<II", block, 0xE0)
    is_journal, needs_recovery = incompatible & 0x8, incompatible & 0x4
    return Superblock(
        clean=state & 0x3 == 0x1 and not needs_recovery,
        external_journal=bool(is_journal or (compatible & 0x4 and (journal_device or not journal_inode))),
    )


def _partitions(disk: int, size: int) -> Iterator[Partition]:
    sector = os.pread(disk, _SECTOR, 0)
    if len(sector) < _SECTOR or sector[510:] != b"\x55\xaa":
        return
    entries = list(_mbr_entries(sector))
    found = _gpt(disk) if any(kind == _PROTECTIVE for kind, _, _ in entries) else _mbr(disk, entries)
    for each in found:
        if 0 < each.start < size and 0 < each.size <= size - each.start:
            yield each


def _mbr_entries(sector: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four slots."""
    for slot in range(4):
        yield struct.unpack_from("<4xB3xII", sector, 446 + 16 * slot)


def _mbr(disk: int, entries: list[tuple[int, int, int]]) -> Iterator[Partition]:
    for number, (kind, start, count) in enumerate(entries, start=1):
        if kind in _EXTENDED:
            yield from _logical(disk, start)
        elif kind:
            yield Partition(number, start * _SECTOR, count * _SECTOR)


def _logical(disk: int, first: int) -> Iterator[Partition]:
    """A chain of tables, each with one partition and the way to the next; a loop ends at the limit."""
    here = first
    for number in range(5, 5 + _LOGICAL_LIMIT):
        sector = os.pread(disk, _SECTOR, here * _SECTOR)
        if len(sector) < _SECTOR or sector[510:] != b"\x55\xaa":
            return
        (_, start, count), (next_kind, following, _), *_ = _mbr_entries(sector)
        yield Partition(number, (here + start) * _SECTOR, count * _SECTOR)
        if next_kind not in _EXTENDED:
            return
        here = first + following


def _gpt(disk: int) -> Iterator[Partition]:
    header = os.pread(disk, 92, _SECTOR)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return
    table, count, length = struct.unpack_from("<QII", header, 72)
    if length not in _GPT_ENTRY_SIZES or table >= 1 << 48:
        return
    for number in range(1, min(count, _GPT_ENTRIES_LIMIT) + 1):
        entry = os.pread(disk, 128, table * _SECTOR + (number - 1) * length)
        if len(entry) == 128 and any(entry[:16]):
            first, last = struct.unpack_from("<QQ", entry, 32)
            yield Partition(number, first * _SECTOR, (last - first + 1) * _SECTOR, entry[:16] in _ROOT_TYPES)
