"""Delete a volume or a snapshot, on the host of its backend.

1. TrashVolume      one rename; the content is still there
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.persistence.operations import Operation
from virtflow.tasks.volume_backend import TrashVolume


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("volume-delete.host").add(TrashVolume())


def purged(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """Why what the operation has put into the trash cannot come back, as far as this host can know."""
    backend = (results.get("DescribeTrash") or {}).get("backend")
    if backend not in services["volume_drivers"].names():
        return None
    return None if services["volume_drivers"].get(backend).in_trash(operation.id) else "its content was purged"


KIND = FlowKind("volume-delete.host", 1, build)
