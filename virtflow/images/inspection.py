"""Decide whether an image may be touched at all, before any other program opens it.

Images are hostile (CVE-2022-47951, CVE-2024-32498, CVE-2024-40767): a header can name the host's own files. The
format is what the image was declared to be, and its content has to agree; nothing is ever guessed in its favour.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from virtflow.errors import HostStorageError, ImageRefused
from virtflow.images import names
from virtflow.images.qcow2_header import backing_format, backing_name, check_qcow2
from virtflow.images.refusals import HeaderRefused, refuse_size
from virtflow.images.signatures import formats_of, read_marks
from virtflow.images.sparse import CHUNK
from virtflow.images.vmdk_header import check_vmdk

MAX_VIRTUAL_SIZE = 64 << 40
"""Bytes. Larger than any disk QEMU's users have; far below where sizes overflow."""

VMDK_TYPES = ("monolithicSparse", "streamOptimized")

_DRIVERS = {
    "raw": "raw",
    "iso": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vpc",
    "vhdx": "vhdx",
    **dict.fromkeys(("ami", "aki", "ari"), "raw"),
}

DISK_FORMATS = tuple(_DRIVERS)
"""What an image may be declared as: Glance's names. Amazon's are raw: ami a disk, aki a kernel, ari a ramdisk."""

KERNEL_FORMATS = ("raw", "aki", "ari")
"""What the image of a kernel or ramdisk may be declared as."""

_BARE = frozenset(("raw", "ami", "aki", "ari"))

_VDI_TYPE = slice(0x4C, 0x50)
_VDI_SELF_CONTAINED = (1, 2)
_VHD_TYPE = slice(60, 64)
_VHD_DYNAMIC = 3


@dataclass(frozen=True)
class Inspected:
    """``format`` is QEMU's name of the driver to open the image with; ``virtual_size`` is bytes."""

    format: str
    virtual_size: int


@dataclass(frozen=True)
class Delta:
    """An image of changes: ``base`` is the SHA-1 of its base's id, ``base_gib`` the base's size if it was extended."""

    virtual_size: int
    base: str
    base_gib: int | None


def inspect(
    path: Path | str,
    declared_format: str,
    *,
    name: str,
    max_virtual_size: int = MAX_VIRTUAL_SIZE,
    vmdk_types: Collection[str] = VMDK_TYPES,
) -> Inspected:
    """Return what the image is, or raise ImageRefused with the reason; ``name`` is what the error calls it."""
    path = Path(path)
    try:
        marks = read_marks(path)
        _refuse_lies(marks.formats, declared_format)
        if marks.size == 0:
            raise HeaderRefused("it is empty")
        virtual_size = marks.size
        if declared_format == "qcow2":
            virtual_size = check_qcow2(marks.head, marks.size, max_virtual_size)
        elif _DRIVERS[declared_format] != "raw":
            _check_container(marks.head, declared_format, vmdk_types)
            virtual_size = _library_check(path, declared_format)
        if declared_format == "qcow2" and _library_check(path, "qcow2") != virtual_size:
            raise HeaderRefused("its virtual size is read in two ways")
        refuse_size(virtual_size, max_virtual_size)
    except HeaderRefused as refusal:
        raise ImageRefused(image=name, reason=str(refusal)) from None
    except OSError as error:
        raise HostStorageError(action="inspect", path=path, reason=error.strerror or str(error)) from error
    return Inspected(_DRIVERS[declared_format], virtual_size)


def inspect_delta(
    path: Path | str, declared_format: str, *, name: str, max_virtual_size: int = MAX_VIRTUAL_SIZE
) -> Delta:
    """Return what an image is that holds only the changes over another one, or raise ImageRefused.

    It may be nothing else than a sound qcow2 whose backing file is the plain name of a base of the cache.
    """
    try:
        marks = read_marks(Path(path))
        _refuse_lies(marks.formats, declared_format)
        if declared_format != "qcow2":
            raise HeaderRefused(f"changes over another image are qcow2, not {declared_format}")
        virtual_size = check_qcow2(marks.head, marks.size, max_virtual_size, backing_allowed=True)
        base, base_gib = _base_of(marks.head)
    except HeaderRefused as refusal:
        raise ImageRefused(image=name, reason=str(refusal)) from None
    except OSError as error:
        raise HostStorageError(action="inspect", path=path, reason=error.strerror or str(error)) from error
    return Delta(virtual_size, base, base_gib)


