"""Bring an image's bytes into a ``.part`` file: resumed where it ended, verified whole, hashed in one pass."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostStorageError, ImageRefused, ImageUnavailable
from virtflow.images.inspection import inspect_head
from virtflow.images.records import ImageRecord
from virtflow.images.signatures import HEAD
from virtflow.images.sources import ImageSource
from virtflow.images.sparse import CHUNK, end_sparse, write_sparse


def download(
    record: ImageRecord,
    source: ImageSource,
    part: Path,
    max_virtual_size: int,
    activity: Activity = IDLE,
    *,
    delta: bool = False,
) -> str:
    """Complete ``part`` and return the SHA-256 of its bytes in hex; ``delta`` is whether it may have a backing file.

    A download that breaks off keeps what it has, for the next one to go on from; one whose content is wrong, or finds
    the host's disk full, leaves nothing. Raises ImageUnavailable, ImageRefused, HostStorageError.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostStorageError(action="create", path=part, reason=error.strerror) from error
    try:
        digests = _Digests(record)
        _refuse_stale(record, descriptor)
        _take_up(descriptor, digests, activity)
        look = partial(
            inspect_head,
            declared_format=record.disk_format,
            name=record.label,
            max_virtual_size=max_virtual_size,
            delta=delta,
        )
        _fill(record, source, descriptor, digests, look, activity)
        _verify(record, digests)
    except (_Wrong, ImageRefused) as error:
        part.unlink()
        if isinstance(error, _Wrong):
            raise ImageUnavailable(image=record.label, reason=str(error)) from None
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink()
        raise HostStorageError(action="write", path=part, reason=error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    return digests.sha256.hexdigest()


class _Wrong(Exception):
    """The content is not the image's: no use in going on from it."""


class _Digests:
    """The digests of one pass: SHA-256, and what the record's checksum asks for."""

    def __init__(self, record: ImageRecord) -> None:
        self.sha256 = hashlib.sha256()
        self.done = 0
        self.expected: str | None = None
        self._claimed: Any = None
        if record.checksum is not None:
            algorithm, self.expected = record.checksum
            try:
                self._claimed = self.sha256 if algorithm == "sha256" else hashlib.new(algorithm, usedforsecurity=False)
            except ValueError as error:
                reason = f"its checksum needs {algorithm}, which this host lacks"
                raise ImageUnavailable(image=record.label, reason=reason) from error

    def update(self, chunk: bytes) -> None:
        self.done += len(chunk)
        self.sha256.update(chunk)
        if self._claimed is not None and self._claimed is not self.sha256:
            self._claimed.update(chunk)

    def match(self) -> bool:
        return self.expected is None or self._claimed.hexdigest() == self.expected.lower()


def _refuse_stale(record: ImageRecord, descriptor: int) -> None:
    """Start again when what is there cannot be the beginning, or could never be found out not to be."""
    size = os.fstat(descriptor).st_size
    if record.checksum is None or (record.size is not None and size > record.size):
        os.ftruncate(descriptor, 0)


def _take_up(descriptor: int, digests: _Digests, activity: Activity) -> None:
    """Hash what an earlier download left, and stand at its end."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, CHUNK):
        activity.check()
        digests.update(chunk)


def _fill(
    record: ImageRecord,
    source: ImageSource,
    descriptor: int,
    digests: _Digests,
    look: Callable[[bytes], None],
    activity: Activity,
) -> None:
    if record.size is not None and digests.done == record.size:
        return
    looked_at = digests.done >= HEAD
    chunks = source.read(record, digests.done)
    with contextlib.closing(chunks) if isinstance(chunks, Generator) else contextlib.nullcontext():
        try:
            for chunk in chunks:
                activity.check()
                if record.size is not None and digests.done + len(chunk) > record.size:
                    raise _Wrong(f"the source sends more than the {record.size} bytes announced")
                write_sparse(descriptor, chunk)
                digests.update(chunk)
                activity.report(digests.done, record.size)
                if not looked_at and digests.done >= HEAD:
                    looked_at = True
                    look(os.pread(descriptor, HEAD, 0))
        finally:
            end_sparse(descriptor)
    if record.size is not None and digests.done < record.size:
        reason = f"the source ended after {digests.done} of {record.size} bytes"
        raise ImageUnavailable(image=record.label, reason=reason)


def _verify(record: ImageRecord, digests: _Digests) -> None:
    if not digests.match():
        algorithm = record.checksum[0] if record.checksum else ""
        raise _Wrong(f"its {algorithm} checksum does not match")
