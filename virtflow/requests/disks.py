"""Disks beside the root disk: ephemeral ones and swap, as requests, options and flavors write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from virtflow.errors import InvalidRequest

MOST_EPHEMERALS = 16
LARGEST_EPHEMERAL_GIB = 16383
LARGEST_SWAP_MIB = 1 << 20
FILESYSTEMS = ("ext4", "ext3", "vfat")


class EphemeralRequest(BaseModel):
    """An ephemeral disk of ``size`` GiB; ``fs`` is its file system (None: the configured one)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    size: Annotated[int, Field(ge=1, le=LARGEST_EPHEMERAL_GIB)]
    fs: Literal["ext4", "ext3", "vfat"] | None = None


def _from_size(value: object) -> object:
    """A bare number is a size."""
    return {"size": value} if isinstance(value, int) else value


Ephemerals = Annotated[
    list[Annotated[EphemeralRequest, BeforeValidator(_from_size)]], Field(max_length=MOST_EPHEMERALS)
]
SwapMib = Annotated[int, Field(ge=0, le=LARGEST_SWAP_MIB)]


def parse_ephemeral(text: str) -> dict[str, int | str]:
    """``GiB[:fs]`` as an entry of a request's ``ephemeral_gib``. Raises InvalidRequest."""
    size, colon, filesystem = text.partition(":")
    if not size.isascii() or not size.isdigit() or len(size) > 5 or (colon and not filesystem):
        reason = f"{text[:40]!a} must be GiB or GiB:FS, such as 10 or 10:vfat"
        raise InvalidRequest(field="ephemeral_gib", reason=reason)
    return {"size": int(size)} | ({"fs": filesystem} if filesystem else {})


def parse_ephemerals(text: str) -> list[EphemeralRequest]:
    """A flavor's ``ephemeral_gib``: one ``GiB[:fs]`` or several with commas between. Raises InvalidRequest."""
    entries = [parse_ephemeral(each.strip()) for each in text.split(",") if each.strip()]
    if len(entries) > MOST_EPHEMERALS:
        raise InvalidRequest(field="ephemeral_gib", reason=f"must have at most {MOST_EPHEMERALS} entries")
    return [_checked(entry) for entry in entries]


def parse_swap(text: str) -> int:
    """A flavor's ``swap_mib``. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= LARGEST_SWAP_MIB):
        raise InvalidRequest(field="swap_mib", reason=f"must be a whole number of MiB, at most {LARGEST_SWAP_MIB}")
    return int(text)


def _checked(entry: dict[str, int | str]) -> EphemeralRequest:
    size, filesystem = entry["size"], entry.get("fs")
    if not isinstance(size, int) or not 1 <= size <= LARGEST_EPHEMERAL_GIB:
        raise InvalidRequest(field="ephemeral_gib", reason=f"must be 1 to {LARGEST_EPHEMERAL_GIB} GiB, not {size}")
    if filesystem is not None and filesystem not in FILESYSTEMS:
        reason = f"file system {str(filesystem)[:40]!a} is none of {', '.join(FILESYSTEMS)}"
        raise InvalidRequest(field="ephemeral_gib", reason=reason)
    return EphemeralRequest.model_validate(entry)
