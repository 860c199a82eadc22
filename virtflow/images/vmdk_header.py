"""Read a VMDK header as an enemy's: nothing in it may make QEMU open another file.

QEMU opens the extents a descriptor names when the descriptor is a text file of its own, and also when a sparse header
gives a capacity of zero; and it opens ``parentFileNameHint`` as a backing file (CVE-2022-47951, CVE-2024-40767).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection

from virtflow.images.refusals import HeaderRefused

MAGIC = b"KDMV"
_SPARSE = struct.Struct("<4sIIQQQQ")
_SECTOR = 512
_LONGEST_DESCRIPTOR = 1 << 20
_PARENT_SEARCHED = 20 * _SECTOR
"""How far QEMU looks for a parent, whatever the descriptor's length says (DESC_SIZE of its VMDK driver)."""
_CREATE_TYPE = re.compile(rb'^\s*createtype\s*=\s*"([^"\r\n]{0,63})"', re.MULTILINE)
_EXTENT = re.compile(rb"^\s*(?:rw|rdonly|noaccess)\s+\d+\s+(\w+)", re.MULTILINE)


def check_vmdk(head: bytes, allowed_types: Collection[str]) -> None:
    """Raise HeaderRefused unless this is one self-contained sparse file of an allowed create type.

    ``head`` is the beginning of the file, at least 64 KiB of it unless it is shorter; a descriptor must fit into it.
    """
    if not head.startswith(MAGIC):
        raise HeaderRefused("it is a VMDK descriptor that names other files as its extents")
    if len(head) < _SECTOR:
        raise HeaderRefused(f"truncated VMDK header ({len(head)} bytes)")
    _magic, _version, _flags, capacity, _grain, descriptor_sector, descriptor_sectors = _SPARSE.unpack_from(head)
    if capacity == 0:
        raise HeaderRefused("its VMDK header has no capacity, so its extents would be opened as files")
    start, length = descriptor_sector * _SECTOR, descriptor_sectors * _SECTOR
    if start != _SECTOR or not 0 < length < _LONGEST_DESCRIPTOR or start + length > len(head):
        raise HeaderRefused("its VMDK descriptor is not where it belongs")
    if b"parentfilenamehint" in head[start : start + max(length, _PARENT_SEARCHED)].lower():
        raise HeaderRefused("it has a backing file (parentFileNameHint)")
    descriptor = head[start : start + length].partition(b"\0")[0].lower()
    types = {kind.decode("ascii", "replace") for kind in _CREATE_TYPE.findall(descriptor)}
    if len(types) != 1 or not types <= {kind.lower() for kind in allowed_types}:
        named = ", ".join(sorted(types)) or "none"
        raise HeaderRefused(f"VMDK create type {named} is not among {', '.join(sorted(allowed_types))}")
    extents = _EXTENT.findall(descriptor)
    if len(extents) != 1 or extents[0] != b"sparse":
        raise HeaderRefused("its VMDK descriptor names extents other than the file itself")
