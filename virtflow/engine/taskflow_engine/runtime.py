"""What TaskFlow's engine asks about atoms, from the template; and how a task changes its state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from taskflow import states
from taskflow.engines.action_engine import compiler, runtime
from taskflow.engines.action_engine.actions import task as task_actions

from virtflow.engine.taskflow_engine.selector import FlowSelector
from virtflow.engine.taskflow_engine.template import Template

_CHECKS = {compiler.TASK: states.check_task_transition, compiler.RETRY: states.check_retry_transition}


class FlowRuntime(runtime.Runtime):
    """TaskFlow's runtime with our selector, and with no work per run that a template can spare it."""

    def __init__(self, template: Template, *args: Any, **kwargs: Any) -> None:
        super().__init__(template.compilation, *args, **kwargs)
        self._template = template

    def compile(self) -> None:
        by_kind = {
            compiler.TASK: self._handlers(compiler.TASK, self.task_action, self.task_scheduler),
            compiler.RETRY: self._handlers(compiler.RETRY, self.retry_action, self.retry_scheduler),
        }
        self._atom_cache = {atom.name: by_kind[kind] for atom, kind in self._template.kinds.items()}

    @cached_property
    def selector(self) -> FlowSelector:
        return FlowSelector(self)

    @cached_property
    def task_action(self) -> FlowTaskAction:
        return FlowTaskAction(self._storage, self._atom_notifier, self._task_executor)

    def fetch_edge_deciders(self, atom: Any) -> Any:
        return self._template.edge_deciders[atom.name]

    def fetch_scopes_for(self, atom_name: str) -> Any:
        return self._template.scopes_of(atom_name)

    def iterate_nodes(self, allowed_kinds: Any) -> Iterator[Any]:
        if allowed_kinds is compiler.ATOMS:
            return iter(self._template.atoms)
        nodes: Iterator[Any] = super().iterate_nodes(allowed_kinds)
        return nodes

    @staticmethod
    def _handlers(kind: str, action: Any, scheduler: Any) -> dict[str, Any]:
        return {
            "check_transition_handler": _CHECKS[kind],
            "change_state_handler": action.change_state,
            "scheduler": scheduler,
            "action": action,
        }


class FlowTaskAction(task_actions.TaskAction):
    """State changes of tasks. Progress, 0.0 and 1.0 here, is told to who listens to the task and never stored."""

    def change_state(
        self, task: Any, state: str, progress: Any = None, result: Any = task_actions.base.Action.NO_RESULT
    ) -> None:
        name = task.name
        old_state = self._storage.get_atom_state(name)
        if state in self.SAVE_RESULT_STATES:
            self._storage.save(name, None if result is self.NO_RESULT else result, state)
        elif state == old_state:
            return
        else:
            self._storage.set_atom_state(name, state)
        details = {"task_name": name, "task_uuid": self._storage.get_atom_uuid(name), "old_state": old_state}
        if result is not self.NO_RESULT:
            details["result"] = result
        self._notifier.notify(state, details)
        if progress is not None and len(task.notifier):
            task.update_progress(progress)

    def schedule_execution(self, task: Any) -> Any:
        self.change_state(task, states.RUNNING, progress=0.0)
        arguments = self._storage.fetch_mapped_args(task.rebind, atom_name=task.name, optional_args=task.optional)
        return self._task_executor.execute_task(task, self._storage.get_atom_uuid(task.name), arguments)
