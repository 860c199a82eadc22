"""Which formats a file claims to be by the marks that programs look for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

HEAD = 256 * 1024
"""Bytes of the beginning that are looked at."""

_SECTOR = 512

_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"cxsparse", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"SKUL\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    (32769, b"CD001", "iso"),
    (32769, b"BEA01", "iso"),
    (32769, b"NSR02", "iso"),
    (32769, b"NSR03", "iso"),
)
_TRAILERS: tuple[tuple[bytes, str], ...] = ((b"koly", "dmg"), (b"conectix", "vhd"))
_DESCRIPTOR = re.compile(rb"^\s*(?:#\s*disk descriptorfile|(?:version|createtype)\s*=)", re.IGNORECASE | re.MULTILINE)
"""A VMDK descriptor is text: comments, blank lines, then ``version=``."""


@dataclass(frozen=True)
class Marks:
    """What a file shows: its beginning, its size in bytes, the names of the formats it claims."""

    head: bytes
    size: int
    formats: frozenset[str]


def read_marks(path: Path) -> Marks:
    """Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, HEAD, 0)
        tail = os.pread(descriptor, _SECTOR, max(0, size - _SECTOR))
    finally:
        os.close(descriptor)
    formats = formats_of(head) | {name for mark, name in _TRAILERS if size >= _SECTOR and tail.startswith(mark)}
    return Marks(head, size, frozenset(formats))


def formats_of(head: bytes) -> set[str]:
    """The formats that the beginning of a file claims; a partition table is none, since a raw disk may have one.

    A mark counts even when the rest of its header is missing: a file that is cut off must not be taken for raw.
    """
    formats = {name for offset, mark, name in _MARKS if head.startswith(mark, offset)}
    text = head[:_SECTOR]
    if b"\0" not in text and _DESCRIPTOR.search(text):
        formats.add("vmdk")
    return formats
