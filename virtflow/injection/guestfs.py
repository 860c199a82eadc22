"""The guest's file system in libguestfs' small virtual machine: slow, but it knows every file system and LVM.

Its Python binding comes with the distribution (python3-guestfs), not from PyPI.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from virtflow.injection.filesystem import READ_LIMIT, GuestFileError, Unsupported
from virtflow.injection.partitions import INSPECT, WHOLE_DISK


class GuestfsFilesystem:
    """A GuestFilesystem. ``emulated``: never use /dev/kvm."""

    def __init__(self, disk: Path, disk_format: str, partition: int, *, backend: str, emulated: bool) -> None:
        self._disk = disk
        self._format = disk_format
        self._partition = partition
        self._environment = {"LIBGUESTFS_BACKEND": backend}
        if emulated:
            self._environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        self._guest: Any = None

    def setup(self) -> None:
        try:
            import guestfs
        except ImportError as error:
            raise Unsupported("libguestfs is not installed") from error
        os.environ.update(self._environment)
        self._guest = guestfs.GuestFS(python_return_dict=True)
        try:
            self._guest.add_drive_opts(str(self._disk), format=self._format, readonly=0)
            self._guest.launch()
            for mount_point, device in self._mounts():
                self._guest.mount_options("nodev,nosuid,noexec", device, mount_point)
        except RuntimeError as error:
            raise Unsupported(f"libguestfs: {_reason(error)}") from error

    def teardown(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            try:
                guest.umount_all()
                guest.shutdown()
            except RuntimeError as error:
                raise GuestFileError(f"libguestfs: {_reason(error)}") from error
            finally:
                guest.close()

    def make_path(self, path: str) -> None:
        self._call("mkdir_p", path)

    def read(self, path: str) -> bytes:
        if not self._call("is_file", path, followsymlinks=True):
            raise FileNotFoundError(2, "No such file or directory")
        if self._call("filesize", path) > READ_LIMIT:
            raise GuestFileError(f"has more than {READ_LIMIT} bytes")
        content = self._call("read_file", path)
        return content if isinstance(content, bytes) else str(content).encode()

    def append(self, path: str, content: bytes) -> None:
        self._check_regular(path)
        self._call("write_append", path, content)

    def replace(self, path: str, content: bytes) -> None:
        self._check_regular(path)
        self._call("write", path, content)

    def set_permissions(self, path: str, mode: int) -> None:
        self._call("chmod", mode, path)

    def set_ownership(self, path: str, user: int, group: int) -> None:
        self._call("chown", user, group, path)

    def _mounts(self) -> list[tuple[str, str]]:
        if self._partition == WHOLE_DISK:
            return [("/", "/dev/sda")]
        if self._partition != INSPECT:
            return [("/", f"/dev/sda{self._partition}")]
        roots = self._guest.inspect_os()
        if len(roots) != 1:
            raise Unsupported(f"libguestfs found {len(roots)} operating systems on it")
        return sorted(self._guest.inspect_get_mountpoints(roots[0]).items())

    def _check_regular(self, path: str) -> None:
        if self._call("exists", path) and not self._call("is_file", path, followsymlinks=True):
            raise GuestFileError("is not a regular file")

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._guest, name)(*arguments, **options)
        except RuntimeError as error:
            raise GuestFileError(_reason(error)) from error


def _reason(error: RuntimeError) -> str:
    return "".join(c if c.isprintable() else " " for c in str(error))[:200]
