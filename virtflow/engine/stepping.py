"""Running an operation for real, task by task: somebody is asked before each task, and when one has failed.

An operation that is left on the way is HELD: it keeps its target and all that it has made, and no worker goes on with
it. ``resume`` and ``cancel`` do, like with any other; so does another ``step``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from virtflow.errors import Conflict
from virtflow.persistence import operations as ops

if TYPE_CHECKING:
    from virtflow.engine.forking import KeptResults
    from virtflow.engine.runner import Runner
    from virtflow.persistence.operations import Operation


class Verb(Enum):
    GO = "go"
    """Before a task: run it, or revert it where that is due."""
    SKIP = "skip"
    """Do not run the task: its result is given."""
    RETRY = "retry"
    """After a failure: once more."""
    REVERT = "revert"
    """After a failure: what the flow does about it, which is to take everything back or to try another way."""
    LEAVE = "leave"
    """Leave everything as it is, HELD."""


@dataclass(frozen=True)
class Decision:
    verb: Verb
    result: Any = None
    """Of a task that is skipped: plain JSON data, as the task would have returned it."""


@dataclass(frozen=True)
class Stop:
    """Where the engine asks. ``due`` are all tasks that could start now, ``task`` the first of them.

    ``arguments`` are those that are plain data; ``failure`` is what the task failed with, when it has.
    """

    operation: str
    flow: str
    task: str
    due: tuple[str, ...]
    reverting: bool = False
    failure: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


class Gate(Protocol):
    """Whoever decides. Called from the engine's threads, one call at a time."""

    def before(self, stop: Stop) -> Decision:
        """GO, SKIP or LEAVE. Of a revert only GO: what has begun to be taken back is taken back."""

    def failed(self, stop: Stop) -> Decision:
        """RETRY, SKIP, REVERT or LEAVE."""


class KeepOnFailure:
    """Runs without asking; a failure leaves everything as it is, to be looked at.

    ``breakpoints`` are names of tasks before which the operation is left, too.
    """

    def __init__(self, breakpoints: Collection[str] = ()) -> None:
        self._breakpoints = frozenset(breakpoints)

    def before(self, stop: Stop) -> Decision:
        return Decision(Verb.LEAVE if stop.task in self._breakpoints else Verb.GO)

    def failed(self, stop: Stop) -> Decision:  # noqa: ARG002 - whatever it is
        return Decision(Verb.LEAVE)


def step(runner: Runner, reference: str, gate: Gate) -> Operation:
    """Go on with an operation that is not finished, asking the gate; it is FINISHED afterwards, or HELD.

    Raises Conflict for one that is finished, Busy for one that is running. How it ended is no error here.
    """
    operation = runner.operations.get(reference, tasks=False)
    if operation.state == ops.FINISHED:
        raise Conflict(action="step", kind="operation", name=operation.number, reason=f"it is {operation.outcome}")
    return go_on(runner, operation, gate)


def go_on(runner: Runner, operation: Operation, gate: Gate | None, kept: KeptResults | None = None) -> Operation:
    """Claim the operation and drive it, with or without a gate; ``kept`` are results that need not be made again."""
    from virtflow.engine.core import left_unfinished
    from virtflow.engine.watcher import driving

    core = runner.core
    undoing = operation.state == ops.UNDOING
    with driving(operation.id, operation):
        state = ops.UNDOING if undoing else ops.RUNNING
        claim = core.operations.claim(operation, core.owner, state=state, hold_target=True)
        run = core.operation_run(operation, claim)
        run.gate = gate
        run.kept = kept
        run.undoing = undoing
        run.debts = operation.debts
        if operation.cancel_requested:
            run.cancel.set()
        with core.running(run):
            driver = core.parent(run, operation)
            error = core.advance(run, driver)
            if left_unfinished(run, driver, error):
                core.put_down(run, ops.UNDOING if undoing else ops.HELD)
            else:
                core.conclude(run, driver)
    return core.operations.get(operation.id)
