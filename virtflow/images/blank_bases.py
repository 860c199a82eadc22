"""Formatted bases: empty file systems and swap areas that ephemeral and swap disks are laid over.

``ephemeral_<GiB>_<file system>_<label>`` and ``swap_<MiB>`` in the image cache's directory, raw. Each is made once per
host under ``.part`` and under its own lock: what has its final name is formatted. Nothing is mounted, no privilege is
needed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostLacks, HostStorageError, InvalidRequest
from virtflow.files.durable import SHARED, publish, storage_errors
from virtflow.files.lock import hold, hold_if_free
from virtflow.images import names
from virtflow.images.signatures import read_marks
from virtflow.processes import run

SWAP_LABEL = "swap"

_GIB = 1 << 30
_MIB = 1 << 20
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Programs that make file systems are not on everybody's path."""

_LABEL = re.compile(r"[a-z0-9-]{1,11}")
"""What fits a FAT volume label, the shortest of all."""

_SWAP = "swap"
_MARKS: Mapping[str, tuple[int, bytes]] = {
    "ext4": (1080, b"\x53\xef"),
    "ext3": (1080, b"\x53\xef"),
    "vfat": (510, b"\x55\xaa"),
    # The last ten bytes of the first page (Linux, include/linux/swap.h, union swap_header), of 4 KiB.
    _SWAP: (4086, b"SWAPSPACE2"),
}

LARGEST_GIB = {
    # 2^32 blocks of 4 KiB, less than one block group; FAT32 counts sectors of 512 bytes in 32 bits.
    "ext3": 16383,
    "vfat": 2047,
    # A file on ext4 itself cannot be larger (blocks of 4 KiB).
    "ext4": 16383,
}
"""The largest size by file system."""

FILESYSTEMS = tuple(LARGEST_GIB)


@dataclass(frozen=True)
class BlankBase:
    """A published base, raw; ``size`` in bytes."""

    name: str
    path: str
    size: int


class BlankBases:
    """The formatted bases in ``base_dir``, the directory of an ImageCache, which ages them out and sweeps up."""

    def __init__(self, base_dir: Path, locks_dir: Path) -> None:
        self._base_dir = base_dir
        self._locks_dir = locks_dir

    def ephemeral(self, size_gib: int, filesystem: str, label: str, activity: Activity = IDLE) -> BlankBase:
        """Return an empty file system, made first if it is not there; concurrent calls make it once.

        Raises InvalidRequest (field ephemeral_gib), HostLacks, HostStorageError, CommandFailed.
        """
        check_ephemeral(size_gib, filesystem)
        if not _LABEL.fullmatch(label):
            raise InvalidRequest(field="ephemeral_gib", reason=f"label {label!r} does not fit every file system")
        name = names.ephemeral_name(size_gib, filesystem, label)
        return self._ensure(name, filesystem, size_gib * _GIB, lambda part: _mkfs(filesystem, label, part), activity)

    def swap(self, size_mib: int, activity: Activity = IDLE) -> BlankBase:
        """Return an empty swap area, made first if it is not there. Raises as ``ephemeral`` does."""
        return self._ensure(names.swap_name(size_mib), _SWAP, size_mib * _MIB, _mkswap, activity)

    def abandon(self, name: str) -> None:
        """Remove what is unfinished of a base that nobody works on any more. ``name``: as in ``images.names``."""
        with storage_errors("clear", self._base_dir), hold_if_free(self._lock(name)) as held:
            if held:
                (self._base_dir / (name + names.PART)).unlink(missing_ok=True)

    def _lock(self, name: str) -> Path:
        return self._locks_dir / f"base-{names.lock_of(name)}"

    def _ensure(
        self, name: str, content: str, size: int, command: Callable[[Path], list[str]], activity: Activity
    ) -> BlankBase:
        path = self._base_dir / name
        with storage_errors("use", path):
            if not self._published(path, content, size):
                with hold(self._lock(name), activity):
                    if not self._published(path, content, size):
                        self._make(path, size, command, activity)
        return BlankBase(name, str(path), size)

    def _make(self, path: Path, size: int, command: Callable[[Path], list[str]], activity: Activity) -> None:
        staged = path.with_name(path.name + names.PART)
        self._base_dir.mkdir(parents=True, exist_ok=True)
        try:
            staged.unlink(missing_ok=True)
            with staged.open("xb") as file:
                file.truncate(size)
            run(command(staged), activity=activity)
            publish(staged, path, SHARED)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    @staticmethod
    def _published(path: Path, content: str, size: int) -> bool:
        """Whether the base is there; marks it as used.

        One that is not what was made is refused, not made again: disks may stand on it, and a new file system has
        other blocks in other places.
        """
        try:
            marks = read_marks(path)
        except FileNotFoundError:
            return False
        offset, mark = _MARKS[content]
        if marks.size != size or marks.formats or not marks.head.startswith(mark, offset):
            reason = f"it is not the {content} that was made there any more; remove it once no disk stands on it"
            raise HostStorageError(action="use", path=path, reason=reason)
        os.utime(path)
        return True


def check_ephemeral(size_gib: int, filesystem: str, field: str = "ephemeral_gib") -> None:
    """Raise InvalidRequest for a file system that we do not make, or not of this size."""
    if filesystem not in FILESYSTEMS:
        raise InvalidRequest(field=field, reason=f"file system {filesystem!r} is none of {', '.join(FILESYSTEMS)}")
    if not 1 <= size_gib <= LARGEST_GIB[filesystem]:
        reason = f"{filesystem} takes 1 to {LARGEST_GIB[filesystem]} GiB, not {size_gib}"
        raise InvalidRequest(field=field, reason=reason)


def _mkfs(filesystem: str, label: str, path: Path) -> list[str]:
    if filesystem == "vfat":
        return [_program("mkfs.vfat", "dosfstools"), "-n", label, str(path)]
    # A new file is one hole: mke2fs finds out by discarding that inode tables are zeros, and has to be told that the
    # journal is. Neither it nor the guest's kernel writes either.
    options = ["-q", "-F", "-t", filesystem, "-L", label, "-E", "discard,lazy_journal_init=1"]
    return [_program("mke2fs", "e2fsprogs"), *options, str(path)]


def _mkswap(path: Path) -> list[str]:
    # The page size of the guest is 4 KiB, whatever the host's is.
    return [_program("mkswap", "util-linux"), "--pagesize", "4096", "-L", SWAP_LABEL, str(path)]


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=_SEARCH_PATH)
    if found is None:
        remedy = f"run: apt-get install --no-install-recommends {package}"
        raise HostLacks(action="format a disk", missing=name, remedy=remedy)
    return found
