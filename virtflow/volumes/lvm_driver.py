"""The driver ``lvm``: a volume is a logical volume, thick, or thin in a pool.

They are built as ``NAME.part`` and renamed when they are complete. What is deleted becomes ``trash.T.NAME``. Only what
carries the backend's tag is touched: others may use the volume group, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from virtflow.activity import IDLE, Activity
from virtflow.errors import VolumeError
from virtflow.files.durable import storage_errors
from virtflow.volumes.driver import LOCAL, Capacity, Connection, Reach
from virtflow.volumes.exports.exporter import NO_SERVER, Backing, Exporter
from virtflow.volumes.lvm_group import LogicalVolume, VolumeGroup

_RAW = "raw"
_PART = ".part"
_TRASH = "trash."
_SNAPSHOT = "snapshot-"
_GROWING = "virtflow.growing-from."
"""On a thick volume from before it grows until its new end is zeroed."""
_CHUNK = 4 << 20


class DiskTool(Protocol):
    """What the driver wants of qemu-img (``virtflow.images.qemu_img``)."""

    def convert_onto(
        self,
        source: Path,
        source_format: str,
        target: Path,
        target_format: str,
        activity: Activity,
        *,
        blank: bool,
        opened: bool = False,
    ) -> None: ...


class LvmDriver:
    """``pool`` is the thin pool, or empty for thick volumes; with ``clear`` these are zeroed before they go, too."""

    def __init__(
        self, group: VolumeGroup, pool: str, tag: str, disk_tool: DiskTool, exporter: Exporter, *, clear: bool = False
    ) -> None:
        self._group = group
        self._pool = pool
        self._tag = tag
        self._tool = disk_tool
        self._exporter = exporter
        self._clear = clear and not pool

    def capabilities(self) -> Mapping[str, Any]:
        return {
            "driver": "lvm",
            "format": _RAW,
            "thin": bool(self._pool),
            "extend_in_use": True,
            "shared": self._exporter is not NO_SERVER,
            "volume_group": self._group.name,
        }

    def capacity(self) -> Capacity:
        total, free = self._group.pool_room(self._pool) if self._pool else self._group.room()
        return Capacity(total, free)

    # -- making

    def create(self, name: str, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if part:
                self._allocate(part, size, activity)
                self._blank(part, 0, size, activity)

    def clone_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> bool:  # noqa: ARG002
        return False

    def copy_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if part:
                self._allocate(part, size, activity)
                with storage_errors("measure", image):
                    copied = image.stat().st_size
                self._copy(image, part, activity)
                self._blank(part, copied, size, activity)

    def clone(self, name: str, source: str, size: int, activity: Activity = IDLE) -> None:
        with self._made(name, size) as part:
            if not part:
                return
            old = self._known("clone", source)
            if self._pool:
                self._group.snapshot_thin(part, old.name, self._tag, activity)
                if old.size < size:
                    self._group.extend(part, size, activity)
                return
            self._allocate(part, size, activity)
            self._copy(self._group.path(old.name), part, activity, opened=True)
            self._blank(part, old.size, size, activity)

    def snapshot(self, name: str, volume: str, activity: Activity = IDLE) -> None:
        self.clone(name, volume, self._known("snapshot", volume).size, activity)

    # -- sizes

    def size(self, name: str) -> int | None:
        found = self._ours().get(_logical(name))
        return None if found is None else found.size

    def extend(self, name: str, size: int, activity: Activity = IDLE) -> None:
        found = self._known("extend", name)
        growing = [tag for tag in found.tags if tag.startswith(_GROWING)]
        if found.size > size:
            return
        if found.size < size:
            self._exporter.check_growth(name)
            if not self._pool and not growing:
                growing = [f"{_GROWING}{found.size}"]
                self._group.tag(found.name, add=growing)
            self._group.extend(found.name, size, activity)
        if growing:
            # Nobody has been told of the new end yet: what is there belongs to whoever had the blocks before.
            self._blank(found.name, int(growing[0].removeprefix(_GROWING)), size, activity)
        self._exporter.grown(name, self._backing(name), activity)
        if growing:
            self._group.tag(found.name, remove=growing)

    def shrink(self, name: str, size: int, activity: Activity = IDLE) -> None:
        found = self._known("shrink", name)
        growing = [tag for tag in found.tags if tag.startswith(_GROWING)]
        if found.size > size:
            if not growing and self._data_beyond(found.name, size, activity):
                raise VolumeError(action="shrink", volume=name, reason="data was written beyond its old end")
            self._group.reduce(found.name, size, activity)
            self._exporter.grown(name, self._backing(name), activity)
        if growing:
            self._group.tag(found.name, remove=growing)

    # -- going

    def remove(self, name: str) -> None:
        present = self._ours()
        for each in (_logical(name), _logical(name) + _PART):
            if each in present:
                self._discard(present[each])

    def delete(self, name: str, trash: str) -> None:
        if _logical(name) in self._ours():
            self._group.rename(_logical(name), _trashed(trash, name))

    def restore(self, name: str, trash: str) -> None:
        if _trashed(trash, name) in self._ours():
            self._group.rename(_trashed(trash, name), _logical(name))

    def in_trash(self, trash: str) -> bool:
        return bool(self._trash(trash))

    def purge(self, trash: str) -> None:
        for volume in self._trash(trash):
            self._discard(volume)

    # -- reaching it

    def export(self, name: str, reach: Reach = LOCAL) -> Connection:
        self._known("export", name)
        if not reach.local:
            return self._exporter.export(name, self._backing(name), reach)
        return Connection("block", str(self._backing(name).path), _RAW)

    def unexport(self, name: str) -> None:
        self._exporter.unexport(name, self._backing(name))

    def exported(self) -> list[str]:
        return self._exporter.exported(self._group.path(""))

    def contents(self) -> list[str]:
        return sorted({_shown(name) for name in self._ours()})

    # -- inside

    @contextmanager
    def _made(self, name: str, size: int) -> Iterator[str | None]:
        """The name under which to build it, which then gets its own; None when what has the name is complete."""
        present = self._group.volumes()
        found = present.get(_logical(name))
        if found is not None:
            if self._tag not in found.tags:
                reason = f"volume group {self._group.name} has one of that name, which is not this backend's"
                raise VolumeError(action="create", volume=name, reason=reason)
            if found.size != size:
                raise VolumeError(action="create", volume=name, reason=f"one of {found.size} bytes has that name")
            yield None
            return
        part = _logical(name) + _PART
        if part in present:
            self._discard(present[part])
        try:
            yield part
        except BaseException:
            self.remove(name)
            raise
        self._group.rename(part, _logical(name))

    def _allocate(self, part: str, size: int, activity: Activity) -> None:
        if self._pool:
            self._group.create_thin(part, size, self._pool, self._tag, activity)
        else:
            self._group.create(part, size, self._tag, activity)

    def _copy(self, source: Path, part: str, activity: Activity, *, opened: bool = False) -> None:
        blank = bool(self._pool)
        self._tool.convert_onto(source, _RAW, self._group.path(part), _RAW, activity, blank=blank, opened=opened)

    def _blank(self, volume: str, start: int, end: int, activity: Activity) -> None:
        """A thin volume reads as zeros where nothing was written."""
        if not self._pool and start < end:
            self._group.zero(volume, start, end - start, activity)

    def _discard(self, volume: LogicalVolume) -> None:
        if self._clear:
            self._group.zero(volume.name, 0, volume.size)
        self._group.remove(volume.name)

    def _data_beyond(self, volume: str, size: int, activity: Activity) -> bool:
        path, zeros = self._group.path(volume), bytes(_CHUNK)
        with storage_errors("read", path), path.open("rb", buffering=0) as device:
            device.seek(size)
            while chunk := device.read(_CHUNK):
                activity.check()
                if chunk != zeros[: len(chunk)]:
                    return True
        return False

    def _ours(self) -> dict[str, LogicalVolume]:
        return {name: volume for name, volume in self._group.volumes().items() if self._tag in volume.tags}

    def _trash(self, trash: str) -> list[LogicalVolume]:
        return [volume for name, volume in self._ours().items() if name.startswith(f"{_TRASH}{trash}.")]

    def _known(self, action: str, name: str) -> LogicalVolume:
        found = self._ours().get(_logical(name))
        if found is None:
            raise VolumeError(action=action, volume=name, reason="it is not there")
        return found

    def _backing(self, name: str) -> Backing:
        return Backing(self._group.path(_logical(name)), _RAW)


def _logical(name: str) -> str:
    """LVM keeps names that begin with ``snapshot`` for itself."""
    return f"_{name}" if name.startswith(_SNAPSHOT) else name


def _trashed(trash: str, name: str) -> str:
    return f"{_TRASH}{trash}.{_logical(name)}"


def _shown(logical: str) -> str:
    """As ``contents`` has it."""
    if logical.startswith(_TRASH):
        return f"trash/{logical.split('.')[1]}"
    return logical.removeprefix("_")
