"""TaskFlow's state machine as a loop: resume, then schedule, wait and analyse until nothing is left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

from taskflow import states
from taskflow.engines.action_engine.executor import EXECUTED
from taskflow.types.failure import Failure

from virtflow.activity import RunSuspended
from virtflow.engine.executor import BarrierExecutor
from virtflow.engine.taskflow_engine.gate import FlowGate
from virtflow.engine.taskflow_engine.runtime import FlowRuntime

LOG = logging.getLogger(__name__)


class FlowLoop:
    """One run of an engine. ``failures`` are those that end it: nothing is scheduled after the first."""

    def __init__(
        self, runtime: FlowRuntime, executor: BarrierExecutor, timeout: float | None, gate: FlowGate | None = None
    ) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._executor = executor
        self._timeout = timeout
        self._gate = gate
        self._next: set[Any] = set()
        self._running: set[Future[Any]] = set()
        self.failures: list[Failure] = []
        self._left = False

    def states(self) -> Iterator[str]:
        """Each state is yielded before its work is done; the last one says how it ended."""
        yield states.RESUMING
        schedule = self._gate is None or self._gate.resumes()
        self._left = not schedule
        if schedule:
            self._next = {*self._runtime.completer.resume(), *self._ready()}
        while schedule or self._running:
            if schedule:
                yield states.SCHEDULING
                self._schedule()
            yield states.WAITING
            done = self._wait()
            yield states.ANALYZING
            schedule = self._analyse(done)
        yield self._outcome()

    def _schedule(self) -> None:
        state = self._storage.get_flow_state()
        if state == states.SUSPENDING:
            self._cancel()
        if state != states.RUNNING or not self._next:
            return
        chosen = self._next if self._gate is None else self._gate.admit(self._next)
        by_priority = sorted(chosen, key=lambda atom: getattr(atom, "priority", 0), reverse=True)
        futures, failures = self._runtime.scheduler.schedule(by_priority)
        self._running |= futures
        self.failures += failures
        self._next = self._next.difference(chosen) if self._gate is not None else set()

    def _wait(self) -> set[Future[Any]]:
        if not self._running:
            return set()
        done, self._running = self._executor.wait(self._running, self._timeout)
        return done

    def _analyse(self, done: Iterable[Future[Any]]) -> bool:
        """Complete what has finished; whether there is anything to schedule now.

        All of it is completed first: a success asked on its own about what comes next would start a task, and a failure
        beside it have that task, which has never run, reverted together with what it needs.
        """
        completed = [future.atom for future in done if self._complete(future)]  # type: ignore[attr-defined]
        ready: set[Any] = set()
        if not self.failures:
            for atom in completed:
                ready.update(self._ready(atom))
        if self._gate is not None:
            ready = {*self._ready(), *self._left_over()}
        state = self._storage.get_flow_state()
        if state == states.RUNNING and ready and not self.failures:
            self._next = ready
            return True
        if state == states.SUSPENDING:
            self._cancel()
        return False

    def _complete(self, future: Future[Any]) -> bool:
        """Save a result and resolve a failure; False when the body never began, or was left to be done again."""
        atom = future.atom  # type: ignore[attr-defined]
        try:
            outcome, result = future.result()
            completer = self._runtime.completer
            completer.complete(atom, outcome, result)
            failed = isinstance(result, Failure) and not self._held(atom, outcome, result)
            if failed and completer.complete_failure(atom, outcome, result):
                self.failures.append(result)
        except CancelledError:
            return False
        except RunSuspended:
            self._left = True
            return False
        except Exception:
            LOG.exception("cannot complete %s", atom.name)
            self.failures.append(Failure())
        return True

    def _held(self, atom: Any, outcome: str, failure: Failure) -> bool:
        """Whether somebody who steps through the flow has dealt with a failure."""
        if self._gate is None or outcome != EXECUTED or not self._gate.holds(atom, failure):
            return False
        self._left |= self._gate.left
        return True

    def _left_over(self) -> Iterator[Any]:
        """What a process that died was at, and what has not been admitted yet."""
        for atom in self._next:
            if self._storage.get_atom_state(atom.name) in (states.RUNNING, states.REVERTING):
                yield atom

    def _ready(self, atom: Any = None, *, decide: bool = True) -> Iterator[Any]:
        for candidate, decider in self._runtime.selector.iter_next_atoms(atom=atom):
            if not decide or decider.check_and_affect(self._runtime):
                yield candidate

    def _cancel(self) -> None:
        for future in self._running:
            future.cancel()

    def _outcome(self) -> str:
        if self.failures:
            return str(states.FAILURE)
        if self._left or any(True for _atom in self._ready(decide=False)):
            return str(states.SUSPENDED)
        return str(states.SUCCESS if self._runtime.is_success() else states.REVERTED)
