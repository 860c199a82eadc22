"""Build a file aside, then give it its final name: a final name is always complete, also after a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from virtflow.errors import HostStorageError

PRIVATE = 0o600
"""For its owner alone. Libvirt gives a disk to QEMU's own user when it starts the guest."""
SHARED = 0o644
"""For every guest's QEMU to read."""


def publish(staged: Path, final: Path, mode: int) -> None:
    """Make ``staged`` durable and rename it to ``final``, replacing what was there. Raises HostStorageError."""
    with storage_errors("publish", final):
        descriptor = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(staged, final)
        sync(final.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a small file, readable by its owner alone, and make it durable under the name given; whatever had the name
    is forgotten, and never followed. Raises HostStorageError."""
    with storage_errors("write", path):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def write_private(path: Path, text: str, operation: str) -> None:
    """Write a small file, readable by its owner alone, in place of what is there. Raises HostStorageError."""
    staged = path.with_name(f"{path.name}.tmp.{operation}")
    write_new(staged, text.encode())
    publish(staged, path, PRIVATE)


def remove_files(*paths: Path) -> None:
    """Remove files; absent is fine. Raises HostStorageError."""
    for path in paths:
        with storage_errors("remove", path):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's content durable, or a directory's names. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into HostStorageError."""
    try:
        yield
    except OSError as error:
        raise HostStorageError(action=action, path=path, reason=error.strerror or str(error)) from error
