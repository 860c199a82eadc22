"""The state of a run in memory: who runs which operation, with which services, and what its bodies are told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from taskflow import task as taskflow_task
from taskflow.types.failure import Failure

import virtflow
from virtflow.activity import Activity
from virtflow.log_context import about
from virtflow.persistence import ledger
from virtflow.persistence.backend import FlowBackend
from virtflow.persistence.claim import Claim
from virtflow.persistence.fencing import holding
from virtflow.persistence.ledger import LedgerStatements
from virtflow.persistence.models.base import encode, now
from virtflow.persistence.recorder import Recorder
from virtflow.tasks.base import Debt, RevertPolicy, Task

if TYPE_CHECKING:
    from virtflow.engine.forking import KeptResults
    from virtflow.engine.stepping import Gate

CANCEL_ASKED = "CANCEL_ASKED"
"""The journal's event of a parent flow that was asked to stop while it ran."""
NOT_KEPT: Any = object()
_DEFAULT_TIMEOUT = 60.0
"""Seconds, where nothing is configured."""


@dataclass(frozen=True)
class TaskEvent:
    """A task has changed its state, or got on. ``at`` in microseconds; ``done`` and ``total`` in bytes."""

    operation: str
    flow: str
    task: str
    state: str
    at: int
    attempt: int
    host: str
    progress: float | None = None
    done: int | None = None
    total: int | None = None
    error: str | None = None


@dataclass
class OperationRun:
    """One process running one operation, or one segment of it that was handed over: all that its flows share."""

    operation: str
    claim: Claim
    host: str
    recorder: Recorder
    ledger: LedgerStatements
    backend: FlowBackend
    pool: Executor
    services: Mapping[str, Any]
    cancel: threading.Event = field(default_factory=threading.Event)
    revert_policy: RevertPolicy = field(default_factory=RevertPolicy)
    timeouts: Mapping[str, float] = field(default_factory=dict)
    progress_interval: float = 1.0
    listener: Callable[[TaskEvent], None] | None = None
    undoing: bool = False
    debts: int = 0
    suspend: threading.Event = field(default_factory=threading.Event)
    """Set when the run has to be put down between two tasks, for another process to go on with."""
    parked: str | None = None
    """What the run waits for, when it was put down for that."""
    first_failure: str | None = None
    """The first thing that went wrong, as ``Task: text``."""
    gate: Gate | None = None
    """Who is asked before each task, and when one has failed."""
    kept: KeptResults | None = None
    """What an operation that is a fork need not do again."""
    children: set[str] = field(default_factory=set)
    """The operations that a task waits for, as steps of this one, until they are asked to stop with it."""

    def ask_to_cancel(self) -> None:
        """Stop before the next body, and record that it was asked for. From any thread."""
        with self.recorder.lock:
            if not self.cancel.is_set() and self.recorder.knows_flow(self.operation):
                self.recorder.event(self.operation, None, CANCEL_ASKED, 0)
            self.cancel.set()


