"""The engine: one run of one flow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from itertools import chain
from typing import Any

from taskflow import exceptions as exc
from taskflow import states
from taskflow.engines.action_engine import engine
from taskflow.persistence import models
from taskflow.types.failure import Failure

from virtflow.engine.executor import BarrierExecutor
from virtflow.engine.run import FlowRun
from virtflow.engine.taskflow_engine.gate import FlowGate
from virtflow.engine.taskflow_engine.loop import FlowLoop
from virtflow.engine.taskflow_engine.runtime import FlowRuntime
from virtflow.engine.taskflow_engine.storage import FlowStorage
from virtflow.engine.taskflow_engine.template import Template


class FlowEngine(engine.ActionEngine):
    """Runs one flow detail of a template. Serial where the graph is a line, parallel where it is not.

    A ``forward_only`` flow stops at a failing task and reverts nothing.
    """

    def __init__(
        self,
        template: Template,
        flow_detail: models.FlowDetail,
        flow_run: FlowRun,
        services: Mapping[str, Any],
        *,
        forward_only: bool = False,
    ) -> None:
        operation_run = flow_run.operation_run
        options = {"defer_reverts": True, "gather_statistics": False, "never_resolve": forward_only}
        super().__init__(template.flow, flow_detail, operation_run.backend, options)
        self._template = template
        self._storage_ensured: bool = False
        self._runtime: Any = None
        self._flow_run = flow_run
        self._services = services
        self._task_executor = BarrierExecutor(flow_run, operation_run.pool)

    @cached_property
    def storage(self) -> FlowStorage:
        return FlowStorage(self._template, self._flow_detail, self._backend, self._flow_run)

    def compile(self) -> None:
        if self._runtime is not None:
            return
        self._compilation = self._template.compilation
        self._runtime = FlowRuntime(
            self._template,
            self.storage,
            self.atom_notifier,
            self._task_executor,
            self._retry_executor,
            options=self._options,
        )
        self._runtime.compile()
        self._compiled = True

    def prepare(self) -> None:
        if self._storage_ensured:
            return
        self.compile()
        self._check_graph()
        self._ensure_storage()
        self.storage.use_services(self._services)
        if self.storage.get_flow_state() not in (states.PENDING, states.SUSPENDED):
            # RUNNING, SUSPENDING, RESUMING: the process died there. SUCCESS, FAILURE, REVERTED: an undo, which has set
            # the intentions. Either way the flow runs, and what it does follows from its atoms.
            self._flow_detail.state = states.SUSPENDED
        self._storage_ensured = True

    def validate(self) -> None:
        names = frozenset(self._services)
        if names in self._template.validated:
            self._validated = True
            return
        super().validate()
        self._template.validated.add(names)

    def run_iter(self, timeout: float | None = None) -> Generator[str, bool | None, None]:
        """Run, yielding each state of the loop; a true value sent back suspends, and so does closing the iterator."""
        self.compile()
        self.prepare()
        self.validate()
        with self._executors():
            self._change_state(states.RUNNING)
            gate = self._flow_run.operation_run.gate
            asked = None if gate is None else FlowGate(gate, self._flow_run, self._runtime)
            loop = FlowLoop(self._runtime, self._task_executor, timeout, asked)
            closed = False
            state = states.RUNNING
            try:
                for state in loop.states():
                    if state == states.FAILURE:
                        Failure.reraise_if_any(loop.failures)
                    if closed:
                        continue
                    try:
                        if (yield state):
                            self.suspend()
                    except GeneratorExit:
                        closed = True
                        self.suspend()
                    except Exception:  # noqa: BLE001 - thrown in by the caller: ends the run like a failing task
                        closed = True
                        loop.failures.append(Failure())
            except Exception:
                with suppress(exc.InvalidState):
                    self._change_state(states.FAILURE)
                raise
            self._change_state(state)
            if state not in self.NO_RERAISING_STATES:
                found = chain(self.storage.get_execute_failures().values(), self.storage.get_revert_failures().values())
                Failure.reraise_if_any(found)

    def _executors(self) -> ExitStack:
        """Starts the executors that this flow needs, and stops them at the end of the block."""
        stack = ExitStack()
        for executor in (self._task_executor, self._retry_executor)[: 1 + self._template.has_retries]:
            executor.start()
            stack.callback(executor.stop)
        return stack

    def _check_graph(self) -> None:
        known = {atom.name for atom in self._template.atoms}
        stored = {detail.name for detail in self._flow_detail}
        gone = sorted(stored - known)
        if gone:
            raise exc.CompilationFailure(f"tasks {', '.join(gone)} are not in the flow any more")
