"""What a host still has of an instance that was evacuated from it. Past the pivot: forward only, until it is done.

1. CleanOnSource        as a segment, when the host is back: the first thing that its worker does (clean_host.py)
2. DropLeftReferences   the bases that it used there may age out
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.evacuate import clean_host
from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.persistence.operations import Operation
from virtflow.tasks.evacuate import DropLeftReferences
from virtflow.tasks.segments import OnHost


def build(_shape: Hashable) -> Flow:
    """The flow."""
    on_source = OnHost(clean_host.KIND.name, name="CleanOnSource", requires=("left", "ports", "operation"), provides=())
    return linear_flow.Flow("evacuate-clean").add(on_source, DropLeftReferences())


def inputs(operation: Operation) -> dict[str, Any]:
    """What was left behind, and where."""
    left = dict(operation.request)
    return operation_inputs(operation) | {"left": left, "host": left["host"], "ports": left["ports"]}


KIND = FlowKind("evacuate-clean", 1, build, inputs=inputs, forward_only=True)
