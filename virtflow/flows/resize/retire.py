"""Confirming a resize, on the host that the instance has left.

1. RecordDomain     its XML, and that it does not run
2. RetireDomain     undefined before its disks go
3. TrashDisks       one rename; the files are still there until they are purged

Where the instance has stayed on its host, all that is left of what it was is in the trash already:

1. RetireTrash      in this operation's trash from now on
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.flows.resize.source import same_host
from virtflow.tasks.disks import TrashDisks
from virtflow.tasks.domain import RecordDomain
from virtflow.tasks.resize_confirm import RetireTrash
from virtflow.tasks.resize_guest import RetireDomain


def build(stays: Hashable) -> Flow:
    """The segment."""
    tasks = [RetireTrash()] if stays else [RecordDomain(), RetireDomain(), TrashDisks()]
    return linear_flow.Flow("resize.retire").add(*tasks)


KIND = FlowKind("resize.retire", 1, build, shape=same_host, shapes=(False, True))
