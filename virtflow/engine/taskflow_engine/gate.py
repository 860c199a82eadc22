"""Asks the gate of a run on behalf of one flow, and does to the store what was decided."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from taskflow import exceptions as taskflow_errors
from taskflow import retry as taskflow_retry
from taskflow import states
from taskflow.engines.action_engine import compiler
from taskflow.types.failure import Failure

from virtflow.engine.run import FlowRun
from virtflow.engine.stepping import Decision, Gate, Stop, Verb
from virtflow.engine.taskflow_engine.rehearsal import HELD, SKIPPED
from virtflow.engine.taskflow_engine.runtime import FlowRuntime
from virtflow.persistence.models.base import encode
from virtflow.redaction import scrub

_ASKING = threading.Lock()
"""Flows of one process that run side by side ask one after the other."""


class FlowGate:
    """Between a flow's loop and whoever steps through it."""

    def __init__(self, gate: Gate, flow_run: FlowRun, runtime: FlowRuntime) -> None:
        self._gate = gate
        self._flow_run = flow_run
        self._run = flow_run.operation_run
        self._runtime = runtime
        self._storage = runtime.storage

    @property
    def left(self) -> bool:
        """Whether the run is to be left as it is."""
        return self._run.suspend.is_set()

    def resumes(self) -> bool:
        """Decide about what had failed when the operation was left; False to leave it as it is."""
        for atom in self._runtime.iterate_nodes((compiler.TASK,)):
            detail = self._storage.detail(atom.name)
            if detail.state == states.FAILURE and detail.intention == states.EXECUTE and not self._run.undoing:
                self._decide(atom, detail.failure)
            if self.left:
                return False
        return True

    def admit(self, atoms: Collection[Any]) -> list[Any]:
        """The one that is to start now, or none: what is left over is asked for again."""
        if self.left or self._flow_run.cancelled():
            return [] if self.left else list(atoms)
        first = min(atoms, key=self._order)
        if isinstance(first, taskflow_retry.Retry):
            return [first]
        stop = self._stop(first, atoms, reverting=self._storage.get_atom_intention(first.name) == states.REVERT)
        decision = self._ask(self._gate.before, stop)
        if stop.reverting:  # what has begun to be taken back is taken back
            return [first]
        if decision.verb is Verb.LEAVE:
            self._run.suspend.set()
            return []
        if decision.verb is Verb.SKIP:
            self._skip(first.name, decision.result)
            return []
        return [first]

    def holds(self, atom: Any, failure: Failure) -> bool:
        """Whether a failure was dealt with here: the flow does nothing about it."""
        if self._flow_run.cancelled() or self._run.undoing:
            return False
        return self._decide(atom, failure)

    def _decide(self, atom: Any, failure: Failure) -> bool:
        stop = self._stop(atom, [atom], failure=scrub(failure.exception_str))
        decision = self._ask(self._gate.failed, stop)
        if decision.verb is Verb.REVERT:
            return False
        self._flow_run.transition(atom.name, HELD, {"decision": decision.verb.value})
        if decision.verb is Verb.RETRY:
            self._storage.reset(atom.name)
        elif decision.verb is Verb.SKIP:
            self._skip(atom.name, decision.result)
        else:
            self._run.suspend.set()
        return True

    def _skip(self, name: str, result: Any) -> None:
        plain = json.loads(encode(result))
        self._flow_run.transition(name, SKIPPED, {"result": plain})
        if self._storage.get_atom_state(name) == states.FAILURE:
            self._storage.reset(name)
        self._storage.save(name, plain, states.SUCCESS)

    def _ask(self, ask: Any, stop: Stop) -> Decision:
        self._flow_run.recorder.flush()
        with _ASKING:
            decision: Decision = ask(stop)
        return decision

    def _stop(self, atom: Any, due: Collection[Any], *, reverting: bool = False, failure: str | None = None) -> Stop:
        return Stop(
            operation=self._run.operation,
            flow=self._flow_run.name,
            task=atom.name,
            due=tuple(each.name for each in sorted(due, key=self._order)),
            reverting=reverting,
            failure=failure,
            arguments=self._arguments(atom, reverting=reverting),
            states={name: self._storage.get_atom_state(name) for name in self._places},
        )

    def _arguments(self, atom: Any, *, reverting: bool) -> Mapping[str, Any]:
        names = atom.revert_rebind if reverting else atom.rebind
        try:
            found = self._storage.recorded_arguments(names)
        except (taskflow_errors.TaskFlowException, LookupError):
            return {}
        return {name: value for name, value in found.items() if _is_plain(value)}

    def _order(self, atom: Any) -> int:
        return self._places[atom.name]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {atom.name: place for place, atom in enumerate(self._runtime.iterate_nodes(compiler.ATOMS))}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)
