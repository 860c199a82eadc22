"""Let another host, or this one, reach a volume; and the opposite. On the host of the volume's backend.

1. ExportVolume
2. SaveConnection       before anybody connects

and when the instance has let go of it:

1. ForgetConnection     from here nobody exports it again
2. UnexportVolume

and when the instance moves to a host that reaches it in another way:

1. ExportToDestination  nothing is saved before the instance is there

and when it is evacuated:

1. ExportAnew           whoever was connected is cut off
2. SaveConnection
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.evacuated_volumes import ExportAnew
from virtflow.tasks.moved_volumes import ExportToDestination
from virtflow.tasks.segments import OnEachHost
from virtflow.tasks.volume_exports import ExportVolume, ForgetConnection, SaveConnection, UnexportVolume


def build(_shape: Hashable) -> Flow:
    """The segment that exports."""
    return linear_flow.Flow("volume-export.host").add(ExportVolume(), SaveConnection())


def build_unexport(_shape: Hashable) -> Flow:
    """The segment that takes it back."""
    return linear_flow.Flow("volume-unexport.host").add(ForgetConnection(), UnexportVolume())


def build_moved(_shape: Hashable) -> Flow:
    """The segment that exports to the host that the instance moves to."""
    return linear_flow.Flow("volume-export.moved").add(ExportToDestination())


def build_anew(_shape: Hashable) -> Flow:
    """The segment that exports to the host that the instance is evacuated to, and to no other."""
    return linear_flow.Flow("volume-export.anew").add(ExportAnew(), SaveConnection())


def export_volumes() -> OnEachHost:
    """The task of a parent flow that has several exported, each on its backend's host."""
    return OnEachHost(EXPORT.name, name="ExportVolumes", items="exports", provides="connections")


def unexport_volumes() -> OnEachHost:
    """The opposite."""
    return OnEachHost(UNEXPORT.name, name="UnexportVolumes", items="instance_volumes")


def export_moved_volumes() -> OnEachHost:
    """The task of a parent flow that has those exported which the instance's next host reaches in another way."""
    return OnEachHost(EXPORT_MOVED.name, name="ExportMovedVolumes", items="exports", provides="exported")


def export_volumes_anew() -> OnEachHost:
    """The same where nobody else may reach them any more."""
    return OnEachHost(EXPORT_ANEW.name, name="ExportVolumesAnew", items="exports", provides="connections")


EXPORT = FlowKind("volume-export.host", 1, build, outputs=("connection",))
UNEXPORT = FlowKind("volume-unexport.host", 1, build_unexport)
EXPORT_MOVED = FlowKind("volume-export.moved", 1, build_moved, outputs=("connection",))
EXPORT_ANEW = FlowKind("volume-export.anew", 1, build_anew, outputs=("connection",))
