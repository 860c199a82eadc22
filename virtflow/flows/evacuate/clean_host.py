"""A host that was dead and is back, for each instance that was evacuated from it meanwhile.

1. RetireLeftDomain             nothing of it runs here
2. DisconnectLeftVolumes        its volumes are reached from elsewhere
3. DescribeVifs, UnplugVifs
4. TrashLeftDisks               kept as those of a deleted instance are
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.evacuate_host import RetireLeftDomain, TrashLeftDisks
from virtflow.tasks.evacuated_volumes import DisconnectLeftVolumes
from virtflow.tasks.network import DescribeVifs, UnplugVifs


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("evacuate.clean").add(
        RetireLeftDomain(), DisconnectLeftVolumes(), DescribeVifs(), UnplugVifs(), TrashLeftDisks()
    )


KIND = FlowKind("evacuate.clean", 1, build, forward_only=True)
