"""Images for the sweep's richest spawn: a snapshot of changes over a file system, with a kernel and a ramdisk.

As small as they can be: real for qemu-img, for injection, libvirt and QEMU, and next to no work for any of them.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from virtflow.images import kinds, names
from virtflow.images.catalog import LocalCatalog
from virtflow.processes import run

SNAPSHOT = "snapshot"
_MIB = 8
_LOADED_AT = 0x100000
_HALT = b"\xfa\xf4\xeb\xfd"
"""cli; hlt; jmp to the hlt."""


def add_snapshot(catalog: LocalCatalog) -> None:
    """Add ``snapshot``, and what it stands on and boots with. Raises CommandFailed, HostLacks."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        properties = {kinds.TYPE_PROPERTY: "snapshot"}
        for name, disk_format, content in (("kernel", "aki", multiboot_kernel()), ("ramdisk", "ari", bytes(512))):
            (work / name).write_bytes(content)
            properties[f"{name}_id"] = catalog.add(work / name, name, disk_format).id
        base = names.base_name(catalog.add(_file_system(work), "linux", "raw").id)
        properties[kinds.BASE_PROPERTY] = base
        catalog.add(_changes(work, base), SNAPSHOT, "qcow2", properties=properties)


def multiboot_kernel() -> bytes:
    """A kernel that halts. Its header: section 3.1 of the Multiboot Specification 0.6.96, with addresses (flag 16)."""
    magic, flags = 0x1BADB002, 1 << 16
    checksum = -(magic + flags) & 0xFFFFFFFF
    size = struct.calcsize("<8I")
    header = (magic, flags, checksum, _LOADED_AT, _LOADED_AT, 0, 0, _LOADED_AT + size)
    return (struct.pack("<8I", *header) + _HALT).ljust(512, b"\0")


def _file_system(work: Path) -> Path:
    """What injection looks for: a root with /etc, and a shadow file."""
    for name in ("etc", "root"):
        (work / "tree" / name).mkdir(parents=True)
    (work / "tree/etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    disk = work / "linux.raw"
    run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", work / "tree", disk, f"{_MIB}M"])
    return disk


def _changes(work: Path, base: str) -> Path:
    """No changes at all, but an image that says what it would have changed."""
    disk = work / "changes.qcow2"
    run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", base, disk, f"{_MIB}M"])
    return disk
