"""Purge what the delete of a volume or snapshot has put in the trash: past the pivot, forward only.

1. PurgeOnBackend       the content, as a segment (purge_host.py)
2. PurgeEncryptionKey   with the content, and not before: until then it can be brought back
3. ForgetVolumeQuota    the released charges
4. MarkPurged           its room on the backend is free
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.volume import purge_host as host
from virtflow.persistence.operations import Operation
from virtflow.tasks.segments import OnHost
from virtflow.tasks.volume_encryption import PurgeEncryptionKey
from virtflow.tasks.volume_entries import MarkPurged
from virtflow.tasks.volume_quota import ForgetVolumeQuota


def build(_shape: Hashable) -> Flow:
    """The flow."""
    on_backend = OnHost(host.KIND.name, name="PurgeOnBackend", requires=("trashed", "operation"), provides=())
    return linear_flow.Flow("volume-purge").add(on_backend, PurgeEncryptionKey(), ForgetVolumeQuota(), MarkPurged())


def inputs(operation: Operation) -> dict[str, Any]:
    """What is purged: the trash of a delete operation, what it deleted, and where that was."""
    trashed = dict(operation.request)
    return operation_inputs(operation) | {"trashed": trashed, "host": trashed["host"]}


KIND = FlowKind("volume-purge", 1, build, inputs=inputs, forward_only=True)
