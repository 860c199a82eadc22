"""Resize, on the host where the instance will be: from the disks that have arrived to a guest that runs.

1. StopReceiver
2. FitDisks             onto this host's bases, and to the new size
3. RecreateSwap         where there is swap
4. PublishIncomingDir   their directory is the instance's from here on
5. ConnectMovedVolumes  where it has volumes; where it stays on its host KeepVolumes
6. DescribeVifs, PlugVifs; where the instance stays on its host KeepVifs
7. BuildDomainXml, DefineResized, StartDomain, WaitRunning
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.resize.source import same_host
from virtflow.tasks.domain import BuildDomainXml, StartDomain, WaitRunning
from virtflow.tasks.moved_volumes import ConnectMovedVolumes, KeepVolumes
from virtflow.tasks.network import DescribeVifs, PlugVifs
from virtflow.tasks.resize_disks import FitDisks, PublishIncomingDir, RecreateSwap
from virtflow.tasks.resize_guest import DefineResized, KeepVifs
from virtflow.tasks.transfer import StopReceiver


@dataclass(frozen=True)
class DestinationShape:
    """What decides the graph."""

    stays: bool = False
    swap: bool = False
    volumes: bool = False


def shape(inputs: Mapping[str, Any]) -> DestinationShape:
    return DestinationShape(same_host(inputs), inputs["spec"]["swap_mib"] > 0, bool(inputs["moved_volumes"]))


def build(wanted: Hashable) -> Flow:
    """The segment."""
    assert isinstance(wanted, DestinationShape)
    swap = ("swap_disk",) if wanted.swap else ()
    volumes = ("volume_disks",) if wanted.volumes else ()
    reach = KeepVolumes() if wanted.stays else ConnectMovedVolumes()
    return linear_flow.Flow("resize.destination").add(
        StopReceiver(),
        FitDisks(),
        *([RecreateSwap()] if wanted.swap else []),
        PublishIncomingDir(after=("root_disk", *swap)),
        *([reach] if wanted.volumes else []),
        DescribeVifs(),
        KeepVifs() if wanted.stays else PlugVifs(),
        BuildDomainXml(waits_for=("root_disk", "ephemeral_disks", "kernel", "ramdisk", *swap, *volumes)),
        DefineResized(),
        StartDomain(),
        WaitRunning(),
    )


KIND = FlowKind(
    "resize.destination",
    1,
    build,
    shape=shape,
    shapes=(
        DestinationShape(),
        DestinationShape(swap=True, volumes=True),
        DestinationShape(stays=True),
        DestinationShape(stays=True, volumes=True),
    ),
)
