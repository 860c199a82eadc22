"""Recordings as files: one line that says what it is, one line of JSON, gzipped.

The first line is ``{"virtflow_recording": 1, "virtflow_version": ..., "operation": ..., "bytes": ..., "sha256": ...}``,
about the second. A file is read with limits on its size, packed and unpacked; nothing in it is ever code.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtflow.errors import AlreadyExists, BadRecording, HostStorageError
from virtflow.files.durable import publish, storage_errors
from virtflow.replay.consistency import problems
from virtflow.replay.recording import FORMAT, Recording, from_json, to_plain

SUFFIX = ".vfrec"
_MAGIC = "virtflow_recording"
_GZIP = b"\x1f\x8b"
LARGEST_FILE = 64 << 20
LARGEST_CONTENT = 256 << 20
_LONGEST_HEADER = 4096


@dataclass(frozen=True)
class Header:
    """The first line of a recording."""

    format: int
    virtflow_version: str
    operation: str
    bytes: int
    sha256: str


def export(recording: Recording, path: Path, *, replace_existing: bool = False) -> Header:
    """Write a recording, which should be redacted by now, for its owner alone to read.

    Raises AlreadyExists, HostStorageError.
    """
    if not replace_existing and path.exists():
        raise AlreadyExists(kind="file", name=str(path))
    body = json.dumps(to_plain(recording), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    header = Header(FORMAT, recording.virtflow_version, recording.operation.id, len(body), digest)
    first = json.dumps({_MAGIC: header.format, **{k: v for k, v in vars(header).items() if k != "format"}}).encode()
    packed = gzip.compress(first + b"\n" + body + b"\n", compresslevel=6, mtime=0)
    if len(packed) > LARGEST_FILE or len(body) > LARGEST_CONTENT - _LONGEST_HEADER:
        raise HostStorageError(action="write", path=path, reason="the recording is larger than one may be")
    staged = path.with_name(f"{path.name}.tmp.{uuid.uuid4()}")
    with storage_errors("write", path):
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(packed)
            publish(staged, path, 0o600)
        finally:
            staged.unlink(missing_ok=True)
    return header


def load(path: Path, *, consistent: bool = True) -> Recording:
    """Read a recording, wholly checked; ``consistent`` False: whether it fits together is left out. BadRecording."""
    header, body = open_recording(path)
    recording = from_json(body, str(path))
    if recording.operation.id != header.operation or recording.format != header.format:
        raise BadRecording(source=path, reason="its first line is about another recording")
    if consistent and (found := problems(recording)):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise BadRecording(source=path, reason=f"it does not fit together: {found[0]}{more}")
    return recording


def open_recording(path: Path) -> tuple[Header, bytes]:
    """The first line, and the second as it stands, whose size and checksum are right. Raises BadRecording."""
    content = _unpacked(_read(path), path)
    first, newline, rest = content.partition(b"\n")
    if not newline or len(first) > _LONGEST_HEADER:
        raise BadRecording(source=path, reason="it is not a recording of virtflow")
    header = _header(first, path)
    body = rest.removesuffix(b"\n")
    if len(body) != header.bytes:
        reason = f"damaged: {len(body)} bytes where {header.bytes} should be"
        raise BadRecording(source=path, reason=reason)
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise BadRecording(source=path, reason="damaged: its checksum is wrong")
    return header, body


def _header(line: bytes, path: Path) -> Header:
    try:
        plain: Any = json.loads(line)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or not isinstance(plain.get(_MAGIC), int) or isinstance(plain[_MAGIC], bool):
        raise BadRecording(source=path, reason="it is not a recording of virtflow")
    version = str(plain.get("virtflow_version", "unknown"))[:40]
    if plain[_MAGIC] > FORMAT:
        reason = f"format {plain[_MAGIC]} of virtflow {version} is newer than this virtflow, which reads up to {FORMAT}"
        raise BadRecording(source=path, reason=reason)
    if plain[_MAGIC] < 1:
        raise BadRecording(source=path, reason=f"there is no format {plain[_MAGIC]}")
    operation, size, digest = plain.get("operation"), plain.get("bytes"), plain.get("sha256")
    if not isinstance(operation, str) or not isinstance(size, int) or not isinstance(digest, str):
        raise BadRecording(source=path, reason="damaged: its first line is incomplete")
    return Header(plain[_MAGIC], version, operation, size, digest)


def _read(path: Path) -> bytes:
    """A regular file that is not too large: no pipe to wait at, no device without an end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BadRecording(source=path, reason="it is not a regular file")
            if found.st_size > LARGEST_FILE:
                raise BadRecording(source=path, reason=f"it is larger than {LARGEST_FILE >> 20} MiB")
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise BadRecording(source=path, reason=(error.strerror or str(error)).lower()) from error


def _unpacked(content: bytes, path: Path) -> bytes:
    """Also a file that somebody has unpacked is read."""
    if not content.startswith(_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(content, LARGEST_CONTENT)
    except zlib.error as error:
        raise BadRecording(source=path, reason="damaged: it cannot be unpacked") from error
    if unpacker.unconsumed_tail:
        raise BadRecording(source=path, reason=f"unpacked it is larger than {LARGEST_CONTENT >> 20} MiB")
    if not unpacker.eof:
        raise BadRecording(source=path, reason="damaged: it ends too early")
    if unpacker.unused_data:
        raise BadRecording(source=path, reason="damaged: something follows its end")
    return plain
