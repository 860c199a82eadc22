"""Make an image of an instance's root disk, on its host.

1. CopyRootDisk         into one flat file beside the disk; a running guest goes on
2. PublishImage         into the catalog, or up to Glance
3. RemoveCopy
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.image_snapshots import CopyRootDisk, PublishImage, RemoveCopy


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("image-create.host").add(CopyRootDisk(), PublishImage(), RemoveCopy())


KIND = FlowKind("image-create.host", 1, build, outputs=("image",))
