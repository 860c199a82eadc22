"""What a host does first when it is back: of what was evacuated from it meanwhile, nothing may run here any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from virtflow.errors import Busy, VirtflowError
from virtflow.flows.evacuate import clean_host
from virtflow.persistence import operations as ops
from virtflow.persistence.models.base import now
from virtflow.persistence.operations import Operation
from virtflow.tasks.evacuate import left_behind

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)
_MANY = 100_000
_UNDER_WAY = (ops.QUEUED, ops.ACCEPTED, ops.RUNNING, ops.UNDOING)
_LOOK = 0.1
_PATIENCE = 30.0
"""Seconds for another process to let this host have its part of a cleanup that it is at."""


def clean_up_evacuated(runner: Runner) -> None:
    """Pull the plug of whatever is being evacuated, and clean up what was. Call it once the host counts as up.

    From then on no other evacuation begins (they are refused); those that are under way are seen here. A cleanup that
    fails stays visible, is logged, and is tried again by the workers: nothing of it runs here by then.
    """
    for left in _under_way(runner):
        runner.services["hypervisor"].destroy(left["instance_uuid"])
    for evacuation in runner.operations.unpurged("evacuate", now()):
        if left_behind(runner.operations.results(evacuation.id))["host"] == runner.config.host:
            with suppress(Busy):  # a reconciler was quicker
                runner.follow_up(evacuation)
    for cleanup in _cleanups(runner):
        LOG.info("cleaning up what was evacuated from this host: %s", cleanup.request["instance_uuid"])
        try:
            _finish(runner, cleanup)
        except VirtflowError as error:
            LOG.warning("cannot clean up after an evacuation (operation %s): %s", cleanup.id, error)


def _under_way(runner: Runner) -> Iterator[Mapping[str, Any]]:
    for state in _UNDER_WAY:
        for each in runner.operations.list(kind="evacuate", state=state, limit=_MANY):
            results = runner.operations.results(each.id)
            if isinstance(results.get("LockForEvacuation"), list | tuple):
                left = left_behind(results)
                if left["host"] == runner.config.host:
                    yield left


def _cleanups(runner: Runner) -> Iterator[Operation]:
    """Those of this host that are not through, oldest first."""
    found = [
        each for state in _UNDER_WAY for each in runner.operations.list(kind="evacuate-clean", state=state, limit=_MANY)
    ]
    found += runner.operations.list(kind="evacuate-clean", outcome=ops.FAILED_FORWARD, limit=_MANY)
    for each in sorted(found, key=lambda operation: operation.number):
        if each.request["host"] == runner.config.host:
            yield each


def _finish(runner: Runner, cleanup: Operation) -> None:
    """Run the cleanup here, or this host's part of it where another process runs the operation."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with suppress(Busy):
            runner.carry_on(cleanup.id)
            return
        for segment in runner.core.segments.waiting(runner.config.host):
            if segment.kind == clean_host.KIND.name and segment.operation == cleanup.id:
                with suppress(Busy):
                    runner.run_segment(segment.id)
                    return
        time.sleep(_LOOK)
    raise Busy(target=cleanup.target, operation=cleanup.id, operation_kind=cleanup.kind)
