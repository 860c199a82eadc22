"""The host's cache of raw bases: each image downloaded once, inspected, converted, and published when complete.

In the directory, with S the SHA-1 of the image's id: ``S`` is a base, ``S.json`` what is known of it, ``S_<GiB>`` a
base extended to that size. ``S.part``, ``S.converted``, ``S.json.part`` and ``S_<GiB>.part`` are work that goes on
under the lock of S, or was killed. A base that has its name is complete by definition. ``S.delta`` is an image that
holds only changes (see ``deltas``), ``ephemeral_*`` and ``swap_*`` are formatted bases (see ``blank_bases``): made
elsewhere, aged out and swept up here. Files are readable by all (QEMU runs as a user of its own); who may reach them is
decided by the directory.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import ImageRefused, InvalidRequest
from virtflow.files.durable import SHARED, publish, storage_errors
from virtflow.files.lock import hold, hold_if_free
from virtflow.images import names
from virtflow.images.copying import copy_sparse
from virtflow.images.download import download
from virtflow.images.inspection import MAX_VIRTUAL_SIZE, VMDK_TYPES, disguise, inspect
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord
from virtflow.images.second_opinion import confirm
from virtflow.images.sidecars import read_sidecar, sidecar, write_sidecar
from virtflow.images.sources import ImageSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedBase:
    """A published base. ``virtual_size`` in bytes; ``sha256`` is of the image as it was downloaded."""

    path: str
    format: str
    virtual_size: int
    sha256: str | None
    image_id: str


class ImageCache:
    """The cache in ``base_dir``; its locks are files in ``locks_dir``. Safe among threads and processes."""

    def __init__(
        self,
        base_dir: Path,
        locks_dir: Path,
        qemu_img: QemuImg,
        *,
        max_virtual_size: int = MAX_VIRTUAL_SIZE,
        vmdk_types: Collection[str] = VMDK_TYPES,
    ) -> None:
        self._base_dir = base_dir
        self._locks_dir = locks_dir
        self._qemu_img = qemu_img
        self._max_virtual_size = max_virtual_size
        self._vmdk_types = tuple(vmdk_types)

    def fetch(self, record: ImageRecord, source: ImageSource, activity: Activity = IDLE) -> CachedBase:
        """Return the image's base, made first if it is not there; concurrent calls make it once.

        Raises ImageUnavailable, ImageRefused, HostStorageError, CommandFailed (qemu-img).
        """
        name = names.base_name(record.id)
        with storage_errors("use", self._base_dir):
            base = self._published(name, record.id)
            if base is None:
                with hold(self._lock(name), activity):
                    base = self._published(name, record.id) or self._make(name, record, source, activity)
        return base

    def size_base(self, base: CachedBase, size_bytes: int, activity: Activity = IDLE) -> str:
        """Return the path of a copy of ``base`` extended to ``size_bytes``, made first if it is not there.

        Raises InvalidRequest (field disk) when that is smaller than the base or no whole number of GiB.
        """
        if size_bytes < base.virtual_size:
            reason = f"{_gib(size_bytes)} GiB is smaller than the image's virtual size of {_gib(base.virtual_size)} GiB"
            raise InvalidRequest(field="disk", reason=reason)
        if size_bytes % names.GIB:
            raise InvalidRequest(field="disk", reason=f"{size_bytes} bytes is no whole number of GiB")
        name = names.base_name(base.image_id)
        sized = self._base_dir / names.sized_name(name, size_bytes)
        with storage_errors("use", sized):
            if not self._used(sized, size_bytes):
                with hold(self._lock(name), activity):
                    if not self._used(sized, size_bytes):
                        self._copy_extended(Path(base.path), sized, size_bytes, activity)
        return str(sized)

    def bases(self) -> list[CachedBase]:
        """Every published base."""
        found = (self._read_sidecar(name) for name in self._file_names() if names.sidecar_base(name))
        return [base for base in found if base is not None and Path(base.path).exists()]

    def leftovers(self) -> list[Path]:
        """Files of work that was killed, on bases of any kind; what somebody works on at this moment is none."""
        return self._sweep(remove=False)

    def remove_leftovers(self, untouched_seconds: float = 0) -> list[Path]:
        """Remove the leftovers that nobody has written to for so long, and return them.

        A download that could have been resumed starts anew.
        """
        return self._sweep(remove=True, horizon=time.time() - untouched_seconds)

    def abandon(self, image_id: str) -> None:
        """Remove what is unfinished of an image that nobody works on any more, for now or for good."""
        name = names.base_name(image_id)
        with storage_errors("clear", self._base_dir), hold_if_free(self._lock(name)) as held:
            for path in [self._base_dir / each for each, base in self._unfinished() if base == name] if held else []:
                path.unlink(missing_ok=True)

    def prune(self, in_use: Collection[str], unused_seconds: float) -> list[Path]:
        """Remove bases that nobody has asked for in the last ``unused_seconds`` and whose path is not ``in_use``.

        Formatted bases and deltas age in the same way. ``in_use`` has to hold the backing file of every disk on this
        host; it is asked under the lock of each base. ``unused_seconds`` has to be longer than a spawn takes from
        fetching a base to creating its overlay.
        """
        horizon = time.time() - unused_seconds
        removed: list[Path] = []
        present = self._file_names()
        plain = [name for name in present if names.sized_base(name) or names.is_blank(name)]
        for path in (self._base_dir / name for name in plain):
            removed += self._prune_one(path, path, in_use, horizon)
        for path in (self._base_dir / name for name in map(names.described, present) if name in present):
            if gone := self._prune_one(path, sidecar(path), in_use, horizon):
                sidecar(path).unlink(missing_ok=True)
                removed += gone
        return removed

    # -- making a base ------------------------------------------------------------------------------------------------

    def _make(self, name: str, record: ImageRecord, source: ImageSource, activity: Activity) -> CachedBase:
        part = self._base_dir / (name + names.PART)
        self._base_dir.mkdir(parents=True, exist_ok=True)
        sha256 = download(record, source, part, self._max_virtual_size, activity)
        try:
            staged = self._as_raw(name, record, part, activity)
        except ImageRefused:
            part.unlink(missing_ok=True)
            raise
        base = CachedBase(str(self._base_dir / name), "raw", staged.stat().st_size, sha256, record.id)
        write_sidecar(Path(base.path), {field: value for field, value in asdict(base).items() if field != "path"})
        publish(staged, Path(base.path), SHARED)
        if staged != part:
            part.unlink(missing_ok=True)
        return base

    def _as_raw(self, name: str, record: ImageRecord, part: Path, activity: Activity) -> Path:
        """The raw file to publish: the download itself, or what it was converted to."""
        inspected = inspect(
            part,
            record.disk_format,
            name=record.label,
            max_virtual_size=self._max_virtual_size,
            vmdk_types=self._vmdk_types,
        )
        if inspected.format == "raw":
            return part
        size = confirm(
            self._qemu_img, part, inspected, name=record.label, limit=self._max_virtual_size, activity=activity
        )
        converted = self._base_dir / (name + names.CONVERTED)
        converted.unlink(missing_ok=True)
        try:
            self._qemu_img.convert(part, inspected.format, converted, "raw", activity, total_bytes=size)
            if found := disguise(converted):
                raise ImageRefused(image=record.label, reason=f"the disk in it begins with a {found} header")
        except BaseException:
            converted.unlink(missing_ok=True)
            raise
        return converted

    def _copy_extended(self, base: Path, sized: Path, size_bytes: int, activity: Activity) -> None:
        staged = sized.with_name(sized.name + names.PART)
        try:
            staged.unlink(missing_ok=True)
            copy_sparse(base, staged, activity)
            os.truncate(staged, size_bytes)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        publish(staged, sized, SHARED)

    # -- what is there ------------------------------------------------------------------------------------------------

    def _published(self, name: str, image_id: str) -> CachedBase | None:
        """The base if it is there and is what was published; marks it as used."""
        base = self._read_sidecar(name)
        if base is None or base.image_id != image_id:
            return None
        try:
            if os.stat(base.path, follow_symlinks=False).st_size != base.virtual_size:
                _log.warning("base %s has not the size it was published with, fetching it again", base.path)
                return None
            if found := disguise(base.path):
                _log.warning("base %s begins with a %s header now, fetching it again", base.path, found)
                return None
            os.utime(base.path + names.SIDECAR)
        except FileNotFoundError:
            return None
        return base

    def _read_sidecar(self, file_name: str) -> CachedBase | None:
        path = self._base_dir / file_name.removesuffix(names.SIDECAR)
        plain = read_sidecar(path)
        try:
            return None if plain is None else CachedBase(**{**plain, "path": str(path)})
        except TypeError as error:
            _log.warning("cannot read what is known of %s: %s", path, error)
            return None

    def _used(self, sized: Path, size_bytes: int) -> bool:
        """Whether the sized base is there; marks it as used."""
        try:
            if os.stat(sized, follow_symlinks=False).st_size != size_bytes:
                return False
            os.utime(sized)
        except FileNotFoundError:
            return False
        return True

    def _prune_one(self, path: Path, used_mark: Path, in_use: Collection[str], horizon: float) -> list[Path]:
        with hold_if_free(self._lock(names.lock_of(path.name))) as held, contextlib.suppress(FileNotFoundError):
            if held and str(path) not in in_use and used_mark.stat().st_mtime < horizon:
                path.unlink()
                return [path]
        return []

    def _sweep(self, *, remove: bool, horizon: float = math.inf) -> list[Path]:
        found = []
        for file_name, name in self._unfinished():
            path = self._base_dir / file_name
            with hold_if_free(self._lock(name)) as held, contextlib.suppress(FileNotFoundError):
                published_meanwhile = path.suffix == names.SIDECAR and path.with_suffix("").exists()
                if held and path.stat().st_mtime <= horizon and not published_meanwhile:
                    found.append(path)
                    if remove:
                        path.unlink()
        return found

    def _unfinished(self) -> Iterator[tuple[str, str]]:
        """Names of files that no finished work leaves, with the base whose lock guards each."""
        present = self._file_names()
        for file_name in present:
            orphan = names.described(file_name)
            if name := names.unfinished_base(file_name):
                yield file_name, name
            elif orphan and orphan not in present:
                yield file_name, names.lock_of(orphan)

    def _file_names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._base_dir))
        except FileNotFoundError:
            return []

    def _lock(self, name: str) -> Path:
        return self._locks_dir / f"base-{name}"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / names.GIB:.3f}".rstrip("0").rstrip(".")
