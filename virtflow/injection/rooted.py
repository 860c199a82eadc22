"""Files below a directory that somebody else filled: no path leads out of it.

openat2(2) resolves every path with the directory as the root, for absolute links and ``..`` alike; it stops at mount
points and at the magic links of /proc.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virtflow.injection.filesystem import NEW_FILE_MODE, READ_LIMIT, GuestFileError, Unsupported

_OPENAT2 = 437
"""The number of the system call, the same on every architecture (it is younger than their common numbering)."""
_NO_XDEV, _NO_MAGICLINKS, _IN_ROOT = 0x01, 0x02, 0x10
_NEW_DIRECTORY_MODE = 0o755
_ATTEMPTS = 16

# A pipe must not block, a terminal not become ours, and a device is refused before it is opened.
_SAFELY = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class RootedFiles:
    """The part of a GuestFilesystem that works on a directory."""

    def __init__(self) -> None:
        self._root = -1

    def enter(self, root: Path) -> None:
        """Work below ``root`` from now on. Raises Unsupported where the kernel has no openat2 (before 5.6)."""
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(self._open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError as error:
            self.leave()
            if error.errno == errno.ENOSYS:
                raise Unsupported("this kernel has no openat2") from error
            raise

    def leave(self) -> None:
        """Let go of the directory; not having one is fine."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def is_directory(self, path: str) -> bool:
        try:
            os.close(self._open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def make_path(self, path: str) -> None:
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            try:
                os.close(self._open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except FileNotFoundError:
                parent = self._open("/".join(parts[: depth - 1]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.mkdir(parts[depth - 1], _NEW_DIRECTORY_MODE, dir_fd=parent)
                finally:
                    os.close(parent)

    def read(self, path: str) -> bytes:
        with self._file(path, os.O_RDONLY) as descriptor:
            content = b""
            while chunk := os.read(descriptor, READ_LIMIT + 1 - len(content)):
                content += chunk
        if len(content) > READ_LIMIT:
            raise GuestFileError(f"has more than {READ_LIMIT} bytes")
        return content

    def append(self, path: str, content: bytes) -> None:
        with self._file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
            _write(descriptor, content)

    def replace(self, path: str, content: bytes) -> None:
        with self._file(path, os.O_WRONLY | os.O_CREAT) as descriptor:
            os.ftruncate(descriptor, 0)
            _write(descriptor, content)

    def set_permissions(self, path: str, mode: int) -> None:
        with self._file(path, os.O_RDONLY, directories=True) as descriptor:
            os.fchmod(descriptor, mode)

    def set_ownership(self, path: str, user: int, group: int) -> None:
        with self._file(path, os.O_RDONLY, directories=True) as descriptor:
            os.fchown(descriptor, user, group)

    @contextmanager
    def _file(self, path: str, flags: int, *, directories: bool = False) -> Iterator[int]:
        # Looked at before it is opened: opening a device can have an effect.
        with suppress(FileNotFoundError):
            looked_at = self._open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                _check_kind(looked_at, directories)
            finally:
                os.close(looked_at)
        descriptor = self._open(path, flags | _SAFELY, NEW_FILE_MODE if flags & os.O_CREAT else 0)
        try:
            _check_kind(descriptor, directories)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        how = _OpenHow(flags, mode, _IN_ROOT | _NO_MAGICLINKS | _NO_XDEV)
        name = os.fsencode(path.strip("/") or ".")
        for _ in range(_ATTEMPTS):
            found: int = _libc.syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(self._root),
                ctypes.c_char_p(name),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if found >= 0:
                return found
            code = ctypes.get_errno()
            # Something on the host was renamed meanwhile, and the kernel could not tell whether it mattered.
            if code != errno.EAGAIN:
                break
        raise OSError(code, os.strerror(code))


def _check_kind(descriptor: int, directories: bool) -> None:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or (directories and stat.S_ISDIR(mode))):
        raise GuestFileError("is not a regular file")


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
