"""Read a qcow2 header as an enemy's: everything in it that could make QEMU open another file, or work without end.

Layout and limits: QEMU's docs/interop/qcow2.txt. oslo.utils' inspector passes encrypted images, the dirty and corrupt
bits, absurd virtual sizes and tables outside the file; none of them is a fit base for a guest.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from virtflow.images.refusals import HeaderRefused, refuse_size

MAGIC = b"QFI\xfb"
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION = 1, 2, 4, 8

_BACKING = struct.Struct(">QI")
_BACKING_FIELDS = 8
"""Where the offset and the length of the backing file's name stand."""

_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77

_SMALLEST_CLUSTER_BITS, _LARGEST_CLUSTER_BITS = 9, 21
_LARGEST_L1_BYTES = 32 << 20
_LARGEST_REFCOUNT_BYTES = 8 << 20
_MOST_SNAPSHOTS = 65536
_SMALLEST_SNAPSHOT_BYTES = 40
_LONGEST_BACKING_NAME = 1023


@dataclass(frozen=True)
class _Header:
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    length: int

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits


def check_qcow2(head: bytes, file_size: int | None, max_virtual_size: int, *, backing_allowed: bool = False) -> int:
    """Return the virtual size in bytes, or raise HeaderRefused.

    ``head`` is the beginning of the file, whole when it is short, otherwise at least 64 KiB. ``file_size`` is None
    while it is not known; tables are then not compared with it.
    """
    header = _parse(head)
    if not backing_allowed and (header.backing_offset or header.backing_size):
        raise HeaderRefused("it has a backing file")
    _refuse_other_files(header)
    _refuse_features(header)
    _refuse_extensions(header, head)
    refuse_size(header.size, max_virtual_size)
    _refuse_tables(header, file_size)
    return header.size


def backing_name(head: bytes) -> bytes | None:
    """The name of the backing file as it stands in the header, or None. Raises HeaderRefused.

    It lies in the first cluster and has at most 1023 bytes (QEMU's docs/interop/qcow2.txt).
    """
    header = _parse(head)
    if not header.backing_offset:
        return None
    end = header.backing_offset + header.backing_size
    if not 0 < header.backing_size <= _LONGEST_BACKING_NAME:
        raise HeaderRefused(f"the name of its backing file has {header.backing_size} bytes")
    if header.backing_offset < header.length or end > min(header.cluster, len(head)):
        raise HeaderRefused("the name of its backing file lies outside the header")
    return head[header.backing_offset : end]


def backing_format(head: bytes) -> bytes | None:
    """The format that the header gives its backing file, or None. Raises HeaderRefused."""
    return next(
        (content for kind, content in _extensions(_parse(head), head) if kind == _EXTENSION_BACKING_FORMAT), None
    )


def forget_backing(descriptor: int) -> None:
    """Let the qcow2 file stand alone: what its backing file would give reads as zeros. Raises OSError."""
    os.pwrite(descriptor, _BACKING.pack(0, 0), _BACKING_FIELDS)


def _parse(head: bytes) -> _Header:
    if len(head) < _V2.size:
        raise HeaderRefused(f"truncated qcow2 header ({len(head)} bytes)")
    version = int.from_bytes(head[4:8], "big")
    if version not in (2, 3):
        raise HeaderRefused(f"qcow2 version {version} is not supported")
    version_3: tuple[int, int] = (0, _V2.size)
    if version == 3:
        if len(head) < _V2.size + _V3.size:
            raise HeaderRefused(f"truncated qcow2 header ({len(head)} bytes)")
        incompatible, _compatible, _autoclear, _refcount_order, length = _V3.unpack_from(head, _V2.size)
        version_3 = (incompatible, length)
    fields: list[int] = [*_V2.unpack_from(head)[2:], *version_3]
    header = _Header(*fields)
    if not _SMALLEST_CLUSTER_BITS <= header.cluster_bits <= _LARGEST_CLUSTER_BITS:
        raise HeaderRefused(f"qcow2 cluster size 2^{header.cluster_bits} is not allowed")
    smallest = _V2.size if version == 2 else _V2.size + _V3.size
    if not smallest <= header.length <= header.cluster:
        raise HeaderRefused(f"qcow2 header length {header.length} is not allowed")
    return header


def _refuse_other_files(header: _Header) -> None:
    if header.incompatible & _DATA_FILE:
        raise HeaderRefused("it has an external data file")
    if header.encryption:
        raise HeaderRefused("it is encrypted (AES or LUKS inside qcow2)")


def _refuse_features(header: _Header) -> None:
    if header.incompatible & _CORRUPT:
        raise HeaderRefused("it is marked corrupt")
    if header.incompatible & _DIRTY:
        raise HeaderRefused("it is marked dirty: it was not closed properly")
    unknown = header.incompatible & ~_COMPRESSION
    if unknown:
        raise HeaderRefused(f"unknown incompatible qcow2 features {unknown:#x}")


def _refuse_extensions(header: _Header, head: bytes) -> None:
    for kind, _content in _extensions(header, head):
        if kind == _EXTENSION_DATA_FILE:
            raise HeaderRefused("it names an external data file")
        if kind == _EXTENSION_ENCRYPTION:
            raise HeaderRefused("it is encrypted (LUKS inside qcow2)")


def _extensions(header: _Header, head: bytes) -> Iterator[tuple[int, bytes]]:
    position, end = header.length, min(header.cluster, len(head))
    while position + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, position)
        if kind == _EXTENSION_END:
            return
        yield kind, head[position + _EXTENSION.size : position + _EXTENSION.size + length]
        position += _EXTENSION.size + (length + 7) // 8 * 8
        if position > header.cluster:
            raise HeaderRefused("a qcow2 header extension reaches beyond the header")
    if position + _EXTENSION.size <= header.cluster:
        raise HeaderRefused("its qcow2 header extensions have no end")


def _refuse_tables(header: _Header, file_size: int | None) -> None:
    l1_bytes = header.l1_entries * 8
    if l1_bytes > _LARGEST_L1_BYTES:
        raise HeaderRefused(f"its L1 table has {header.l1_entries} entries")
    # One L1 entry stands for an L2 table of one cluster, eight bytes for each cluster of the disk.
    needed = -(-header.size // (header.cluster * (header.cluster // 8)))
    if header.l1_entries < needed:
        raise HeaderRefused(f"its L1 table has {header.l1_entries} entries where its virtual size needs {needed}")
    _refuse_outside("L1 table", header.l1_offset, l1_bytes, header.cluster, file_size)
    refcount_bytes = header.refcount_clusters * header.cluster
    if not 0 < refcount_bytes <= _LARGEST_REFCOUNT_BYTES:
        raise HeaderRefused(f"its refcount table has {refcount_bytes} bytes")
    _refuse_outside("refcount table", header.refcount_offset, refcount_bytes, header.cluster, file_size)
    if header.snapshots > _MOST_SNAPSHOTS:
        raise HeaderRefused(f"it has {header.snapshots} internal snapshots")
    snapshot_bytes = header.snapshots * _SMALLEST_SNAPSHOT_BYTES
    _refuse_outside("snapshot table", header.snapshots_offset, snapshot_bytes, header.cluster, file_size)


def _refuse_outside(what: str, offset: int, length: int, cluster: int, file_size: int | None) -> None:
    if length == 0:
        return
    if offset < cluster or offset % cluster:
        raise HeaderRefused(f"its {what} is at offset {offset}, which is no place for one")
    if offset + length > (1 << 63) or (file_size is not None and offset + length > file_size):
        raise HeaderRefused(f"its {what} lies beyond the end of the file")
