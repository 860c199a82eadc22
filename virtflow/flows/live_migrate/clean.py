"""Cleaning up after a live migration, on the host that the guest has left: forward only.

1. RemoveLeftDir    its disks, unless both hosts share them
2. UnplugLeft       taps and filters
3. DisconnectLeft   volumes
4. UndefineLeft     last: as long as there is a domain, nobody comes back
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_source import RemoveLeftDir, UndefineLeft, UnplugLeft
from virtflow.tasks.live_migrate_volumes import DisconnectLeft


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.clean").add(RemoveLeftDir(), UnplugLeft(), DisconnectLeft(), UndefineLeft())


KIND = FlowKind("live-migrate.clean", 1, build, forward_only=True)
