"""How a disk of an instance is kept: as changes over a base, or whole.

``qcow2`` is an overlay over the base, ``qcow2-flat`` a qcow2 file without a backing file, ``raw`` a plain copy. Each
is built aside and renamed: a disk that has its name is complete. What a guest writes is never probed: the format is
the backend's.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, HostStorageError
from virtflow.files.durable import PRIVATE, publish, storage_errors
from virtflow.images.copying import copy_sparse
from virtflow.images.deltas import CachedDelta
from virtflow.images.qemu_img import QemuImg

OVERLAY = "qcow2"
FLAT = "qcow2-flat"
RAW = "raw"
BACKENDS = (OVERLAY, FLAT, RAW)


@dataclass(frozen=True)
class DiskPlan:
    """A disk of ``size`` bytes at ``path``, built at ``staged``; its content is that of the raw file ``base``."""

    path: Path
    staged: Path
    backend: str
    base: Path
    size: int

    @property
    def format(self) -> str:
        return disk_format(self.backend)

    @property
    def overlay(self) -> Path:
        """Where changes are put together with their base before they become a whole disk."""
        return self.staged.with_name(f"{self.staged.name}.overlay")


def disk_format(backend: str) -> str:
    """QEMU's name of the format that disks of this backend have."""
    return "raw" if backend == RAW else "qcow2"


def make_disk(plan: DiskPlan, qemu_img: QemuImg, activity: Activity = IDLE) -> None:
    """Make the disk, or find it made. Raises HostStorageError (another one is there, too), CommandFailed."""
    with storage_errors("create", plan.path):
        if _is_made(plan, qemu_img, activity):
            return
        _start(plan.staged)
        if plan.backend == OVERLAY:
            qemu_img.create_overlay(plan.staged, plan.base, "raw", plan.size, activity)
        else:
            _flatten(plan, plan.base, "raw", plan.base.stat().st_size, qemu_img, activity)
        publish(plan.staged, plan.path, PRIVATE)


def make_disk_from_delta(
    plan: DiskPlan, delta: CachedDelta, old_base: Path, qemu_img: QemuImg, activity: Activity = IDLE
) -> None:
    """Make the disk of a delta, or find it made; ``old_base`` is what the changes were made over.

    Raises HostStorageError, CommandFailed.
    """
    with storage_errors("create", plan.path):
        if _is_made(plan, qemu_img, activity):
            return
        overlay = plan.staged if plan.backend == OVERLAY else plan.overlay
        for path in {plan.staged, overlay}:
            _start(path)
        copy_sparse(Path(delta.path), overlay, activity)
        # The cached delta names no backing file: this is the first and only name that QEMU reads in it.
        qemu_img.rebase(overlay, old_base, "raw", activity, same_content=True)
        if plan.backend == OVERLAY:
            if plan.base != old_base:
                qemu_img.rebase(overlay, plan.base, "raw", activity)
            _grow(overlay, "qcow2", delta.virtual_size, plan.size, qemu_img, activity)
        else:
            _flatten(plan, overlay, "qcow2", delta.virtual_size, qemu_img, activity)
            overlay.unlink()
        publish(plan.staged, plan.path, PRIVATE)


def _start(path: Path) -> None:
    """An empty file that programs write into: from its first byte on it is its owner's alone."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))


def _flatten(
    plan: DiskPlan, source: Path, source_format: str, source_size: int, qemu_img: QemuImg, activity: Activity
) -> None:
    if source_format == plan.format == "raw":
        copy_sparse(source, plan.staged, activity)
    else:
        qemu_img.convert(source, source_format, plan.staged, plan.format, activity, total_bytes=source_size)
    _grow(plan.staged, plan.format, source_size, plan.size, qemu_img, activity)


def _grow(path: Path, file_format: str, size: int, wanted: int, qemu_img: QemuImg, activity: Activity) -> None:
    if wanted > size:
        qemu_img.resize(path, file_format, wanted, activity)


def _is_made(plan: DiskPlan, qemu_img: QemuImg, activity: Activity) -> bool:
    """Whether the disk is there. One of that name that is another disk raises HostStorageError."""
    try:
        found = os.stat(plan.path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    same = stat.S_ISREG(found.st_mode)
    if same and plan.format == "raw":
        same = found.st_size == plan.size
    elif same:
        same = _same_qcow2(plan, qemu_img, activity)
    if not same:
        raise HostStorageError(action="create disk", path=plan.path, reason="another disk of that name is there")
    return True


def _same_qcow2(plan: DiskPlan, qemu_img: QemuImg, activity: Activity) -> bool:
    try:
        info = qemu_img.info(plan.path, "qcow2", activity)
    except CommandFailed:
        return False
    backing = str(plan.base) if plan.backend == OVERLAY else None
    return info.backing_file == backing and info.virtual_size == plan.size
