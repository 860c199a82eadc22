"""Extend a volume, on the host of its backend:

1. ExtendOnBackend

and before and after that on the host of the instance that has it, where one has:

1. RecordGuestState
2. PauseGuest

1. ExtendInGuest
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.volume_extend import ExtendInGuest, ExtendOnBackend
from virtflow.tasks.volume_halt import PauseGuest, RecordGuestState


def build(_shape: Hashable) -> Flow:
    """The segment of the backend."""
    return linear_flow.Flow("volume-extend.host").add(ExtendOnBackend())


def build_pause(_shape: Hashable) -> Flow:
    """The first segment of the instance's host."""
    return linear_flow.Flow("volume-extend.pause").add(RecordGuestState(served=True), PauseGuest())


def build_guest(_shape: Hashable) -> Flow:
    """The second one."""
    return linear_flow.Flow("volume-extend.guest").add(ExtendInGuest())


BACKEND = FlowKind("volume-extend.host", 1, build)
PAUSE = FlowKind("volume-extend.pause", 1, build_pause, outputs=("paused",))
GUEST = FlowKind("volume-extend.guest", 1, build_guest)
