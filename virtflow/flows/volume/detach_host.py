"""Detach a volume, on the host of the instance.

1. RecordDevice         what undoing will need
2. DetachLive           the guest first: one that refuses keeps its volume, and nothing has changed
3. DetachPersistent
4. DisconnectVolume     nobody uses it any more
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.volume_attach import DetachLive, DetachPersistent, RecordDevice
from virtflow.tasks.volume_connections import DisconnectVolume


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("volume-detach.host").add(
        RecordDevice(), DetachLive(), DetachPersistent(), DisconnectVolume()
    )


KIND = FlowKind("volume-detach.host", 1, build)
