"""The guest's file system mounted by this kernel: the fast way, for root.

Everything happens in namespaces of the process that does it (see ``injector``): nobody else sees the mount, and the
kernel undoes it when the process ends, however it ends.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from virtflow.errors import CommandFailed
from virtflow.injection.export import RawExport
from virtflow.injection.filesystem import Unsupported
from virtflow.injection.partitions import INSPECT, Partition, find_partitions, superblock
from virtflow.injection.rooted import RootedFiles
from virtflow.processes import run

_CLONE_NEWNS = 0x00020000
_OPTIONS = (
    *("nodev", "nosuid", "noexec", "noatime"),
    # The file system itself says what an error does, and a hostile one says: panic.
    "errors=remount-ro",
)

_libc = ctypes.CDLL(None, use_errno=True)


class MountedFilesystem(RootedFiles):
    """A GuestFilesystem. ``directory`` is empty and private to this process's mount namespace."""

    def __init__(self, disk: Path, disk_format: str, partition: int, directory: Path) -> None:
        super().__init__()
        self._export = RawExport(disk, disk_format, directory)
        self._partition = partition
        self._mount_point = directory / "root"
        self._mounted = False

    def setup(self) -> None:
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise Unsupported("mounting needs root and loop devices")
        self._export.start()
        self._leave_daemon_behind()
        self._mount_point.mkdir(mode=0o700)
        for partition in self._candidates():
            self._mount(partition)
            if self._partition != INSPECT or self.is_directory("/etc"):
                return
            self._unmount()
        raise Unsupported("no file system on it has an /etc")

    def teardown(self) -> None:
        try:
            self._unmount()
        finally:
            self._export.stop()

    def _leave_daemon_behind(self) -> None:
        # The daemon must not hold the file system that it serves: killed with us, it would be the last to leave the
        # namespace, unmount it there, and wait for ever for its own answers.
        if _libc.unshare(_CLONE_NEWNS) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def _candidates(self) -> list[Partition]:
        disk = os.open(self._export.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = find_partitions(disk, self._partition)
            # The kernel would look for the journal on one of this host's own devices.
            safe = [each for each in found if not getattr(superblock(disk, each), "external_journal", True)]
        finally:
            os.close(disk)
        if not safe:
            raise Unsupported("its file system has an external journal")
        return safe

    def _mount(self, partition: Partition) -> None:
        options = ["loop", f"offset={partition.start}", f"sizelimit={partition.size}", *_OPTIONS]
        try:
            run(["mount", "-n", "-t", "ext4", "-o", ",".join(options), self._export.path, self._mount_point])
        except CommandFailed as error:
            raise Unsupported(f"cannot mount partition {partition.number}: {error.stderr}") from error
        self._mounted = True
        self.enter(self._mount_point)

    def _unmount(self) -> None:
        self.leave()
        if self._mounted:
            run(["umount", "-n", self._mount_point])
            self._mounted = False
