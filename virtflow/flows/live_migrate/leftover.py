"""Clean up what a live migration has left: past the pivot, forward only, tried again until it is done.

1. CleanSource          on the host that the guest has left, as a segment (clean.py)
2. SettleLeftover       nothing is held of that host any more
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.live_migrate import clean
from virtflow.persistence.operations import Operation
from virtflow.tasks.live_migrate import SettleLeftover
from virtflow.tasks.segments import OnHost


def build(_shape: Hashable) -> Flow:
    """The flow."""
    on_host = OnHost(clean.KIND.name, name="CleanSource", requires=("leftover", "operation"), provides=())
    return linear_flow.Flow("live-migrate-clean").add(on_host, SettleLeftover())


def inputs(operation: Operation) -> dict[str, Any]:
    """What is left, and where: as the migration has recorded it."""
    leftover = dict(operation.request)
    return operation_inputs(operation) | {"leftover": leftover, "host": leftover["host"]}


KIND = FlowKind("live-migrate-clean", 1, build, inputs=inputs, forward_only=True)
