"""Live migration, on the host where the guest runs: what libvirt will not take along.

1. PullBlankBases       swap and ephemeral disks stand alone from here on
2. SendDrive            the config drive
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_source import PullBlankBases, SendDrive


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.send").add(PullBlankBases(), SendDrive())


KIND = FlowKind("live-migrate.send", 1, build, outputs=("pulled", "sent"))
