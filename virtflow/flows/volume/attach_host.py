"""Attach a volume, on the host of the instance.

1. ChooseDevice         saved before anybody plugs it in: whatever happens now, it can be taken away again
2. ConnectVolume
3. AttachLive           the guest first
4. AttachPersistent     what the guest has taken is there at its next start, too
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.volume_attach import AttachLive, AttachPersistent, ChooseDevice
from virtflow.tasks.volume_connections import ConnectVolume


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("volume-attach.host").add(ChooseDevice(), ConnectVolume(), AttachLive(), AttachPersistent())


KIND = FlowKind("volume-attach.host", 1, build)
