"""One flow gone through by TaskFlow's own decisions, with outcomes that are told instead of bodies that run.

The store is in memory and nothing is ever written: a rehearsal shows what today's code would do, and changes nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from taskflow import exceptions as taskflow_errors
from taskflow import retry as taskflow_retry
from taskflow import states
from taskflow.engines.action_engine import executor as taskflow_executor
from taskflow.engines.action_engine.actions import retry as retry_actions
from taskflow.persistence import models
from taskflow.types import notifier
from taskflow.types.failure import Failure

from virtflow.engine.taskflow_engine.runtime import FlowRuntime
from virtflow.engine.taskflow_engine.storage import FlowStorage
from virtflow.engine.taskflow_engine.template import Template

_UNTOUCHED = (states.PENDING, states.REVERTED, states.IGNORE)
_IN_FLIGHT = (states.RUNNING, states.REVERTING)
_STARTS = (states.RUNNING, states.RETRYING, states.REVERTING)
HELD = "HELD"
"""The journal's event of a task whose failure was held: what follows from it is decided by hand."""
SKIPPED = "SKIPPED"
"""The journal's event of a task that was not run: its result was given by hand."""

Snapshot = tuple[Any, ...]


class Rehearsal:
    """A flow of today's code, to be told what happened. ``services`` are names for which there is only a stand-in."""

    def __init__(
        self, template: Template, inputs: Mapping[str, Any], services: Iterable[str], *, forward_only: bool = False
    ) -> None:
        self._template = template
        self._atoms = {atom.name: atom for atom in template.atoms}
        self._detail = models.FlowDetail(template.flow.name, "rehearsal")
        self._storage = FlowStorage(template, self._detail, _NOWHERE, _NOWHERE)
        self._storage.ensure_atoms(template.atoms)
        self._storage.use_services(ChainMap(dict(inputs), {name: Service(name) for name in services}))
        self._bodies = _Bodies()
        options = {"defer_reverts": True, "never_resolve": forward_only}
        self._runtime = _Runtime(
            template, self._storage, notifier.Notifier(), self._bodies, self._bodies, options=options
        )
        self._runtime.compile()
        self._resumed: frozenset[str] = frozenset()
        self._unresolved: Snapshot | None = None

    # -- what is told

    def begin(self, retried: Collection[str] = ()) -> None:
        """A process sets the flow going, or goes on with it. ``retried`` as of ``follow``."""
        self._runtime.retry_action.retried = retried
        self._resumed = frozenset(atom.name for atom in self._runtime.completer.resume())

    def undo(self) -> None:
        """Everything is to be taken back: somebody asked for it from outside the flow."""
        for detail in self._detail:
            if detail.state not in _UNTOUCHED:
                self._storage.set_atom_intention(detail.name, states.REVERT)

    def load(self, name: str, state: str, result: Any = None, failure: Mapping[str, Any] | None = None) -> None:
        """Put a task into a state without asking how it got there."""
        if state == states.FAILURE and failure is not None:
            self._storage.save(name, Failure.from_dict(failure), state)
        elif state in (states.SUCCESS, states.REVERTED):
            self._storage.save(name, result, state)
        elif state != states.PENDING:
            self._storage.set_atom_state(name, state)

    def follow(self, name: str, event: str, data: Any = None, *, retried: Collection[str] = ()) -> str | None:
        """Do what was recorded of a task; if today's code would not, why, and nothing is done.

        ``retried``: the retries that tried again after a failure, where that was for a service to decide.
        """
        self._runtime.retry_action.retried = retried
        atom = self._atoms.get(name)
        if atom is None:
            return "it is not in the flow any more"
        if event in _STARTS:
            return self._start(atom, event)
        self._resumed -= {name}  # a retry that is gone on with ends without another start
        completer = self._runtime.completer
        if event == states.SUCCESS:
            return self._lacking(
                lambda: completer.complete(atom, taskflow_executor.EXECUTED, (data or {}).get("result"))
            )
        if event == states.FAILURE:
            failure = Failure.from_dict(data["failure"])
            completer.complete(atom, taskflow_executor.EXECUTED, failure)
            self._unresolved = self.snapshot()
            completer.complete_failure(atom, taskflow_executor.EXECUTED, failure)
        elif event == states.REVERTED:
            completer.complete(atom, taskflow_executor.REVERTED, data)
        elif event == HELD and self._unresolved is not None:
            self.restore(self._unresolved)
        elif event == states.PENDING:
            self._storage.reset(name)
        return None

    def _start(self, atom: Any, event: str) -> str | None:
        state, intention = self.state_of(atom.name)
        if state == event or (state == states.RUNNING and event == states.RETRYING):
            if atom.name not in self._resumed and not isinstance(self._storage.detail(atom.name), models.RetryDetail):
                return "it runs already"
        elif not self._due(atom, event):
            return self._why_not(atom, event, state, intention)
        self._resumed -= {atom.name}
        return self._lacking(lambda: self._runtime.fetch_scheduler(atom).schedule(atom))

    def _due(self, atom: Any, event: str) -> bool:
        selector = self._runtime.selector
        intention = self._storage.get_atom_intention(atom.name)
        if event == states.RUNNING:
            return bool(selector._ready_to_execute(atom))
        if atom.name in self._resumed:
            return bool(intention == states.REVERT)
        if event == states.RETRYING and intention != states.RETRY:
            return False
        return bool(selector._ready_to_revert(atom))

    def _why_not(self, atom: Any, event: str, state: str, intention: str) -> str:
        if event != states.REVERTING:
            if intention != states.EXECUTE:
                return "it would be reverted, not run"
            waits = [
                name for name in self._before(atom) if self.state_of(name)[0] not in (states.SUCCESS, states.IGNORE)
            ]
            return f"it would wait for {', '.join(waits)}" if waits else f"it is {state}"
        if intention not in (states.REVERT, states.RETRY):
            return "it would not be reverted"
        waits = [name for name in self._after(atom) if self.state_of(name)[0] not in _UNTOUCHED]
        return f"the revert would wait for {', '.join(waits)}" if waits else f"it is {state}"

    def _lacking(self, step: Any) -> str | None:
        try:
            step()
        except (taskflow_errors.NotFound, taskflow_errors.MissingDependencies, LookupError, TypeError) as error:
            return f"it lacks an input: {str(error).splitlines()[0]}"
        return None

    # -- what is asked

    @property
    def names(self) -> list[str]:
        return list(self._atoms)

    def state_of(self, name: str) -> tuple[str, str]:
        """State and intention of a task."""
        detail = self._storage.detail(name)
        return str(detail.state), str(detail.intention)

    def is_nested(self, retry: str) -> bool:
        """Whether a retry stands within another one, which decides where it gives up."""
        return self._runtime.find_retry(self._atoms[retry]) is not None

    def arguments(self, name: str) -> Mapping[str, Any]:
        """What a task was last called with."""
        return self._bodies.arguments.get(name, {})

    def due(self) -> list[tuple[str, str]]:
        """What today's code would start now: (task, RUNNING or REVERTING)."""
        ready = {atom.name: atom for atom, _decider in self._runtime.selector.iter_next_atoms()}
        waiting = self._resumed & {d.name for d in self._detail if d.state in _IN_FLIGHT}
        return [
            (name, states.RUNNING if self.state_of(name)[1] == states.EXECUTE else states.REVERTING)
            for name in self._atoms
            if name in ready or name in waiting
        ]

    def undo_order(self) -> list[str]:
        """The tasks in the order in which an undo would revert them."""
        self.undo()
        self._resumed = frozenset(detail.name for detail in self._detail if detail.state in _IN_FLIGHT)
        order: list[str] = []
        while due := [name for name, event in self.due() if event == states.REVERTING and name not in order]:
            for name in due:
                order.append(name)
                self._storage.set_atom_state(name, states.REVERTED)
        return order

    def what_revert_does(self, name: str) -> str:
        """What the task's own description says of its revert, in a sentence."""
        text = " ".join((inspect.getdoc(type(self._atoms[name])) or "").split())
        _before, reverts, after = text.partition("Reverts:")
        return after.strip().split(". ")[0].rstrip(".") if reverts else "nothing was made, nothing is taken back"

    # -- time travel

    def snapshot(self) -> Snapshot:
        details = tuple(
            (d.state, d.intention, _kept(d.results), d.failure, d.revert_results, d.revert_failure)
            for d in self._detail
        )
        failures = {name: dict(found) for name, found in self._storage._failures.items() if found}
        return details, failures, self._resumed, dict(self._bodies.arguments)

    def restore(self, snapshot: Snapshot) -> None:
        details, failures, self._resumed, arguments = snapshot
        self._bodies.arguments = dict(arguments)
        for detail, kept in zip(self._detail, details, strict=True):
            detail.state, detail.intention, results, detail.failure, detail.revert_results, detail.revert_failure = kept
            detail.results = _kept(results)
            self._storage._failures[detail.name] = dict(failures.get(detail.name, ()))

    def _before(self, atom: Any) -> Iterator[str]:
        yield from self._connected(atom, self._template.compilation.execution_graph.predecessors)

    def _after(self, atom: Any) -> Iterator[str]:
        yield from self._connected(atom, self._template.compilation.execution_graph.successors)

    def _connected(self, atom: Any, neighbours: Any) -> Iterator[str]:
        waiting, seen = list(neighbours(atom)), set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._template.kinds:
                yield node.name
            else:
                waiting += neighbours(node)


