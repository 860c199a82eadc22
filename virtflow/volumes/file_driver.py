"""The driver ``file``: a volume is a file below the backend's directory, opened by QEMU on the same host, and served to
others.

Files are built as ``NAME.part`` and renamed when they are complete. What is deleted moves to ``_trash/T/NAME``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, VolumeError
from virtflow.files.durable import PRIVATE, publish, remove_files, storage_errors, sync
from virtflow.volumes.driver import LOCAL, Capacity, Connection, Reach
from virtflow.volumes.exports.exporter import NO_SERVER, Backing, Exporter

_TRASH = "_trash"
_PART = ".part"
_FICLONE = 0x40049409
"""ioctl_ficlone(2): the target shares the source's blocks until one of them is written to."""
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY)
_RAW = "raw"


class DiskTool(Protocol):
    """What the driver wants of qemu-img (``virtflow.images.qemu_img``)."""

    def info(self, path: Path, format: str) -> Any: ...  # noqa: A002

    def create(self, path: Path, format: str, size_bytes: int, activity: Activity) -> None: ...  # noqa: A002

    def convert(
        self,
        source: Path,
        source_format: str,
        target: Path,
        target_format: str,
        activity: Activity,
        *,
        opened: bool = False,
    ) -> None: ...

    def resize(self, path: Path, format: str, size_bytes: int, activity: Activity) -> None: ...  # noqa: A002


