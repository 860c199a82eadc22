"""Images that hold only what changed over another one: fetched as they are, and laid over their base.

Such an image is hostile like any other, and it has to have a backing file. So its header is read here, by nobody
else; the name in it is remembered and wiped out before QEMU opens the file for the first time. What the cache keeps
stands alone, and is inspected like every image each time it is used.

In the cache, with S the SHA-1 of the image's id: ``S.delta``, and ``S.delta.json`` with what is known of it;
``S.delta.part`` and ``S.delta.converted`` are work under the lock of S.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, ImageRefused
from virtflow.files.durable import PRIVATE, publish, storage_errors
from virtflow.files.lock import hold, hold_if_free
from virtflow.images import names
from virtflow.images.download import download
from virtflow.images.inspection import MAX_VIRTUAL_SIZE, Inspected, inspect, inspect_delta
from virtflow.images.kinds import BASE_PROPERTY
from virtflow.images.qcow2_header import forget_backing
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord
from virtflow.images.second_opinion import confirm
from virtflow.images.sidecars import read_sidecar, sidecar, write_sidecar
from virtflow.images.sources import ImageSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedDelta:
    """A published delta: qcow2 without a backing file.

    ``virtual_size`` in bytes; ``base`` is the SHA-1 of its base's id, ``base_gib`` the size to which that base was
    extended, or None; ``sha256`` is of the download.
    """

    path: str
    virtual_size: int
    base: str
    base_gib: int | None
    sha256: str
    image_id: str


class DeltaCache:
    """The deltas in ``base_dir``, the directory of an ImageCache, which ages them out. Safe among processes."""

    def __init__(
        self, base_dir: Path, locks_dir: Path, qemu_img: QemuImg, *, max_virtual_size: int = MAX_VIRTUAL_SIZE
    ) -> None:
        self._base_dir = base_dir
        self._locks_dir = locks_dir
        self._qemu_img = qemu_img
        self._max_virtual_size = max_virtual_size

    def path(self, image_id: str) -> Path:
        """Where the delta of this image is, or will be."""
        return self._base_dir / (names.base_name(image_id) + names.DELTA)

    def fetch(self, record: ImageRecord, source: ImageSource, activity: Activity = IDLE) -> CachedDelta:
        """Return the image's delta, fetched first if it is not there; concurrent calls fetch it once.

        Raises ImageUnavailable, ImageRefused, HostStorageError.
        """
        path = self.path(record.id)
        with storage_errors("use", path):
            delta = self._published(path, record)
            if delta is None:
                with hold(self._lock(record.id), activity):
                    delta = self._published(path, record) or self._make(path, record, source, activity)
        return delta

    def abandon(self, image_id: str) -> None:
        """Remove what is unfinished of a delta that nobody works on any more, for now or for good."""
        path = self.path(image_id)
        with storage_errors("clear", self._base_dir), hold_if_free(self._lock(image_id)) as held:
            if not held:
                return
            for suffix in (names.PART, names.CONVERTED, names.SIDECAR_STAGED):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            if not path.exists():  # what is known of it is published first
                sidecar(path).unlink(missing_ok=True)

    def _lock(self, image_id: str) -> Path:
        return self._locks_dir / f"base-{names.base_name(image_id)}"

    def _make(self, path: Path, record: ImageRecord, source: ImageSource, activity: Activity) -> CachedDelta:
        self._base_dir.mkdir(parents=True, exist_ok=True)
        part, staged = (path.with_name(path.name + suffix) for suffix in (names.PART, names.CONVERTED))
        sha256 = download(record, source, part, self._max_virtual_size, activity, delta=True)
        # Renamed first: what is changed from here on must never be taken for a download to go on from.
        os.replace(part, staged)
        try:
            delta = self._stand_alone(path, staged, record, sha256, activity)
            write_sidecar(path, {name: value for name, value in asdict(delta).items() if name != "path"})
            publish(staged, path, PRIVATE)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        return delta

    def _stand_alone(
        self, path: Path, staged: Path, record: ImageRecord, sha256: str, activity: Activity
    ) -> CachedDelta:
        limit = self._max_virtual_size
        found = inspect_delta(staged, record.disk_format, name=record.label, max_virtual_size=limit)
        if found.base != record.properties.get(BASE_PROPERTY):
            raise ImageRefused(image=record.label, reason=f"it stands on {found.base}, which its properties deny")
        descriptor = os.open(staged, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            forget_backing(descriptor)
        finally:
            os.close(descriptor)
        inspected = self._inspect(staged, record)
        confirm(self._qemu_img, staged, inspected, name=record.label, limit=limit, activity=activity)
        try:
            self._qemu_img.check(staged, "qcow2", activity)
        except CommandFailed as error:
            raise ImageRefused(image=record.label, reason=f"its metadata is corrupt: {error.stderr}") from error
        return CachedDelta(str(path), inspected.virtual_size, found.base, found.base_gib, sha256, record.id)

    def _inspect(self, path: Path, record: ImageRecord) -> Inspected:
        return inspect(path, "qcow2", name=record.label, max_virtual_size=self._max_virtual_size)

    def _published(self, path: Path, record: ImageRecord) -> CachedDelta | None:
        """The delta if it is there and still what was published; marks it as used."""
        plain = read_sidecar(path)
        if plain is None or plain.get("image_id") != record.id or not path.exists():
            return None
        delta = CachedDelta(**{**plain, "path": str(path)})
        try:
            self._inspect(path, record)
        except ImageRefused as refusal:
            _log.warning("%s is not what was published, fetching it again: %s", path, refusal)
            return None
        os.utime(sidecar(path))
        return delta