class Service:
    """Stands where a task would get a service: it can be shown, and answers nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<service {self._name}>"

    def __getattr__(self, name: str) -> Any:
        raise _Unanswered(name)


class _Unanswered(Exception):
    """A stand-in was asked for something."""


class _RetryAction(retry_actions.RetryAction):
    """Where today's retry asks a service whether to try again, the recorded answer is taken."""

    retried: Collection[str] = ()

    def on_failure(self, retry: Any, atom: Any, last_failure: Any) -> Any:
        try:
            return super().on_failure(retry, atom, last_failure)
        except _Unanswered:
            return taskflow_retry.RETRY if retry.name in self.retried else taskflow_retry.REVERT


class _Runtime(FlowRuntime):
    @cached_property
    def retry_action(self) -> _RetryAction:
        return _RetryAction(self._storage, self._atom_notifier, self._retry_executor)


class _Bodies:
    """TaskFlow's executors: they keep the arguments, and no body ever runs."""

    def __init__(self) -> None:
        self.arguments: dict[str, Mapping[str, Any]] = {}

    def execute_task(self, task: Any, _uuid: str, arguments: Mapping[str, Any], **_options: Any) -> Future[Any]:
        return self._accept(task, arguments)

    def revert_task(self, task: Any, _uuid: str, arguments: Mapping[str, Any], *_rest: Any, **_o: Any) -> Future[Any]:
        return self._accept(task, arguments)

    def execute_retry(self, retry: Any, arguments: Mapping[str, Any]) -> Future[Any]:
        return self._accept(retry, arguments)

    def revert_retry(self, retry: Any, arguments: Mapping[str, Any]) -> Future[Any]:
        return self._accept(retry, arguments)

    def _accept(self, atom: Any, arguments: Mapping[str, Any]) -> Future[Any]:
        self.arguments[atom.name] = arguments
        return Future()


def _nothing(*_arguments: Any, **_options: Any) -> None:
    """What is recorded in a rehearsal goes nowhere."""


_CONNECTION = SimpleNamespace(
    update_atom_details=_nothing, update_flow_details=_nothing, set_flow_state=_nothing, close=_nothing
)
_NOWHERE: Any = SimpleNamespace(
    get_connection=lambda: _CONNECTION,
    recorder=SimpleNamespace(lock=threading.RLock()),
    transition=_nothing,
    retry_transition=_nothing,
    begin=_nothing,
)
"""Backend and flow run of every rehearsal."""


def _kept(results: Any) -> Any:
    """A retry's history is changed in place, and its failures too; a task's result is not."""
    if not isinstance(results, list):
        return results
    return [(entry[0], dict(entry[1])) if isinstance(entry, tuple) and len(entry) == 2 else entry for entry in results]