class FileDriver:
    """``directory`` is the backend's own; ``file_format`` is raw or qcow2."""

    def __init__(self, directory: Path, file_format: str, disk_tool: DiskTool, exporter: Exporter = NO_SERVER) -> None:
        self._directory = directory
        self._format = file_format
        self._tool = disk_tool
        self._exporter = exporter

    def capabilities(self) -> Mapping[str, Any]:
        shared = self._exporter is not NO_SERVER
        return {"driver": "file", "format": self._format, "thin": True, "extend_in_use": True, "shared": shared}

    def capacity(self) -> Capacity:
        with storage_errors("measure", self._directory):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            found = os.statvfs(self._directory)
        return Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    # -- making

    def create(self, name: str, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if part is not None:
                self._tool.create(part, self._format, size, activity)

    def clone_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> bool:
        if self._format != _RAW:
            return False
        with self._made(name, size) as part:
            if part is None:
                return True
            if not _share_blocks(image, part):
                part.unlink()
                return False
            self._grow(part, size, activity)
        return True

    def copy_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if part is not None:
                self._tool.convert(image, _RAW, part, self._format, activity)
                self._grow(part, size, activity)

    def clone(self, name: str, source: str, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if part is None:
                return
            if not _share_blocks(self._file(source), part):
                self._tool.convert(self._file(source), self._format, part, self._format, activity, opened=True)
            self._grow(part, size, activity)

    def snapshot(self, name: str, volume: str, activity: Activity = IDLE) -> None:
        size = self.size(volume)
        if size is None:
            raise VolumeError(action="snapshot", volume=volume, reason="it is not there")
        self.clone(name, volume, size, activity)

    # -- sizes

    def size(self, name: str) -> int | None:
        path = self._file(name)
        if not path.exists():
            return None
        if self._format == _RAW:
            with storage_errors("measure", path):
                return path.stat().st_size
        return int(self._tool.info(path, self._format).virtual_size)

    def extend(self, name: str, size: int, activity: Activity = IDLE) -> None:
        known, path = self._known_size("extend", name), self._file(name)
        if known > size:
            return
        if known < size:
            self._exporter.check_growth(name)
            self._grow(path, size, activity)
            with storage_errors("extend", path):
                sync(path)
        # Also when it has the size already: whoever grew it may have died before the server knew.
        self._exporter.grown(name, self._backing(name), activity)

    def shrink(self, name: str, size: int, activity: Activity = IDLE) -> None:
        if self._known_size("shrink", name) <= size:
            return
        path = self._file(name)
        if self._format != _RAW:
            raise VolumeError(action="shrink", volume=name, reason=f"what is {self._format} only grows")
        with storage_errors("shrink", path):
            if _data_beyond(path, size):
                raise VolumeError(action="shrink", volume=name, reason="data was written beyond its old end")
            os.truncate(path, size)
            sync(path)
        self._exporter.grown(name, self._backing(name), activity)

    # -- going

    def remove(self, name: str) -> None:
        remove_files(self._file(name), self._part(name))

    def delete(self, name: str, trash: str) -> None:
        source, target = self._file(name), self._trash(trash) / name
        with storage_errors("delete", source):
            if not source.exists():
                return
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(source, target)
            _sync_names(source, target)

    def restore(self, name: str, trash: str) -> None:
        source, target = self._trash(trash) / name, self._file(name)
        with storage_errors("restore", target):
            if source.exists():
                os.replace(source, target)
                _sync_names(source, target)
            with suppress(FileNotFoundError, OSError):
                source.parent.rmdir()

    def in_trash(self, trash: str) -> bool:
        return self._trash(trash).exists()

    def purge(self, trash: str) -> None:
        path = self._trash(trash)
        with storage_errors("purge", path), suppress(FileNotFoundError):
            shutil.rmtree(path)

    # -- reaching it

    def export(self, name: str, reach: Reach = LOCAL) -> Connection:
        self._known_size("export", name)
        if not reach.local:
            return self._exporter.export(name, self._backing(name), reach)
        return Connection("file", str(self._file(name)), self._format)

    def unexport(self, name: str) -> None:
        self._exporter.unexport(name, self._backing(name))

    def exported(self) -> list[str]:
        return self._exporter.exported(self._directory)

    def contents(self) -> list[str]:
        return [
            *_names(self._directory, besides=_TRASH),
            *(f"trash/{each}" for each in _names(self._directory / _TRASH)),
        ]

    # -- inside

    @contextmanager
    def _made(self, name: str, size: int) -> Iterator[Path | None]:
        """An empty file to fill, which then gets its name; None when what has the name is complete.

        One of another size is another volume's: VolumeError.
        """
        found = self.size(name)
        if found is not None:
            if found != size:
                raise VolumeError(action="create", volume=name, reason=f"one of {found} bytes has that name")
            yield None
            return
        part, final = self._part(name), self._file(name)
        with storage_errors("create", final):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE))
        try:
            yield part
        except (CommandFailed, OSError):
            remove_files(part)
            raise
        if part.exists():
            publish(part, final, PRIVATE)

    def _grow(self, path: Path, size: int, activity: Activity) -> None:
        if self._format != _RAW:
            self._tool.resize(path, self._format, size, activity)
            return
        with storage_errors("extend", path):
            os.truncate(path, size)

    def _backing(self, name: str) -> Backing:
        return Backing(self._file(name), self._format)

    def _known_size(self, action: str, name: str) -> int:
        size = self.size(name)
        if size is None:
            raise VolumeError(action=action, volume=name, reason="it is not there")
        return size

    def _file(self, name: str) -> Path:
        return self._directory / name

    def _part(self, name: str) -> Path:
        return self._directory / f"{name}{_PART}"

    def _trash(self, trash: str) -> Path:
        return self._directory / _TRASH / trash


def _share_blocks(source: Path, target: Path) -> bool:
    """Whether the file system lets ``target`` share what ``source`` holds."""
    with storage_errors("clone", target), source.open("rb") as reading, target.open("r+b") as writing:
        try:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
            return False
    return True


def _data_beyond(path: Path, size: int) -> bool:
    """Whether the file holds anything but a hole from ``size`` on."""
    with path.open("rb") as file:
        try:
            os.lseek(file.fileno(), size, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
    return True


def _sync_names(*paths: Path) -> None:
    for directory in {path.parent for path in paths}:
        sync(directory)


def _names(directory: Path, besides: str = "") -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name != besides)
    except FileNotFoundError:
        return []
