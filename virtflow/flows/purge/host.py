"""Purge, on the host.

1. PurgeTrash           the files
2. DropBaseReferences   the bases may age out
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.disks import PurgeTrash
from virtflow.tasks.images import DropBaseReferences


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("purge.host").add(PurgeTrash(), DropBaseReferences())


KIND = FlowKind("purge.host", 1, build, forward_only=True)