def _base_of(head: bytes) -> tuple[str, int | None]:
    backing, backing_as = backing_name(head), backing_format(head)
    if backing is None:
        raise HeaderRefused("it has no backing file, so it is no image of changes over another one")
    parsed = names.parse_backing(backing.decode("ascii", "replace"))
    if parsed is None:
        raise HeaderRefused("its backing file is no plain name of a base, <sha1> or <sha1>_<GiB>")
    if backing_as not in (None, b"raw"):
        raise HeaderRefused("its backing file is not raw")
    return parsed


def inspect_head(
    head: bytes, declared_format: str, *, name: str, max_virtual_size: int = MAX_VIRTUAL_SIZE, delta: bool = False
) -> None:
    """Refuse what the beginning of an image already gives away, so that the rest need not be downloaded."""
    try:
        _refuse_lies(formats_of(head), declared_format, complete=False)
        if declared_format == "qcow2":
            check_qcow2(head, None, max_virtual_size, backing_allowed=delta)
    except HeaderRefused as refusal:
        raise ImageRefused(image=name, reason=str(refusal)) from None


def disguise(path: Path | str) -> str | None:
    """The disk format that a raw base's content looks like, or None.

    A base is always opened as raw; this finds a base that somebody exchanged, or a disk whose content is a trap for
    the one program that guesses. A guest may keep an ISO or LUKS on its whole disk.
    """
    return next(iter(sorted(read_marks(Path(path)).formats - {"iso", "luks"})), None)


def _refuse_lies(formats: Collection[str], declared: str, *, complete: bool = True) -> None:
    if declared not in _DRIVERS:
        raise HeaderRefused(f"disk format {declared!r} is not one of {', '.join(DISK_FORMATS)}")
    found = set(formats)
    if "qed" in found:
        raise HeaderRefused("QED images are not supported")
    if len(found) > 1:
        raise HeaderRefused(f"it is several formats at once: {', '.join(sorted(found))}")
    if "luks" in found:
        raise HeaderRefused("it is encrypted (LUKS)")
    bare = declared in _BARE
    if bare and found:
        raise HeaderRefused(f"declared {declared}, but its content is {found.pop()}")
    if not bare and declared not in found and (found or complete):
        raise HeaderRefused(f"declared {declared}, but its content is {found.pop() if found else 'not'}")


def _check_container(head: bytes, declared: str, vmdk_types: Collection[str]) -> None:
    if declared == "vmdk":
        check_vmdk(head, vmdk_types)
    elif declared == "vdi" and int.from_bytes(head[_VDI_TYPE], "little") not in _VDI_SELF_CONTAINED:
        raise HeaderRefused("it is a VDI difference image, which needs another file")
    elif declared == "vhd" and int.from_bytes(head[_VHD_TYPE], "big") != _VHD_DYNAMIC:
        raise HeaderRefused("only dynamic VHD images are supported")


def _library_check(path: Path, declared: str) -> int:
    """oslo.utils' safety checks for one format; returns the virtual size in bytes."""
    inspector = format_inspector.ALL_FORMATS[declared]()
    try:
        with path.open("rb") as file:
            while not inspector.complete and (chunk := file.read(CHUNK)):
                inspector.eat_chunk(chunk)
        inspector.finish()
        inspector.safety_check()
        return int(inspector.virtual_size)
    except format_inspector.SafetyCheckFailed as error:
        reasons = "; ".join(str(failure) for failure in error.failures.values())
        raise HeaderRefused(f"unsafe {declared}: {reasons}") from error
    except (
        *(format_inspector.ImageFormatError, struct.error),
        *(ArithmeticError, AttributeError, LookupError, ValueError),
    ) as error:
        # The parser meets hostile bytes; whatever it stumbles over, the image is not one.
        raise HeaderRefused(f"broken {declared} header: {error}") from error
