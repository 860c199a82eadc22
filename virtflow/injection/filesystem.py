"""What can be done in the file system on a guest's disk, whoever does it.

The file system is hostile: its links lead where its maker wants, its files may be pipes, devices or terabytes long.
Every implementation stays inside of it, whatever a path meets on its way: an absolute link begins at the guest's root.
"""

from __future__ import annotations

from typing import Protocol

READ_LIMIT = 4 << 20
"""Bytes of a file of the guest that are read at most."""

NEW_FILE_MODE = 0o600
"""What is written may be a secret; a file that is there keeps its mode."""


class Unsupported(Exception):
    """This implementation cannot work on this disk, or on this host; another may. The text is the reason."""


class GuestFileError(Exception):
    """Something in the guest's file system cannot be done. The text is the reason, and never quotes content."""


class GuestFilesystem(Protocol):
    """Paths are absolute, in the guest. Methods raise GuestFileError or OSError; ``setup`` also Unsupported.

    ``teardown`` is always called, also after a ``setup`` that failed half-way, and brings everything to the disk.
    """

    def setup(self) -> None: ...

    def make_path(self, path: str) -> None:
        """Make a directory, and those above it, with mode 0755 where they are missing."""

    def read(self, path: str) -> bytes:
        """FileNotFoundError when there is none; GuestFileError for more than READ_LIMIT."""

    def append(self, path: str, content: bytes) -> None: ...

    def replace(self, path: str, content: bytes) -> None: ...

    def set_permissions(self, path: str, mode: int) -> None: ...

    def set_ownership(self, path: str, user: int, group: int) -> None:
        """By number: the names of this host are not the guest's."""

    def teardown(self) -> None: ...
