"""Evacuate, on the host where the instance will be: everything that its guest needs, but for its start.

1. ResolveHardware          what this host cannot give is refused before anything is made
2. where its disks are here: TakeOverDir, DescribeKeptDisks; else they are made from its image, as a spawn makes them:
   MakeInstanceDir, the disks (spawn/disks.py), BuildConfigDrive
3. ConnectMovedVolumes      where it has volumes
4. DescribeVifs, PlugVifs   the addresses that it had
5. BuildDomainXml, DefineRebuilt

The order follows from what each task requires.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import graph_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.spawn.disks import DiskShape, disk_shape, disk_tasks, optional_results
from virtflow.tasks.base import Task
from virtflow.tasks.config_drive import BuildConfigDrive
from virtflow.tasks.disks import MakeInstanceDir
from virtflow.tasks.domain import BuildDomainXml, DefineDomain
from virtflow.tasks.evacuate_host import DescribeKeptDisks, TakeOverDir
from virtflow.tasks.hardware import ResolveHardware
from virtflow.tasks.moved_volumes import ConnectMovedVolumes
from virtflow.tasks.network import DescribeVifs, PlugVifs
from virtflow.tasks.resize_guest import DefineResized

_NEW = {"moved_volumes": "new_volumes"}
_KEPT = ("ephemeral_disks", "swap_disk", "kernel", "ramdisk")


@dataclass(frozen=True)
class RebuildShape:
    """What decides the graph: ``disks`` is None where they are here. ``volumes`` are no affair of theirs."""

    disks: DiskShape | None
    volumes: bool = False


def shape(inputs: Mapping[str, Any]) -> RebuildShape:
    spec = inputs["spec"]
    disks = None if inputs["kept"] else replace(disk_shape(spec), volumes=False)
    return RebuildShape(disks, bool(spec.get("volumes")))


def build(wanted: Hashable) -> Flow:
    """The segment."""
    assert isinstance(wanted, RebuildShape)
    hardware, vifs = ResolveHardware(), DescribeVifs()
    flow = graph_flow.Flow("evacuate.rebuild").add(hardware, vifs, PlugVifs())
    first: Task
    connect = [ConnectMovedVolumes(rebind=_NEW, revert_rebind=_NEW)] if wanted.volumes else []
    reached = ("volume_disks",) if wanted.volumes else ()
    if wanted.disks is None:
        first = TakeOverDir()
        flow.add(first, DescribeKeptDisks(), *connect, BuildDomainXml(waits_for=(*_KEPT, *reached)), DefineResized())
    else:
        first = MakeInstanceDir()
        flow.add(first, *disk_tasks(wanted.disks), BuildConfigDrive())
        flow.add(*connect, BuildDomainXml(waits_for=(*optional_results(wanted.disks), *reached)), DefineDomain())
    # What the host cannot give is found out before the host is touched.
    flow.link(hardware, first)
    flow.link(hardware, vifs)
    for task in connect:
        flow.link(first, task)
    return flow


_EVERY_DISK = DiskShape(overlay=False, ephemerals=True, swap=True, kernel=True, ramdisk=True)

KIND = FlowKind(
    "evacuate.rebuild",
    1,
    build,
    shape=shape,
    outputs=("defined",),
    shapes=(
        RebuildShape(DiskShape()),
        RebuildShape(None),
        RebuildShape(_EVERY_DISK),
        RebuildShape(DiskShape(delta=True)),
        RebuildShape(DiskShape(root=False), volumes=True),
    ),
)
