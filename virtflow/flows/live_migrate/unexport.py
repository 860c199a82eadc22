"""Live migration, on the host of a volume's backend: it is served no more, where the guest has come to that very host.

1. UnexportLeft     forward only: the guest has arrived
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_volumes import UnexportLeft


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.unexport").add(UnexportLeft())


KIND = FlowKind("live-migrate.unexport", 1, build, forward_only=True)
