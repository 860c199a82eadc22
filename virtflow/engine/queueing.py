"""Requests that come twice, and requests that wait for their target."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from virtflow.engine.outcome import raise_outcome
from virtflow.errors import Busy, Conflict
from virtflow.persistence.operations import FINISHED, Operation

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

_LOOK = 0.2
"""Seconds between two looks at whether the target is free, or the other one has finished."""


def same_request(existing: Operation, kind: str, request: Mapping[str, Any]) -> Operation:
    """The operation that has the key already. Conflict when it was made of another request."""
    if existing.kind != kind or dict(existing.request) != dict(request):
        reason = f"operation {existing.number} ({existing.kind} {existing.target}) has it, and is another request"
        raise Conflict(action="use", kind="idempotency key", name=existing.idempotency_key, reason=reason)
    return existing


def finish_in_turn(runner: Runner, operation: Operation) -> Operation:
    """Run an operation when its turn has come, or wait for whoever runs it; how it ended."""
    while True:
        operation = runner.operations.get(operation.id, tasks=False)
        if operation.state == FINISHED:
            return raise_outcome(runner.operations.get(operation.id), None)
        try:
            return runner.resume(operation.id)
        except Busy:
            time.sleep(_LOOK)
