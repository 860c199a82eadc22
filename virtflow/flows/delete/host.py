"""Delete, on the host.

1. RecordDomain     its XML, and whether it runs: read before anything is changed
2. DescribeVifs     its taps, from its ports
3. StopDomain
4. UndefineDomain   before the disks: nobody must start a domain whose disks are gone
5. DisconnectVolumes, where it has volumes
6. UnplugVifs
7. TrashDisks       one rename; the files are still there
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.delete_volumes import DisconnectVolumes
from virtflow.tasks.disks import TrashDisks
from virtflow.tasks.domain import RecordDomain, StopDomain, UndefineDomain
from virtflow.tasks.network import DescribeVifs, UnplugVifs


def shape(inputs: Mapping[str, Any]) -> bool:
    """Whether the instance has volumes."""
    return bool(inputs.get("instance_volumes"))


def build(volumes: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("delete.host").add(
        RecordDomain(),
        DescribeVifs(),
        StopDomain(),
        UndefineDomain(),
        *([DisconnectVolumes()] if volumes else []),
        UnplugVifs(),
        TrashDisks(),
    )


KIND = FlowKind("delete.host", 1, build, shape=shape, shapes=(False, True))
