"""Purge what a delete has put in the trash: past the pivot, forward only, tried again until it is done.

1. PurgeOnHost          the files, and that the bases are used; as a segment (host.py)
2. ForgetQuota          the released charges
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.purge import host
from virtflow.persistence.operations import Operation
from virtflow.tasks.quota import ForgetQuota
from virtflow.tasks.segments import OnHost


def build(_shape: Hashable) -> Flow:
    """The flow."""
    on_host = OnHost(host.KIND.name, name="PurgeOnHost", requires=("trashed", "operation"), provides=())
    return linear_flow.Flow("purge").add(on_host, ForgetQuota())


def inputs(operation: Operation) -> dict[str, Any]:
    """What is purged: the trash of a delete operation, the instance that it deleted, and where that was."""
    trashed = dict(operation.request)
    return operation_inputs(operation) | {"trashed": trashed, "host": trashed["host"]}


KIND = FlowKind("purge", 1, build, inputs=inputs, forward_only=True)
