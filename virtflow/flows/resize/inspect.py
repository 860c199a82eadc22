"""Resize, on the host where the instance is, before anything is done: what are its disks?

1. DescribeDisks
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.resize_disks import DescribeDisks


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("resize.inspect").add(DescribeDisks())


KIND = FlowKind("resize.inspect", 1, build, outputs=("disks",))
