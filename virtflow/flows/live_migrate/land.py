"""Live migration, on the host where the guest will be: everything is ready for it.

1. StopReceiver
2. CreateTargets                    the disks, empty or over the same bases
3. DescribeVifs, PlugArriving       taps and filters
4. ConnectArriving                  volumes, which nobody else lets go of
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_destination import CreateTargets, PlugArriving
from virtflow.tasks.live_migrate_volumes import ConnectArriving
from virtflow.tasks.network import DescribeVifs
from virtflow.tasks.transfer import StopReceiver


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.land").add(
        StopReceiver(), CreateTargets(), DescribeVifs(), PlugArriving(), ConnectArriving()
    )


KIND = FlowKind("live-migrate.land", 1, build, outputs=("targets", "volume_disks"))
