"""Resize, on the host where the instance is: its guest is down from here on.

1. RecordDomain                     its XML, and whether it runs: read before anything is changed
2. ShutDownGuest                    its revert starts it again, when all that follows is taken back
3. DisconnectMovedVolumes           where it has volumes, and goes to another host
4. DescribeOldVifs, UnplugVifs      where the instance stays on this host, it keeps them instead
5. PushDisks
6. UndefineSource                   where the instance stays on this host: it makes room for what it becomes
7. TrashDisks                       likewise; one rename, and the revert renames back

An instance that goes to another host is left as it is: shut down, but defined, with all of its files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.disks import TrashDisks
from virtflow.tasks.domain import RecordDomain
from virtflow.tasks.moved_volumes import DisconnectMovedVolumes
from virtflow.tasks.network import DescribeVifs, UnplugVifs
from virtflow.tasks.resize_guest import ShutDownGuest, UndefineSource
from virtflow.tasks.transfer import PushDisks


def same_host(inputs: Mapping[str, Any]) -> bool:
    """Whether the instance stays on its host."""
    return bool(inputs["source_host"] == inputs["destination"])


@dataclass(frozen=True)
class SourceShape:
    """What decides the graph."""

    stays: bool = False
    volumes: bool = False


def shape(inputs: Mapping[str, Any]) -> SourceShape:
    return SourceShape(same_host(inputs), bool(inputs["moved_volumes"]))


def build(wanted: Hashable) -> Flow:
    """The segment."""
    assert isinstance(wanted, SourceShape)
    return linear_flow.Flow("resize.source").add(
        RecordDomain(),
        ShutDownGuest(),
        *([DisconnectMovedVolumes()] if wanted.volumes and not wanted.stays else []),
        *([] if wanted.stays else [DescribeVifs(name="DescribeOldVifs"), UnplugVifs()]),
        PushDisks(),
        *([UndefineSource(), TrashDisks()] if wanted.stays else []),
    )


KIND = FlowKind(
    "resize.source",
    1,
    build,
    shape=shape,
    outputs=("pushed",),
    shapes=(SourceShape(), SourceShape(stays=True), SourceShape(volumes=True)),
)
