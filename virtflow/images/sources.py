"""What every image source can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from virtflow.activity import Activity
from virtflow.errors import NotFound
from virtflow.images import names
from virtflow.images.records import ImageRecord, ImageRecords


class ImageSource(Protocol):
    """Where images come from: the local catalog, Glance."""

    name: str

    def get(self, name_or_id: str) -> ImageRecord:
        """Raises NotFound (kind image), InvalidRequest (field image) for an ambiguous name, ImageUnavailable."""

    def list(self) -> ImageRecords:
        """Every image that can be fetched. Raises ImageUnavailable."""

    def find_by_sha1(self, sha1: str) -> ImageRecord:
        """The image whose id has this SHA-1 (hex); what an image says of itself is no proof.

        Raises NotFound, ImageUnavailable.
        """

    def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
        """The image's bytes from ``offset`` (bytes) to its end, in chunks. Raises ImageUnavailable."""


class ImageTarget(ImageSource, Protocol):
    """A source that also takes images. A ``draft`` is what an image is to be, with an id that its maker has chosen.

    Every call may be repeated: what has that id was made by whoever chose it.
    """

    def reserve(self, draft: ImageRecord) -> None:
        """Make sure that the image can be published. Raises AlreadyExists, ImageNotPublished."""

    def publish(self, draft: ImageRecord, file: Path, activity: Activity) -> ImageRecord:
        """Let the image have the content of ``file``, verified: until then nobody can fetch it.

        Raises AlreadyExists, ImageRefused, ImageNotPublished, HostStorageError.
        """

    def discard(self, image_id: str) -> None:
        """Remove the image, in whatever state it is; absent is fine. Raises ImageNotPublished, HostStorageError."""


def find_by_sha1(records: Iterable[ImageRecord], sha1: str) -> ImageRecord:
    """The one whose id has this SHA-1 (hex). Raises NotFound."""
    found = next((record for record in records if names.base_name(record.id) == sha1), None)
    if found is None:
        raise NotFound(kind="image", name=sha1)
    return found
