"""Runs task bodies, and is where the barriers are.

The engine hands tasks over one by one; nothing starts until it waits. Then everything recorded so far is committed at
once, and the bodies start: a lone one in the engine's own thread, several in the shared pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from taskflow import task as taskflow_task
from taskflow.engines.action_engine import executor as taskflow_executor
from taskflow.retry import Retry
from taskflow.types.failure import Failure

from virtflow.engine.run import NOT_KEPT, FlowRun
from virtflow.errors import OperationCancelled
from virtflow.tasks.base import run_execute, run_revert

_STEAL_AFTER = 0.05
"""Seconds after which a waiting engine runs a task itself when the pool has no thread for it."""


class _Job:
    """One body to run, by whoever claims it first: a thread of the pool, or the engine itself when the pool is full."""

    __slots__ = ("_claim", "body", "future")

    def __init__(self, body: Callable[[], Any], atom: taskflow_task.Task) -> None:
        self.body = body
        self.future: Future[Any] = Future()
        self.future.atom = atom  # type: ignore[attr-defined]
        self._claim = threading.Lock()

    def run(self) -> bool:
        if not self._claim.acquire(blocking=False) or not self.future.set_running_or_notify_cancel():
            return False
        try:
            self.future.set_result(self.body())
        except BaseException as error:  # noqa: BLE001 - handed over to the engine through the future
            self.future.set_exception(error)
        return True


class BarrierExecutor(taskflow_executor.TaskExecutor):
    """TaskFlow's executor interface plus ``wait``, which the engine calls in place of futurist's waiter."""

    def __init__(self, flow_run: FlowRun, pool: Executor) -> None:
        self._run = flow_run
        self._pool = pool
        self._queued: list[_Job] = []
        self._submitted: list[_Job] = []

    def start(self) -> None:
        """The pool is shared and outlives the engine."""

    def stop(self) -> None:
        """Bodies still queued are dropped: their start was never committed."""
        for job in self._queued:
            job.future.cancel()
        self._queued = []

    def execute_task(
        self,
        task: Any,
        task_uuid: str,
        arguments: Mapping[str, Any],
        progress_callback: Any = None,  # noqa: ARG002 - progress goes through Activity
    ) -> Future[Any]:
        activity, unannounced = self._run.begin_execute(task, task_uuid, arguments)

        def body() -> tuple[str, Any]:
            if unannounced is not None:
                result: Any = unannounced
            elif activity.cancelled():
                result = Failure.from_exception(OperationCancelled(step=task.name))
            else:
                result = self._run.kept_result(task, arguments)
                if result is NOT_KEPT:
                    with self._run.at_work_on(task.name):
                        result = run_execute(task, arguments, activity)
                self._run.executed(task, result)
            return taskflow_executor.EXECUTED, result

        return self._enqueue(task, body)

    def revert_task(
        self,
        task: Any,
        task_uuid: str,
        arguments: Mapping[str, Any],
        result: Any,
        failures: Mapping[str, Failure],
        progress_callback: Any = None,  # noqa: ARG002 - progress goes through Activity
    ) -> Future[Any]:
        activity = self._run.begin_revert(task, task_uuid)

        def body() -> tuple[str, Any]:
            with self._run.at_work_on(task.name):
                debt = run_revert(task, arguments, result, failures, activity, self._run.revert_policy)
            self._run.reverted(task, debt)
            return taskflow_executor.REVERTED, None if debt is None else {"debt": debt.error}

        return self._enqueue(task, body)

    def wait(self, futures: Iterable[Future[Any]], timeout: float | None = None) -> tuple[set[Any], set[Any]]:
        """The barrier: commit, start what is queued, and wait for the first to finish."""
        pending = set(futures)
        decided = {future for future in pending if isinstance(future.atom, Retry)}  # type: ignore[attr-defined]
        if decided and not self._queued:
            return decided, pending - decided  # it ran when it was scheduled, has made nothing, and no body starts
        self._run.recorder.flush()
        self._start(alone=len(pending) == 1)
        done = {future for future in pending if future.done()}
        while not done:
            done, _ = wait(pending, timeout=_STEAL_AFTER if self._submitted else timeout, return_when=FIRST_COMPLETED)
            if not done:
                self._steal()
        self._submitted = [job for job in self._submitted if not job.future.done()]
        return done, pending - done

    def _enqueue(self, task: taskflow_task.Task, body: Callable[[], Any]) -> Future[Any]:
        job = _Job(body, task)
        self._queued.append(job)
        return job.future

    def _start(self, *, alone: bool) -> None:
        jobs, self._queued = self._queued, []
        if alone and len(jobs) == 1:
            jobs[0].run()
            return
        for job in jobs:
            self._submitted.append(job)
            self._pool.submit(job.run)

    def _steal(self) -> None:
        while self._submitted:
            if self._submitted.pop().run():
                return
