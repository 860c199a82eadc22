"""The config drive as a FAT file system without a partition table, for guests whose agent wants a disk."""

from __future__ import annotations

import os
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.metadata.iso_image import VOLUME_ID
from virtflow.processes import run

VFAT_BYTES = 64 << 20
"""What OpenStack makes it; the file is sparse."""


def make_vfat(descriptor: int, path: Path, content: Path, activity: Activity = IDLE) -> None:
    """Fill the empty file at ``path``, open as ``descriptor``, with a file system of what is in the directory
    ``content``. Raises CommandFailed; OSError.
    """
    os.ftruncate(descriptor, VFAT_BYTES)
    run(["mkfs.vfat", "-n", VOLUME_ID, path], activity=activity)
    # -s: whole directories; -m would keep times, which differ from run to run.
    run(["mcopy", "-s", "-i", path, *sorted(content.iterdir()), "::/"], activity=activity)
