"""An exclusive lock on a file name, across threads and processes, released by the kernel when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostStorageError

_SHORTEST_WAIT = 0.005
_LONGEST_WAIT = 0.1


@contextlib.contextmanager
def hold(path: Path, activity: Activity = IDLE) -> Iterator[int]:
    """Hold the lock, waiting for it as long as the activity may run; yields its descriptor.

    The file stays after the release: removing it would let two holders lock two different files of one name.
    """
    descriptor = _open(path)
    try:
        wait = _SHORTEST_WAIT
        while not _taken(descriptor):
            activity.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_passing(path: Path, activity: Activity = IDLE) -> Iterator[None]:
    """Hold a lock whose name is used for a while only: the file goes with the release.

    Whoever waited for it then holds a file without a name, notices, and tries again with a new one.
    """
    while True:
        with hold(path, activity) as descriptor:
            if _is_at(descriptor, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


@contextlib.contextmanager
def hold_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does; yields whether it is held."""
    descriptor = _open(path)
    try:
        yield _taken(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # flock belongs to the open file, not to the process: two threads that open it twice exclude each other too.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostStorageError(action="open lock", path=path, reason=error.strerror) from error


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    return False
