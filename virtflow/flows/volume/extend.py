"""Extend a volume, attached or not.

1. HoldVolume           EXTENDING
2. FindWriter           which instance has it, if one has
3. CheckExtension       volumes only grow
4. HoldWriter           nobody else halts that instance, or lets it run, meanwhile
5. NotifyVolumeStart    its revert tells of a failure
6. ChargeExtension      the new size, before anything grows
7. ClaimExtension       more of the backend; the row says the new size
8. Accept
9. PauseOnHost          the guest, where it reaches the volume through a server; on its host (extend_host.py)
10. ExtendVolume        as a segment on the backend's host
11. ExtendOnHost        last, the guest: until then everything can be taken back; on its host
12. LetVolumeGo         AVAILABLE or IN_USE, as it was
13. LetWriterGo
14. NotifyVolumeEnd
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.volume import extend_host as host
from virtflow.persistence import volume_rows as states
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_extend import CheckExtension, ClaimExtension
from virtflow.tasks.volume_halt import FindWriter, HoldWriter, LetWriterGo
from virtflow.tasks.volume_holds import HoldVolume, LetVolumeGo
from virtflow.tasks.volume_notifications import NotifyVolumeEnd, NotifyVolumeStart
from virtflow.tasks.volume_quota import ChargeExtension


def build(_shape: Hashable) -> Flow:
    """The parent flow. The books come first, because what a guest has seen can hardly be taken back."""
    return linear_flow.Flow("volume-extend").add(
        HoldVolume(states.EXTENDING, (states.AVAILABLE, states.IN_USE)),
        FindWriter(),
        CheckExtension(),
        HoldWriter(),
        NotifyVolumeStart("volume.extend"),
        ChargeExtension(),
        ClaimExtension(),
        Accept(),
        OnHost(
            host.PAUSE.name,
            name="PauseOnHost",
            host="instance_host",
            requires=("attachment", "operation"),
            provides=host.PAUSE.outputs,
        ),
        OnHost(
            host.BACKEND.name,
            name="ExtendVolume",
            requires=("volume", "request", "attachment", "operation"),
            provides=(),
        ),
        OnHost(
            host.GUEST.name,
            name="ExtendOnHost",
            host="instance_host",
            requires=("volume", "request", "attachment", "paused", "operation"),
            provides=(),
        ),
        LetVolumeGo(states.EXTENDING),
        LetWriterGo(),
        NotifyVolumeEnd("volume.extend"),
    )


def check_undo(_operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """What a guest elsewhere has seen cannot be looked at, and so not be taken back; what is gone cannot shrink."""
    if "FindWriter" not in results:
        return None
    volume, _recorded, home = results["HoldVolume"]
    if not services["volumes"].ever(id=volume):
        return "its volume is gone"
    attachment, host = results["FindWriter"]
    now = services["volume_attachments"].of_volume(volume)
    if (attachment is not None and host != home) or (now is not None and now.host != home):
        return "a guest on another host than the volume's may use the new size"
    return None


KIND = FlowKind("volume-extend", 1, build, check_undo=check_undo)
