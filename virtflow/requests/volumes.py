"""What can be asked of volumes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from virtflow.errors import InvalidRequest
from virtflow.requests.fields import HostName, MetaKey, Name, Reference, Text
from virtflow.requests.models import Request

SizeGib = Annotated[int, Field(ge=1, le=65536)]


class VolumeCreateRequest(Request):
    """Make a volume: blank, or of an image, a snapshot, or another volume.

    Of a snapshot or a volume it is as large as that unless ``size_gib`` says more, and encrypted if that is.
    ``for_host`` is the host of the instance that is to get it: a backend there is preferred, and one that cannot be
    reached from there is not taken.
    """

    kind: ClassVar[str] = "volume-create"

    name: Name
    size_gib: SizeGib | None = None
    image: Reference | None = None
    snapshot: Name | None = None
    source_volume: Name | None = None
    type: Name | None = None
    encrypted: bool = False
    availability_zone: Name | None = None
    for_host: HostName | None = None
    meta: Annotated[dict[MetaKey, Text], Field(max_length=128)] = {}

    @model_validator(mode="after")
    def _one_source(self) -> VolumeCreateRequest:
        sources = [name for name in ("image", "snapshot", "source_volume") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise InvalidRequest(field=sources[1], reason=f"cannot be given together with {sources[0]}")
        if self.size_gib is None and sources in ([], ["image"]):
            raise InvalidRequest(field="size_gib", reason="is missing")
        return self

    def target(self) -> str:
        return f"volume:{self.name}"


class VolumeDeleteRequest(Request):
    """Remove a volume. It goes to the trash and can be brought back by undo until it is purged."""

    kind: ClassVar[str] = "volume-delete"

    name: Name

    def target(self) -> str:
        return f"volume:{self.name}"


class VolumeAttachRequest(Request):
    """Give a volume to an instance, running or not."""

    kind: ClassVar[str] = "volume-attach"

    name: Name
    instance: Name

    def target(self) -> str:
        return f"volume:{self.name}"


class VolumeDetachRequest(Request):
    """Take a volume from its instance."""

    kind: ClassVar[str] = "volume-detach"

    name: Name

    def target(self) -> str:
        return f"volume:{self.name}"


class VolumeExtendRequest(Request):
    """Let a volume grow to ``size_gib``; a running guest sees it."""

    kind: ClassVar[str] = "volume-extend"

    name: Name
    size_gib: SizeGib

    def target(self) -> str:
        return f"volume:{self.name}"


class SnapshotCreateRequest(Request):
    """Keep what a volume has now. Nobody may be writing to it meanwhile."""

    kind: ClassVar[str] = "volume-snapshot-create"

    name: Name
    volume: Name

    def target(self) -> str:
        return f"volume-snapshot:{self.name}"


class SnapshotDeleteRequest(Request):
    """Remove a snapshot. It goes to the trash and can be brought back by undo until it is purged."""

    kind: ClassVar[str] = "volume-snapshot-delete"

    name: Name

    def target(self) -> str:
        return f"volume-snapshot:{self.name}"


VOLUME_REQUESTS: dict[str, type[Request]] = {
    cls.kind: cls
    for cls in (
        *(VolumeCreateRequest, VolumeDeleteRequest, VolumeAttachRequest, VolumeDetachRequest, VolumeExtendRequest),
        *(SnapshotCreateRequest, SnapshotDeleteRequest),
    )
}
