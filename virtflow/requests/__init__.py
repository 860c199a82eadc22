"""What a user can ask for, checked field by field before anything else happens."""

from virtflow.requests.fields import (
    FILE_LIMIT,
    NAME,
    USER_DATA_LIMIT,
    check_address,
    check_name,
    check_text,
)
from virtflow.requests.files import read_input, read_request_file
from virtflow.requests.images import ImageCreateRequest
from virtflow.requests.live_migrate import LiveMigrateRequest
from virtflow.requests.models import (
    MARKER,
    REQUESTS,
    DeleteRequest,
    InjectedFile,
    NetworkRequest,
    Request,
    SpawnRequest,
)
from virtflow.requests.resize import ConfirmRequest, EvacuateRequest, MigrateRequest, ResizeRequest
from virtflow.requests.volumes import (
    VOLUME_REQUESTS,
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    VolumeAttachRequest,
    VolumeCreateRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)

_INSTANCE_REQUESTS = (ResizeRequest, MigrateRequest, ConfirmRequest, EvacuateRequest, ImageCreateRequest)
REQUESTS |= {cls.kind: cls for cls in _INSTANCE_REQUESTS}
REQUESTS[LiveMigrateRequest.kind] = LiveMigrateRequest
REQUESTS |= VOLUME_REQUESTS

__all__ = [
    "FILE_LIMIT",
    "MARKER",
    "NAME",
    "REQUESTS",
    "USER_DATA_LIMIT",
    "ConfirmRequest",
    "DeleteRequest",
    "EvacuateRequest",
    "ImageCreateRequest",
    "InjectedFile",
    "LiveMigrateRequest",
    "MigrateRequest",
    "NetworkRequest",
    "Request",
    "ResizeRequest",
    "SnapshotCreateRequest",
    "SnapshotDeleteRequest",
    "SpawnRequest",
    "VolumeAttachRequest",
    "VolumeCreateRequest",
    "VolumeDeleteRequest",
    "VolumeDetachRequest",
    "VolumeExtendRequest",
    "check_address",
    "check_name",
    "check_text",
    "read_input",
    "read_request_file",
]
