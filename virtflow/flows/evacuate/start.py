"""Evacuate, on the host whose the instance is by now.

1. StartDomain
2. WaitRunning
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.domain import StartDomain, WaitRunning


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("evacuate.start").add(StartDomain(after="owned"), WaitRunning())


KIND = FlowKind("evacuate.start", 1, build)
