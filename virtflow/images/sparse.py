"""Write a file and leave holes where it is all zeros."""

from __future__ import annotations

import os

CHUNK = 1 << 20
"""Bytes moved at a time: what keeps memory independent of the image's size."""

_ZEROS = memoryview(bytes(CHUNK))


def write_sparse(descriptor: int, chunk: bytes) -> None:
    """Append ``chunk``, leaving a hole where it is all zeros. ``end_sparse`` has to follow the last one."""
    if len(chunk) <= CHUNK and chunk == _ZEROS[: len(chunk)]:
        os.lseek(descriptor, len(chunk), os.SEEK_CUR)
        return
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def end_sparse(descriptor: int) -> None:
    """Let the file end at its write position, which a hole at the end has left beyond the last byte written."""
    os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
