"""Purge a deleted volume or snapshot, on the host of its backend.

1. PurgeVolumeTrash
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.volume_backend import PurgeVolumeTrash


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("volume-purge.host").add(PurgeVolumeTrash())


KIND = FlowKind("volume-purge.host", 1, build, forward_only=True)
