"""Whether QEMU may open disks in a directory with O_DIRECT (``cache='none'``)."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from virtflow.errors import HostStorageError


def supports_direct_io(directory: Path) -> bool:
    """Try it with a temporary file: some file systems (older tmpfs, some FUSE) refuse O_DIRECT with EINVAL.

    Raises HostStorageError when no file can be made there at all.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=".direct-io.", dir=directory)
    except OSError as error:
        raise HostStorageError(action="create a file in", path=directory, reason=error.strerror) from error
    os.close(descriptor)
    try:
        os.close(os.open(name, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise HostStorageError(action="open", path=name, reason=error.strerror) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return True
