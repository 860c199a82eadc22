"""Take a snapshot, on the host of its volume's backend:

1. TakeSnapshot

and before and after that on the host of the instance that has the volume, where one has:

1. RecordGuestState
2. PauseGuest

1. LetGuestRun
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.volume_backend import TakeSnapshot
from virtflow.tasks.volume_halt import LetGuestRun, PauseGuest, RecordGuestState


def build(_shape: Hashable) -> Flow:
    """The segment of the backend."""
    return linear_flow.Flow("volume-snapshot-create.host").add(TakeSnapshot())


def build_pause(_shape: Hashable) -> Flow:
    """The first segment of the instance's host."""
    return linear_flow.Flow("volume-snapshot-create.pause").add(RecordGuestState(served=False), PauseGuest())


def build_run(_shape: Hashable) -> Flow:
    """The second one."""
    return linear_flow.Flow("volume-snapshot-create.run").add(LetGuestRun())


KIND = FlowKind("volume-snapshot-create.host", 1, build)
PAUSE = FlowKind("volume-snapshot-create.pause", 1, build_pause, outputs=("paused",))
RUN = FlowKind("volume-snapshot-create.run", 1, build_run)
