"""Operations that are a step of another one: whole ones, with a verdict and an undo of their own.

The parent's task waits until the child is over, in the parent's process; where that dies, whoever goes on with either
finds the other. A child is known by its parent and a name: running it again is going on with it. A request to cancel
the parent is passed on: the child takes back what it has made, and then the parent does.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from virtflow.activity import Activity, RunSuspended
from virtflow.engine.run import OperationRun
from virtflow.errors import Busy, NotFound
from virtflow.persistence import operations as ops
from virtflow.persistence.operations import Operation, new_operation

if TYPE_CHECKING:
    from virtflow.engine.core import EngineCore
    from virtflow.engine.runner import Runner

_LOOK = 0.2
"""Seconds between two looks at a child that somebody else is at work on."""


def child_id(parent: str, name: str) -> str:
    """The child's id follows from the parent's."""
    return str(uuid.uuid5(uuid.UUID(parent), f"child/{name}"))


class ChildOperations:
    """For one run of an operation."""

    def __init__(self, run: OperationRun, core: EngineCore) -> None:
        self._run = run
        self._core = core

    def run(
        self, name: str, kind: str, target: str, request: Mapping[str, Any], project: str, activity: Activity
    ) -> str:
        """Run the child to its end, or go on with it; its id. Raises what refused it, OperationFailed or
        RevertIncomplete; OperationCancelled when it ended so together with its parent; Busy where another operation
        holds its target."""
        runner, found, claim = self._runner(), self._find(name), None
        if found is None:
            version = self._core.templates.registry.newest(kind).version
            made = new_operation(kind, version, target, request, project, parent=self._run.operation)
            found = replace(made, id=child_id(self._run.operation, name))
            claim = self._core.operations.create(found, self._core.owner)
        with self._cancelled_together(found):
            if claim is not None:
                found = runner.begin(found, claim)
            return self._over(runner, found, activity).id

    def take_back(self, name: str, activity: Activity) -> None:
        """Nothing of the child is left, whatever became of it; none: nothing to do. Raises what keeps it."""
        found = self._find(name)
        if found is None:
            return
        runner = self._runner()
        if found.state not in (ops.FINISHED, ops.UNDOING):
            runner.cancel(found.id)
        found = self._settled(runner, found, activity)
        if found.debts or found.outcome == ops.REVERTED_WITH_DEBT:
            found = runner.retry_revert(found.id)
        if found.outcome == ops.SUCCESS:
            runner.undo(found.id)

    @contextmanager
    def _cancelled_together(self, child: Operation) -> Iterator[None]:
        """A request to cancel this operation, earlier or now, is passed on to the child while the block runs."""
        self._run.children.add(child.id)
        try:
            yield
        finally:
            self._run.children.discard(child.id)

    def _over(self, runner: Runner, found: Operation, activity: Activity) -> Operation:
        from virtflow.engine.outcome import raise_outcome

        found = self._settled(runner, found, activity)
        if found.outcome == ops.CANCELLED:
            activity.check()
        return raise_outcome(found, None)

    def _settled(self, runner: Runner, found: Operation, activity: Activity) -> Operation:
        """The child when it is over: whoever left it, it is gone on with."""
        while True:
            found = self._core.operations.get(found.id)
            if found.state == ops.FINISHED:
                return found
            if self._core.draining.is_set():
                raise RunSuspended
            with suppress(Busy):
                found = runner.carry_on(found.id)
            if found.state != ops.FINISHED:
                activity.sleep(_LOOK)

    def _find(self, name: str) -> Operation | None:
        try:
            return self._core.operations.get(child_id(self._run.operation, name))
        except NotFound:
            return None

    def _runner(self) -> Runner:
        from virtflow.engine.runner import Runner

        return Runner.over(self._core)
