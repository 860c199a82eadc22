"""The storage of one run: reads are lookups, each write is recorded once, with its journal event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oslo_utils import uuidutils
from taskflow import states
from taskflow import storage as taskflow_storage
from taskflow.persistence import models
from taskflow.types.failure import Failure

from virtflow.engine.run import FlowRun
from virtflow.engine.taskflow_engine.template import Template
from virtflow.persistence.backend import FlowBackend
from virtflow.persistence.rows import failure_dict

_TRANSIENT = taskflow_storage._TRANSIENT_PROVIDER


class FlowStorage(taskflow_storage.Storage):
    """Used by the engine's own thread; only ``set_flow_state`` (a request to suspend) may come from another."""

    def __init__(
        self, template: Template, flow_detail: models.FlowDetail, backend: FlowBackend, flow_run: FlowRun
    ) -> None:
        super().__init__(flow_detail, backend=backend, scope_fetcher=template.scopes_of)
        self._template = template
        self._flow_run = flow_run
        self._connection = backend.get_connection()
        self._changing = backend.recorder.lock
        self._new = False

    def use_services(self, services: Mapping[str, Any]) -> None:
        """Make services and inputs visible to tasks by name; never stored, possibly made lazily."""
        self._transients = services
        self._set_result_mapping(_TRANSIENT, {name: name for name in services})

    def ensure_atoms(self, atoms: Iterable[Any]) -> Any:
        """Give a new flow its atoms; an old one gets those that are missing."""
        if len(self._flowdetail):
            return super().ensure_atoms(atoms)
        self._new = True
        for name, detail_class, version in self._template.details:
            detail = detail_class(name, uuidutils.generate_uuid())
            detail.state = states.PENDING
            detail.version = version
            self._flowdetail.add(detail)
            self._atom_name_to_uuid[name] = detail.uuid
            self._failures[name] = {}
        self._connection.update_flow_details(self._flowdetail)
        for atom in self._template.atoms:
            self._set_result_mapping(atom.name, atom.save_as)
        return list(self._atom_name_to_uuid.values())

    # -- reading

    def detail(self, name: str) -> Any:
        return self._flowdetail._atomdetails_by_id[self._atom_name_to_uuid[name]]

    def get_atom_uuid(self, atom_name: str) -> str:
        return str(self._atom_name_to_uuid[atom_name])

    def get_atom_state(self, atom_name: str) -> str:
        return str(self.detail(atom_name).state)

    def get_atom_intention(self, atom_name: str) -> str:
        return str(self.detail(atom_name).intention)

    def get_atoms_states(self, atom_names: Any) -> dict[str, tuple[str, str]]:
        details = {name: self.detail(name) for name in atom_names}
        return {name: (detail.state, detail.intention) for name, detail in details.items()}

    def get_flow_state(self) -> str:
        return str(self._flowdetail.state or states.PENDING)

    def has_failures(self) -> bool:
        return any(self._failures.values())

    def get_task_progress(self, task_name: str) -> float:  # noqa: ARG002
        return 0.0

    def fetch_mapped_args(
        self,
        args_mapping: Mapping[str, str],
        atom_name: str | None = None,
        scope_walker: Any = None,
        optional_args: Any = None,
    ) -> dict[str, Any]:
        """A task's arguments. Those with one possible source are looked up here; validation has found it in scope."""
        if optional_args or self._injected_args.get(atom_name):
            return self._search_mapped_args(args_mapping, atom_name, scope_walker, optional_args)
        arguments = {}
        for bound, name in args_mapping.items():
            providers = self._reverse_mapping.get(name, ())
            if len(providers) != 1:
                return self._search_mapped_args(args_mapping, atom_name, scope_walker, optional_args)
            provider = providers[0]
            if provider.name is _TRANSIENT:
                arguments[bound] = self._transients[name]
                continue
            detail = self.detail(provider.name)
            if type(detail) is not models.TaskDetail or detail.state != states.SUCCESS or provider.index is not None:
                return self._search_mapped_args(args_mapping, atom_name, scope_walker, optional_args)
            arguments[bound] = detail.results
        return arguments

    def _search_mapped_args(self, *args: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = super().fetch_mapped_args(*args)
        return arguments

    def recorded_arguments(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Arguments (bound name -> stored name) from whatever is recorded, also of tasks that are reverted by now."""
        found = {}
        for bound, name in names.items():
            if name in self._transients:
                found[bound] = self._transients[name]
                continue
            for provider in self._reverse_mapping.get(name, ()):
                results = self.detail(provider.name).last_results if provider.name in self._atom_name_to_uuid else None
                if results is not None:
                    found[bound] = results if provider.index is None else results[provider.index]
                    break
        return found

    def arguments_from(self, results: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Those arguments (bound name -> stored name) that the given results (by task) provide."""
        found = {}
        for bound, name in names.items():
            for provider in self._reverse_mapping.get(name, ()):
                if provider.name in results:
                    result = results[provider.name]
                    found[bound] = result if provider.index is None else result[provider.index]
        return found

    # -- writing

    def set_task_progress(self, task_name: str, progress: float, details: Any = None) -> None:
        """The engine's own 0.0 and 1.0 say nothing that the state does not; real progress comes through Activity."""

    def set_atom_state(self, atom_name: str, state: str) -> None:
        detail = self.detail(atom_name)
        if detail.state != state:
            with self._changing:
                detail.state = state
                self._connection.update_atom_details(detail)
                if type(detail) is models.RetryDetail:
                    self._flow_run.retry_transition(atom_name, state)
                elif state == states.PENDING:  # a retry begins anew
                    self._flow_run.transition(atom_name, state)

    def reset(self, atom_name: str, state: str = states.PENDING) -> None:
        """What failed in a forward-only flow is tried again."""
        changes = self.detail(atom_name).state != state
        super().reset(atom_name, state)
        if changes:
            self._flow_run.transition(atom_name, state)

    def set_atom_intention(self, atom_name: str, intention: str) -> None:
        detail = self.detail(atom_name)
        if detail.intention != intention:
            with self._changing:
                detail.intention = intention
                self._connection.update_atom_details(detail)

    def save(self, atom_name: str, result: Any, state: str = states.SUCCESS) -> None:
        detail = self.detail(atom_name)
        with self._changing:
            if detail.put(state, result):
                self._connection.update_atom_details(detail)
            self._flow_run.transition(atom_name, state, _journal_data(result, state))
        if state in (states.FAILURE, states.REVERT_FAILURE):
            # Stored failures lose their tracebacks: these are the better ones.
            self._failures[atom_name][detail.intention] = result
        elif state == states.SUCCESS and detail.intention == states.EXECUTE:
            self._check_all_results_provided(atom_name, result)

    def _with_connection(self, functor: Any, *args: Any, **kwargs: Any) -> Any:
        return functor(self._connection, *args, **kwargs)

    def _save_atom_detail(self, conn: Any, original: models.AtomDetail, changed: models.AtomDetail) -> Any:
        with self._changing:
            original.update(changed)
            conn.update_atom_details(original)
        return original

    def _save_flow_detail(self, conn: Any, original: models.FlowDetail, changed: models.FlowDetail) -> Any:
        if len(changed) != len(original):
            conn.update_flow_details(changed)
        else:
            conn.set_flow_state(changed)
            if changed.state == states.RUNNING:
                self._flow_run.begin(self._template.graph if self._new else None)
                self._new = False
            elif changed.state != original.state:
                self._flow_run.transition(None, changed.state)
        original.update(changed)
        return original


def _journal_data(result: Any, state: str) -> Any:
    if isinstance(result, Failure):
        return {"failure": failure_dict(result)}
    if state == states.REVERTED:
        return result
    return None if result is None else {"result": result}
