"""Make an image of an instance's root disk, while its guest goes on.

1. DescribeSnapshot     whose disk, and what the image will be; its id follows from the operation
2. HoldInstance         nothing else is done with the instance meanwhile
3. NotifySnapshotStart  its revert tells of a failure
4. ReserveImage         the catalog refuses a name that is taken; Glance gets an image without data
5. Accept               a submitted operation is put down here: it was accepted
6. SnapshotOnHost       copy the disk and publish the copy, as a segment (create_host.py)
7. LetInstanceGo
8. NotifySnapshotEnd
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.image import create_host as host
from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.image_snapshots import DescribeSnapshot, ReserveImage
from virtflow.tasks.segments import OnHost
from virtflow.tasks.snapshot_notifications import NotifySnapshotEnd, NotifySnapshotStart
from virtflow.tasks.volume_attach import SNAPSHOTTING, HoldInstance, LetInstanceGo


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("image-create").add(
        DescribeSnapshot(),
        HoldInstance(SNAPSHOTTING, "take a snapshot of"),
        NotifySnapshotStart(),
        ReserveImage(),
        Accept(),
        OnHost(
            host.KIND.name,
            name="SnapshotOnHost",
            requires=("instance_uuid", "request", "draft", "operation"),
            provides=host.KIND.outputs,
            # A copy that is given up with its host harms nobody: the guest is not touched.
            guards=(),
        ),
        LetInstanceGo(SNAPSHOTTING),
        NotifySnapshotEnd(),
    )


def inputs(operation: Operation) -> dict[str, Any]:
    """The image's id follows from the operation: every execution makes the same image."""
    return operation_inputs(operation) | {"image_id": image_id(operation.id)}


def image_id(operation: str) -> str:
    return str(uuid.uuid5(uuid.UUID(operation), "image"))


def check_undo(operation: Operation, services: Mapping[str, Any], _results: Mapping[str, Any]) -> str | None:
    """An image that is gone is not taken back. Instances that were made of it keep running without it."""
    from virtflow.errors import NotFound

    try:
        services["image_source"].get(image_id(operation.id))
    except NotFound:
        return "its image is gone"
    return None


KIND = FlowKind("image-create", 1, build, inputs=inputs, check_undo=check_undo)
