"""Drives one flow of an operation: loads or makes its detail, runs it, or undoes it."""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from taskflow import exceptions as taskflow_errors
from taskflow import states
from taskflow.persistence import models

from virtflow.engine.run import FlowRun, OperationRun
from virtflow.engine.taskflow_engine import FlowEngine, Template
from virtflow.errors import FlowChanged
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence.models.engine import journal

_UNTOUCHED = (states.PENDING, states.REVERTED, states.IGNORE)


class Templates:
    """Compiled flows, one per kind, version and shape. Thread-safe."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._lock = threading.Lock()
        self._compiled: dict[tuple[str, int, Hashable], Template] = {}

    def get(self, kind: FlowKind, inputs: Mapping[str, Any]) -> Template:
        shape = kind.shape(inputs)
        key = (kind.name, kind.version, shape)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = Template(kind.build(shape))
            return self._compiled[key]


class FlowDriver:
    """One flow within an operation run. ``inputs`` are stored with the flow and are what its tasks start from."""

    def __init__(self, run: OperationRun, templates: Templates, kind: FlowKind, detail: models.FlowDetail) -> None:
        self._operation_run = run
        self.kind = kind
        self.detail = detail
        inputs = detail.meta["inputs"]
        attempts = _attempts(run, detail.uuid) if len(detail) else {}
        self.flow_run = FlowRun(run, detail.uuid, kind.name, attempts)
        self._template = templates.get(kind, inputs)
        services: Mapping[str, Any] = ChainMap(inputs, run.services)  # type: ignore[arg-type]
        self.engine = FlowEngine(self._template, detail, self.flow_run, services, forward_only=kind.forward_only)

    @classmethod
    def create(
        cls, run: OperationRun, templates: Templates, kind: FlowKind, uuid: str, inputs: Mapping[str, Any]
    ) -> FlowDriver:
        """A new flow; its row is written with the first barrier."""
        detail = models.FlowDetail(kind.name, uuid)
        detail.meta = {"kind": kind.name, "version": kind.version, "host": run.host, "inputs": dict(inputs)}
        run.backend.get_connection().add_flow(run.operation, detail)
        return cls(run, templates, kind, detail)

    @classmethod
    def load(cls, run: OperationRun, templates: Templates, uuid: str) -> FlowDriver | None:
        """An existing flow as it was stored, or None. Raises UnknownFlow when its version is not registered."""
        try:
            detail = run.backend.get_connection().get_flow_details(uuid)
        except taskflow_errors.NotFound:
            return None
        kind = templates.registry.get(detail.meta["kind"], detail.meta["version"])
        return cls(run, templates, kind, detail)

    @property
    def atoms(self) -> list[models.AtomDetail]:
        return list(self.detail)

    @property
    def template_atoms(self) -> list[Any]:
        """The flow's tasks and retries as today's code has them."""
        return self._template.atoms

    @property
    def has_retries(self) -> bool:
        """Whether parts of the flow may have run several times, with other values each time."""
        return self._template.has_retries

    @property
    def finished(self) -> bool:
        """Whether every task has run: such a flow is never run again, only undone."""
        return bool(len(self.detail)) and all(atom.state in (states.SUCCESS, states.IGNORE) for atom in self.detail)

    @property
    def untouched(self) -> bool:
        """Whether no task has run, or all that did was taken back."""
        return all(atom.state in _UNTOUCHED for atom in self.detail)

    def run(self, *, until: str | None = None) -> None:
        """Run to the end, or until the task ``until`` has finished. What a failing task raised is raised."""
        if self.kind.forward_only:
            self._forget_failures()
        self._guarded(lambda: self._advance(until))

    def undo(self) -> None:
        """Revert everything that was executed, in reverse order. Does nothing that was done before."""
        self._guarded(self._unwind)

    def settle(self) -> None:
        """After a run that raised: revert what the engine left standing because it stumbled itself.

        TaskFlow reverts when a task fails. When it cannot even start one (an argument that nobody provided), it stops
        where it is.
        """
        if not self.kind.forward_only and not self.untouched:
            self.undo()

    def results(self) -> dict[str, Any]:
        """The flow's outputs by name; the engine may be one that has not run it."""
        if self.kind.outputs:
            self.engine.compile()
            self.engine.prepare()
        return {name: self.engine.storage.fetch(name) for name in self.kind.outputs}

    def _advance(self, until: str | None = None) -> None:
        storage = self.engine.storage
        suspend = self._operation_run.suspend
        suspended = False
        for _state in self.engine.run_iter():
            if suspended:
                continue
            if suspend.is_set() or (until is not None and storage.get_atom_state(until) == states.SUCCESS):
                suspended = True
                self.engine.suspend()

    def _unwind(self) -> None:
        self.engine.compile()
        self.engine.prepare()
        storage = self.engine.storage
        for atom in self.detail:
            if atom.state not in _UNTOUCHED:
                storage.set_atom_intention(atom.name, states.REVERT)
        if self.untouched:
            return
        try:
            self._advance()
        except Exception:
            # The engine raises the failures it finds in its store again, old ones too: an undo that has taken
            # everything back has succeeded all the same.
            if not self.untouched:
                raise

    def _forget_failures(self) -> None:
        self.engine.compile()
        self.engine.prepare()
        for atom in self.detail:
            if atom.state == states.FAILURE:
                self.engine.storage.reset(atom.name)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except taskflow_errors.CompilationFailure as error:
            run = self._operation_run
            raise FlowChanged(operation=run.operation, flow=self.kind.name, reason=str(error)) from error


def _attempts(run: OperationRun, flow: str) -> dict[str, int]:
    """How often each task was started, from the journal."""
    with run.recorder.writer.database.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(_starts(), {"its_id": flow})}


@cache
def _starts() -> sa.Select[Any]:
    begun = journal.c.event == "RUNNING", journal.c.atom.is_not(None)
    query = sa.select(journal.c.atom, sa.func.count()).where(journal.c.flow == sa.bindparam("its_id"), *begun)
    return query.group_by(journal.c.atom)
