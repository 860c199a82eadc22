"""Spawn, on the host. Disks, network and config drive do not wait for each other; the domain waits for all.

1. ResolveHardware      what this host cannot give is refused before anything is made
2. MakeInstanceDir
3. in parallel, as far as one does not need another:
   - the disks (disks.py)
   - AllocatePorts, ExpectVifEvents where cables are waited for, PlugVifs
   - BuildConfigDrive (needs the addresses), or InjectFiles into the root disk
4. BuildDomainXml, DefineDomain
5. StartDomain; where cables are waited for StartDomainPaused, WaitVifPlugged, ResumeDomain
6. WaitRunning

EnterNetworking, EnterBlockDeviceMapping and EnterSpawning mark on the instance how far it is. The order follows from
what each task requires; only what data does not say is linked below.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import graph_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.spawn.disks import DiskShape, disk_shape, disk_tasks, optional_results, root_disk_maker
from virtflow.tasks.base import Task
from virtflow.tasks.config_drive import BuildConfigDrive
from virtflow.tasks.disks import MakeInstanceDir
from virtflow.tasks.domain import BuildDomainXml, DefineDomain, StartDomain, WaitRunning
from virtflow.tasks.hardware import ResolveHardware
from virtflow.tasks.injection import InjectFiles
from virtflow.tasks.instance_states import BLOCK_DEVICE_MAPPING, NETWORKING, SCHEDULING, SPAWNING, SetTaskState
from virtflow.tasks.network import AllocatePorts, PlugVifs
from virtflow.tasks.vif_events import ExpectVifEvents, ResumeDomain, StartDomainPaused, WaitVifPlugged


@dataclass(frozen=True)
class HostShape:
    """What decides the graph."""

    disks: DiskShape
    vif_events: bool
    injection: bool


def shape(inputs: Mapping[str, Any]) -> HostShape:
    """From the specification alone: a resumed operation meets the graph it was started with."""
    spec = inputs["spec"]
    return HostShape(disk_shape(spec), spec["vif_events"] is not None, spec["injection"] is not None)


def build(wanted: Hashable) -> Flow:
    """The segment."""
    assert isinstance(wanted, HostShape)
    networking = SetTaskState(NETWORKING, previous=SCHEDULING)
    mapping = SetTaskState(BLOCK_DEVICE_MAPPING, previous=NETWORKING, after=("vifs",))
    made = ("plugged", "config_drive", *optional_results(wanted.disks))
    spawning = SetTaskState(SPAWNING, previous=BLOCK_DEVICE_MAPPING, after=made)
    hardware, directory, ports, plug = ResolveHardware(), MakeInstanceDir(), AllocatePorts(), PlugVifs()
    domain = BuildDomainXml(waits_for=(*optional_results(wanted.disks), *(["injected"] if wanted.injection else [])))
    flow = graph_flow.Flow("spawn.host").add(
        networking, hardware, directory, *disk_tasks(wanted.disks), ports, plug, BuildConfigDrive(), mapping, spawning
    )
    flow.add(domain, DefineDomain())
    if wanted.injection:
        flow.add(InjectFiles(root_disk_maker(wanted.disks)))
    # What the host cannot give is found out before the host is touched, and the state says what is going on.
    flow.link(hardware, networking)
    flow.link(networking, directory)
    flow.link(networking, ports)
    flow.link(mapping, spawning)
    flow.link(spawning, domain)
    return _start(flow, plug, cables=wanted.vif_events)


def _start(flow: graph_flow.Flow, plug: Task, *, cables: bool) -> Flow:
    if not cables:
        return flow.add(StartDomain(), WaitRunning())
    expect = ExpectVifEvents()
    flow.add(expect, StartDomainPaused(), WaitVifPlugged(), ResumeDomain(), WaitRunning(after="resumed"))
    flow.link(expect, plug)  # whoever watches the cables may be quicker than we
    return flow


_USUAL = HostShape(DiskShape(), vif_events=True, injection=False)
_EVERY_DISK = DiskShape(overlay=False, ephemerals=True, swap=True, kernel=True, ramdisk=True)
_SHAPES = (
    _USUAL,
    HostShape(DiskShape(), vif_events=False, injection=False),
    HostShape(_EVERY_DISK, vif_events=True, injection=True),
    HostShape(DiskShape(delta=True), vif_events=True, injection=True),
    HostShape(DiskShape(root=False, volumes=True), vif_events=True, injection=False),
)

KIND = FlowKind("spawn.host", 1, build, shape=shape, shapes=_SHAPES)
