"""File names in the cache: made from a digest and numbers, so that no text of a user is ever part of a path."""

from __future__ import annotations

import hashlib
import re

GIB = 1 << 30

PART = ".part"
CONVERTED = ".converted"
SIDECAR = ".json"
SIDECAR_STAGED = ".json.part"
DELTA = ".delta"

_SHA1 = r"[0-9a-f]{40}"
_BLANK_NAMES = r"ephemeral_[1-9][0-9]*_(?:ext4|ext3|vfat)_[a-z0-9-]+|swap_[1-9][0-9]*"

_BASE = re.compile(_SHA1)
_DESCRIBED = re.compile(rf"({_SHA1})(?:\.delta)?")
_UNFINISHED = re.compile(rf"({_SHA1})(?:(?:\.delta)?(?:\.part|\.converted|\.json\.part)|_[0-9]+\.part)")
_UNFINISHED_BLANK = re.compile(rf"({_BLANK_NAMES})\.part")
_SIZED = re.compile(rf"({_SHA1})_[0-9]+")
_BLANK = re.compile(_BLANK_NAMES)
_BACKING = re.compile(rf"({_SHA1})(?:_([1-9][0-9]{{0,5}}))?")


def base_name(image_id: str) -> str:
    """The name of an image's base: SHA-1 of its id, as Nova's cache has it; a name, not a protection."""
    return hashlib.sha1(image_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def sized_name(base: str, size_bytes: int) -> str:
    """The name of a base extended to whole GiB."""
    return f"{base}_{size_bytes // GIB}"


def ephemeral_name(size_gib: int, filesystem: str, label: str) -> str:
    """The name of the base of an ephemeral disk."""
    return f"ephemeral_{size_gib}_{filesystem}_{label}"


def swap_name(size_mib: int) -> str:
    """The name of the base of a swap disk."""
    return f"swap_{size_mib}"


def unfinished_base(file_name: str) -> str | None:
    """The base whose making leaves a file of this name behind, or None when it is no such name."""
    found = _UNFINISHED.fullmatch(file_name) or _UNFINISHED_BLANK.fullmatch(file_name)
    return found.group(1) if found else None


def lock_of(file_name: str) -> str:
    """Whose lock guards a finished file of the cache: its sized copies and its delta share that of the base."""
    found = _DESCRIBED.fullmatch(file_name.removesuffix(SIDECAR)) or _SIZED.fullmatch(file_name)
    return found.group(1) if found else file_name


def described(file_name: str) -> str | None:
    """The base or delta that a file of this name describes, or None."""
    stem = file_name.removesuffix(SIDECAR)
    return stem if stem != file_name and _DESCRIBED.fullmatch(stem) else None


def sidecar_base(file_name: str) -> str | None:
    """The base that a file of this name describes, or None."""
    stem = file_name.removesuffix(SIDECAR)
    return stem if stem != file_name and _BASE.fullmatch(stem) else None


def sized_base(file_name: str) -> str | None:
    """The base that a file of this name is a sized copy of, or None."""
    found = _SIZED.fullmatch(file_name)
    return found.group(1) if found else None


def is_delta(file_name: str) -> bool:
    return file_name.endswith(DELTA) and _DESCRIBED.fullmatch(file_name) is not None


def is_blank(file_name: str) -> bool:
    """Whether a file of this name is a formatted base: of an ephemeral disk, or of swap."""
    return _BLANK.fullmatch(file_name) is not None


def parse_backing(name: str) -> tuple[str, int | None] | None:
    """The base and the size (GiB, None for the unsized one) that a backing file's name says, or None.

    Nothing but a plain name of this cache is one: no directory, no protocol.
    """
    found = _BACKING.fullmatch(name)
    return (found.group(1), int(found.group(2)) if found.group(2) else None) if found else None