class FlowRun:
    """One flow of an operation being run. The executor and the storage report here; it records and tells."""

    def __init__(self, operation_run: OperationRun, flow: str, name: str, attempts: Mapping[str, int]) -> None:
        self.operation_run = operation_run
        self.recorder = operation_run.recorder
        self.revert_policy = operation_run.revert_policy
        self.flow = flow
        self.name = name
        self._attempts = dict(attempts)
        self._announced: set[str] = set()

    def cancelled(self) -> bool:
        """Whether the next body must not start. An undo is not cancelled: it is what a cancel would do."""
        return self.operation_run.cancel.is_set() and not self.operation_run.undoing

    @contextmanager
    def at_work_on(self, task: str) -> Iterator[None]:
        """A body of the task runs: what is logged is about it, and what it writes is refused once it is not ours."""
        run = self.operation_run
        with about(run.operation, self.name, task, run.host), holding(run.claim):
            yield

    def attempt(self, task: str) -> int:
        return self._attempts.get(task, 0)

    def begin(self, graph: str | None) -> None:
        """Record that this process sets the flow going: with which code, why, and (a new flow) its graph, as JSON."""
        run = self.operation_run
        why = {"undoing": run.undoing, "cancelled": run.cancel.is_set()}
        about = encode({"code": virtflow.__version__, "pid": os.getpid(), **why})
        data = about if graph is None else f'{about[:-1]},"graph":{graph}}}'
        self.recorder.event(self.flow, None, "RUNNING", 0, data)

    def retry_transition(self, retry: str, state: str) -> None:
        """Record what a retry controller does; each of its executes is an attempt."""
        if state == "RUNNING":
            self._attempts[retry] = self.attempt(retry) + 1
        self.transition(retry, state)

    def begin_execute(
        self, task: taskflow_task.Task, uuid: str, arguments: Mapping[str, Any]
    ) -> tuple[Activity, Failure | None]:
        """Record that an execute is about to start: the event, and the task's intents.

        A task that cannot say what it is about to make gives a Failure, and must not start.
        """
        attempt = self._attempts[task.name] = self.attempt(task.name) + 1
        self.transition(task.name, "RUNNING")
        unannounced = None
        if isinstance(task, Task):
            try:
                self._announce(task, arguments, again=attempt > 1)
            except Exception:  # noqa: BLE001 - a failing task is a value to the engine
                unannounced = Failure()
        return self._activity(task, uuid, cancellable=getattr(task, "cancellable", True)), unannounced

    def _announce(self, task: Task, arguments: Mapping[str, Any], *, again: bool) -> None:
        run = self.operation_run
        for intent in tuple(task.intents(**arguments)):
            self._announced.add(task.name)
            row = (run.operation, self.flow, task.name, intent.kind, intent.identity, run.host)
            ledger.record_intent(self.recorder, run.ledger, row, intent.detail, again=again)

    def kept_result(self, task: taskflow_task.Task, arguments: Mapping[str, Any]) -> Any:
        """The result that the task need not produce again, or NOT_KEPT."""
        kept = self.operation_run.kept
        if kept is None or not isinstance(task, Task):
            return NOT_KEPT
        earlier = kept.find(self, task, arguments)
        return NOT_KEPT if earlier is None else earlier.result

    def begin_revert(self, task: taskflow_task.Task, uuid: str) -> Activity:
        self.transition(task.name, "REVERTING")
        return self._activity(task, uuid, cancellable=False)

    def executed(self, task: taskflow_task.Task, result: Any) -> None:
        """Record that what the task announced is there."""
        if task.name in self._announced and not isinstance(result, Failure):
            ledger.record_state(self.recorder, self.operation_run.ledger, self.flow, task.name, ledger.PRESENT)

    def reverted(self, task: taskflow_task.Task, debt: Debt | None) -> None:
        """Record that what the task made is gone, or is debt now."""
        run = self.operation_run
        if debt is None:
            if isinstance(task, Task) and type(task).intents is not Task.intents:
                ledger.record_state(self.recorder, run.ledger, self.flow, task.name, ledger.CLEARED)
            return
        run.debts += 1
        row = (run.operation, self.flow, task.name, ledger.REVERT, task.name, run.host)
        ledger.record_intent(self.recorder, run.ledger, row, {}, again=True)
        ledger.record_state(self.recorder, run.ledger, self.flow, task.name, ledger.DEBT, debt.error)

    def transition(self, task: str | None, state: str, data: Any = None) -> None:
        """Append to the journal; the listener hears of it after the commit."""
        attempt = self.attempt(task) if task else 0
        if state == "FAILURE" and task is not None and self.operation_run.first_failure is None:
            self.operation_run.first_failure = f"{task}: {data['failure']['exception_str']}"
        self.recorder.event(self.flow, task, state, attempt, None if data is None else encode(data))
        if self.operation_run.listener is not None and task is not None:
            self._tell_later(task, state, attempt, data)

    def _tell_later(self, task: str, state: str, attempt: int, data: Any) -> None:
        run = self.operation_run
        error = None
        if isinstance(data, Mapping):
            failure = data.get("failure")
            error = failure["exception_str"] if failure else data.get("debt") or data.get("reason")
        event = TaskEvent(run.operation, self.name, task, state, now(), attempt, run.host, error=error)
        assert run.listener is not None
        self.recorder.after_commit(run.listener, event)

    def _activity(self, task: taskflow_task.Task, uuid: str, *, cancellable: bool) -> Activity:
        timeout = getattr(task, "timeout", "default")
        if isinstance(timeout, str):
            timeout = self.operation_run.timeouts.get(timeout, _DEFAULT_TIMEOUT)
        return _RunningActivity(self, task.name, uuid, timeout, cancellable=cancellable)


class _RunningActivity(Activity):
    """Progress goes to the listener at most four times a second, and to the database every ``progress_interval``."""

    def __init__(self, flow_run: FlowRun, task: str, uuid: str, timeout: float, *, cancellable: bool) -> None:
        super().__init__(task, time.monotonic() + timeout if timeout else None)
        self._flow_run = flow_run
        self._uuid = uuid
        self._cancellable = cancellable
        self._told = 0.0
        self._stored = time.monotonic()

    def cancelled(self) -> bool:
        return self._cancellable and self._flow_run.cancelled()

    def cancel_requested(self) -> bool:
        return self._flow_run.cancelled()

    def report(self, done: int, total: int | None) -> None:
        moment = time.monotonic()
        run = self._flow_run.operation_run
        progress = done / total if total else None
        if run.listener is not None and moment - self._told >= 0.25:
            self._told = moment
            attempt = self._flow_run.attempt(self.name)
            flow = self._flow_run.name
            run.listener(
                TaskEvent(run.operation, flow, self.name, "RUNNING", now(), attempt, run.host, progress, done, total)
            )
        if moment - self._stored >= run.progress_interval:
            self._stored = moment
            run.recorder.progress(self._uuid, {"progress": progress, "done": done, "total": total})
            run.recorder.flush()
