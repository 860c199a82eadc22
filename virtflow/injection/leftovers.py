"""What an injection leaves on this host when its process is killed: an empty directory beside the disk, by which also
its processes are known, should any have outlived it. Mounts end with their namespace."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from virtflow.errors import HostStorageError
from virtflow.processes import end_process

_INFIX = ".injecting."
_SECONDS = 10.0


@dataclass(frozen=True)
class Leftover:
    """``path`` is the marker ``<disk>.injecting.<operation>``."""

    path: Path
    operation: str

    @property
    def disk(self) -> Path:
        return self.path.with_name(self.path.name.rpartition(_INFIX)[0])


def marker(disk: Path, operation: str) -> Path:
    return disk.with_name(f"{disk.name}{_INFIX}{operation}")


def find(instances_path: Path) -> list[Leftover]:
    """Of all instances, sorted. An injection that is going on looks the same: ask whether its operation runs."""
    found = instances_path.glob(f"*/*{_INFIX}*")
    return [Leftover(path, path.name.rpartition(_INFIX)[2]) for path in sorted(found)]


def remove(leftover: Leftover) -> None:
    """Kill its processes and remove its marker; absent is fine. The disk stays. Raises HostStorageError."""
    while pids := list(processes(leftover)):
        for pid in pids:
            if not end_process(pid, partial(_works_in, leftover), (signal.SIGKILL,), _SECONDS):
                raise HostStorageError(action="remove", path=leftover.path, reason=f"process {pid} does not end")
    try:
        shutil.rmtree(leftover.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostStorageError(action="remove", path=leftover.path, reason=error.strerror) from error


def processes(leftover: Leftover) -> Iterator[int]:
    """Those that were started to work in the marker: its path is one of their arguments, or in one."""
    for process in Path("/proc").glob("[0-9]*"):
        if _works_in(leftover, int(process.name)):
            yield int(process.name)


def _works_in(leftover: Leftover, pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(leftover.path) in arguments and _is_ours(arguments)


def _is_ours(arguments: bytes) -> bool:
    program = os.path.basename(arguments.partition(b"\0")[0])
    return program in (b"qemu-storage-daemon", b"unshare", b"debugfs", b"mount", b"umount") or (
        program.startswith(b"python") and b"\0virtflow.injection.worker\0" in arguments
    )
