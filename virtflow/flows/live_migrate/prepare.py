"""Live migration, on the host where the guest will be: can it come, and what has to be there before anything is sent?

1. CheckDestination     what this host cannot take is refused before anything is made
2. MakeLandingDir       its revert removes it, the last thing of all, and never under a guest that runs
3. FetchBases           what the disks stand on
4. ReceiveDrive         an rsync daemon for the config drive, where there is one
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_destination import CheckDestination, MakeLandingDir, ReceiveDrive
from virtflow.tasks.resize_disks import FetchBases


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.prepare").add(
        CheckDestination(),
        MakeLandingDir(),
        FetchBases(),
        # Last: from here on somebody listens.
        ReceiveDrive(),
    )


KIND = FlowKind("live-migrate.prepare", 1, build, outputs=("landing", "bases", "kernel", "ramdisk", "receiver"))
