"""The local catalog: a directory of images with what is known of each, needing no service.

``<catalog>/<image id>/image`` and ``metadata.json``. An image that is being added, or removed, is in a directory
whose name begins with a dot, which nobody lists; the next ``add`` or ``remove`` clears what a killed one left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from virtflow.activity import IDLE, Activity
from virtflow.errors import AlreadyExists, ImageUnavailable, InvalidRequest, NotFound
from virtflow.files.durable import storage_errors, sync, write_new
from virtflow.files.lock import hold, hold_if_free
from virtflow.images.inspection import DISK_FORMATS, MAX_VIRTUAL_SIZE, inspect, inspect_delta
from virtflow.images.kinds import DELTA, kind_of
from virtflow.images.records import ImageRecord, ImageRecords
from virtflow.images.sources import find_by_sha1
from virtflow.images.sparse import CHUNK, end_sparse, write_sparse

_log = logging.getLogger(__name__)

_IMAGE = "image"
_METADATA = "metadata.json"
_LONGEST_NAME = 255


class LocalCatalog:
    """An image source that is a directory."""

    name = "local"

    def __init__(self, path: Path | str, *, max_virtual_size: int = MAX_VIRTUAL_SIZE) -> None:
        """``max_virtual_size`` in bytes: what ``add`` refuses above."""
        self._path = Path(path)
        self._max_virtual_size = max_virtual_size

    def get(self, name_or_id: str) -> ImageRecord:
        """Raises NotFound."""
        if _is_uuid(name_or_id):
            found = self._read(name_or_id.lower())
            if found is not None:
                return found
        for record in self.list():
            if record.name == name_or_id:
                return record
        raise NotFound(kind="image", name=name_or_id)

    def list(self) -> ImageRecords:
        """Every complete image, by name. Raises HostStorageError when the directory cannot be read."""
        names: Iterable[str] = ()
        with storage_errors("read", self._path), suppress(FileNotFoundError):
            names = os.listdir(self._path)
        records = [record for name in names if _is_uuid(name) and (record := self._read(name)) is not None]
        return sorted(records, key=lambda record: record.name)

    def find_by_sha1(self, sha1: str) -> ImageRecord:
        """Raises NotFound."""
        return find_by_sha1(self.list(), sha1)

    def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
        """Raises ImageUnavailable when the image is gone or cannot be read."""
        if not _is_uuid(record.id):
            raise ImageUnavailable(image=record.label, reason="it is not of the local catalog")
        return _chunks(record.label, self._path / record.id / _IMAGE, offset)

    def add(
        self,
        file: Path | str,
        name: str,
        disk_format: str,
        min_disk: int = 0,
        min_ram: int = 0,
        *,
        properties: Mapping[str, str] | None = None,
        activity: Activity = IDLE,
    ) -> ImageRecord:
        """Copy ``file`` into the catalog, inspected; ``min_disk`` in GiB, ``min_ram`` in MiB.

        An image that its properties call changes over another one (``kinds``) is inspected as that. Raises
        InvalidRequest, AlreadyExists (an image of that name), ImageRefused, HostStorageError.
        """
        _check_name(name)
        if disk_format not in DISK_FORMATS:
            raise InvalidRequest(field="disk_format", reason=f"{disk_format!r} is not one of {', '.join(DISK_FORMATS)}")
        for field, value in (("min_disk", min_disk), ("min_ram", min_ram)):
            if value < 0:
                raise InvalidRequest(field=field, reason=f"{value} is negative")
        draft = ImageRecord(
            id=str(uuid.uuid4()),
            name=name,
            source=self.name,
            disk_format=disk_format,
            min_disk=min_disk,
            min_ram=min_ram,
            properties=dict(properties or {}),
        )
        return self.publish(draft, Path(file), activity)

    def reserve(self, draft: ImageRecord) -> None:
        """Raises AlreadyExists when another image has the draft's name. Nothing is made."""
        if any(record.name == draft.name and record.id != draft.id for record in self.list()):
            raise AlreadyExists(kind="image", name=draft.name)

    def publish(self, draft: ImageRecord, file: Path, activity: Activity = IDLE) -> ImageRecord:
        """Copy ``file`` into the catalog as what ``draft`` says, inspected. One that is there already is complete.

        Raises AlreadyExists (an image of that name), InvalidRequest, ImageRefused, HostStorageError.
        """
        with _open_regular(file) as source, hold(self._path / ".lock", activity):
            self._clear_abandoned()
            if (found := self._read(draft.id)) is not None:
                return found
            self.reserve(draft)
            staged = self._path / f".adding-{draft.id}"
            try:
                with storage_errors("create", staged):
                    staged.mkdir(mode=0o755)
                size, digest = _copy(source, staged / _IMAGE, activity)
                # The copy is inspected, not the file: nobody can exchange the copy between the look and the use.
                look = inspect_delta if kind_of(draft.properties) == DELTA else inspect
                limit = self._max_virtual_size
                inspected = look(staged / _IMAGE, draft.disk_format, name=draft.name, max_virtual_size=limit)
                record = replace(
                    draft,
                    source=self.name,
                    size=size,
                    checksum=("sha256", digest),
                    virtual_size=inspected.virtual_size,
                )
                self._publish(staged, record)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
        return record

    def discard(self, image_id: str) -> None:
        """Remove the image, and what was begun of it. Absent is fine."""
        with suppress(NotFound):
            self.remove(image_id)

    def leftovers(self) -> Sequence[Path]:
        """What killed processes have left half added or half removed; nothing while somebody adds or removes."""
        with storage_errors("read", self._path), hold_if_free(self._path / ".lock") as held:
            return sorted(self._path.glob(".*-*")) if held else []

    def remove(self, name_or_id: str, activity: Activity = IDLE) -> ImageRecord:
        """Remove an image and return what it was. Raises NotFound, HostStorageError."""
        with hold(self._path / ".lock", activity):
            self._clear_abandoned()
            record = self.get(name_or_id)
            doomed = self._path / f".removing-{record.id}"
            with storage_errors("remove", self._path / record.id):
                os.rename(self._path / record.id, doomed)
                sync(self._path)
                shutil.rmtree(doomed)
        return record

    def _publish(self, staged: Path, record: ImageRecord) -> None:
        write_new(staged / _METADATA, json.dumps(record.to_dict(), indent=1).encode())
        with storage_errors("publish", self._path / record.id):
            sync(staged)
            os.rename(staged, self._path / record.id)
            sync(self._path)

    def _clear_abandoned(self) -> None:
        """Called under the lock: nobody else is adding or removing."""
        for directory in self._path.glob(".*-*"):
            shutil.rmtree(directory, ignore_errors=True)

    def _read(self, image_id: str) -> ImageRecord | None:
        path = self._path / image_id / _METADATA
        try:
            record = ImageRecord.from_dict(json.loads(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("cannot read %s: %s", path, error)
            return None
        return record if record.id == image_id else None


def _chunks(label: str, path: Path, offset: int) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ImageUnavailable(image=label, reason=error.strerror or str(error)) from error


def _copy(source: BinaryIO, target: Path, activity: Activity) -> tuple[int, str]:
    """Copy to a new file, made durable; returns the size in bytes and the SHA-256."""
    digest = hashlib.sha256()
    done, total = 0, os.fstat(source.fileno()).st_size
    with storage_errors("write", target):
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            while chunk := source.read(CHUNK):
                activity.check()
                write_sparse(descriptor, chunk)
                digest.update(chunk)
                done += len(chunk)
                activity.report(done, max(done, total))
            end_sparse(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return done, digest.hexdigest()


def _open_regular(path: Path) -> BinaryIO:
    """The file a user named: opened without waiting for a writer of a FIFO, and refused unless it is a plain file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(field="file", reason=f"cannot open {str(path)!r}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRequest(field="file", reason=f"{str(path)!r} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _check_name(name: str) -> None:
    if not name or len(name) > _LONGEST_NAME:
        raise InvalidRequest(field="name", reason=f"has to have 1 to {_LONGEST_NAME} characters, not {len(name)}")
    if not name.isprintable():
        raise InvalidRequest(field="name", reason="control characters are not allowed")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
