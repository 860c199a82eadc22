"""Confirm a resize: the instance stays what it has become. Until its trash is purged, that can be undone.

1. LockForConfirm       RESIZE_CONFIRMING, and a record of what undo will need
2. NotifyStart          its revert tells of a failure
3. Accept
4. RetireSource         what it was goes to the trash, as a segment on the host it has left (retire.py)
5. PurgeLeftCredentials nobody logs in from there any more
6. SettleClaims         that host holds nothing of it any more
7. SettleQuota          it is charged with what it is
8. DropOldReferences    the bases that it no longer stands on may age out
9. FinishConfirm        ACTIVE
10. NotifyEnd
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.resize import retire
from virtflow.flows.resize.preview import preview_confirm
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.moved_volumes import PurgeLeftCredentials, not_as_moved
from virtflow.tasks.notifications import NotifyEnd, NotifyStart
from virtflow.tasks.resize_confirm import (
    DropOldReferences,
    FinishConfirm,
    LockForConfirm,
    SettleClaims,
    SettleQuota,
)
from virtflow.tasks.segments import OnHost


def build(_shape: Hashable) -> Flow:
    """The parent flow."""
    return linear_flow.Flow("resize-confirm").add(
        LockForConfirm(),
        NotifyStart("instance.resize_confirm"),
        Accept(),
        OnHost(
            retire.KIND.name,
            name="RetireSource",
            host="source_host",
            requires=("instance_uuid", "instance", "operation", "source_host", "destination", "resize"),
            provides=(),
        ),
        PurgeLeftCredentials(),
        SettleClaims(),
        SettleQuota(),
        DropOldReferences(),
        FinishConfirm(),
        NotifyEnd("instance.resize_confirm"),
    )


def check_undo(operation: Operation, services: Mapping[str, Any], results: Mapping[str, Any]) -> str | None:
    """Undo needs what was put in the trash, and the volumes that are to go back."""
    recorded = results.get("LockForConfirm")
    here = recorded is None or recorded[2] == services["settings"].host
    if here and not services["directories"].trash_path(operation.id).exists():
        return "what it had kept was purged"
    if recorded is None or operation.state != "FINISHED":
        return None
    moved = dict(zip(LockForConfirm.default_provides, recorded, strict=True))["moved_volumes"]
    return not_as_moved(moved, recorded[0], services["volumes"], services["volume_attachments"])


KIND = FlowKind("resize-confirm", 1, build, check_undo=check_undo, preview=preview_confirm)
