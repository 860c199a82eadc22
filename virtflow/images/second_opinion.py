"""What qemu-img reads in an image has to agree with our own reading, before anything is made of the image."""

from __future__ import annotations

from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, ImageRefused
from virtflow.images.inspection import Inspected
from virtflow.images.qemu_img import QemuImg


def confirm(
    qemu_img: QemuImg, path: Path, inspected: Inspected, *, name: str, limit: int, activity: Activity = IDLE
) -> int:
    """Return the virtual size in bytes, at most ``limit``, or raise ImageRefused; ``name`` is what the error says."""
    try:
        info = qemu_img.info(path, inspected.format, activity)
    except CommandFailed as error:
        raise ImageRefused(image=name, reason=f"qemu-img cannot read it: {error.stderr}") from error
    other_files = info.backing_file or info.data_file
    if other_files or info.encrypted or info.dirty or info.corrupt:
        raise ImageRefused(image=name, reason="qemu-img finds it dirty, encrypted, or leaning on other files")
    # Of a VHD, QEMU may derive the size from the disk geometry instead of the size field.
    same_size = inspected.format == "vpc" or info.virtual_size == inspected.virtual_size
    if not same_size or info.virtual_size > limit:
        reason = f"its header says {inspected.virtual_size} bytes, qemu-img {info.virtual_size}"
        raise ImageRefused(image=name, reason=reason)
    return info.virtual_size
