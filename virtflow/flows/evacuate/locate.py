"""Evacuate, on the host where the instance is to be: are its disks here, because hosts share them?

1. LocateDisks
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.evacuate_host import LocateDisks


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("evacuate.locate").add(LocateDisks())


KIND = FlowKind("evacuate.locate", 1, build, outputs=("kept",))
