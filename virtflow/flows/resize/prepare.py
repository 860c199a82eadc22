"""Resize, on the host where the instance will be, while its guest still runs.

1. ResolveHardware      what this host cannot give is refused before anything is made
2. MakeIncomingDir      where its disks arrive; its revert removes them, the last thing of all
3. FetchBases           what they stand on, in the old size and in the new one
4. StartReceiver        an rsync daemon for this operation alone; none on one and the same host
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.hardware import ResolveHardware
from virtflow.tasks.resize_disks import FetchBases, MakeIncomingDir
from virtflow.tasks.transfer import StartReceiver


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("resize.prepare").add(
        ResolveHardware(),
        MakeIncomingDir(),
        FetchBases(),
        # Last: from here on somebody listens.
        StartReceiver(),
    )


KIND = FlowKind("resize.prepare", 1, build, outputs=("hardware", "bases", "kernel", "ramdisk", "receiver"))
