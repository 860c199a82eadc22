"""What a request would do, found out without doing it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx
from taskflow.task import Task

from virtflow.engine.flow_driver import Templates
from virtflow.errors import Busy
from virtflow.flows.kind import FlowKind, Preview
from virtflow.persistence.operations import OperationRepository, new_operation
from virtflow.tasks.segments import OnHost

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.requests import Request


@dataclass(frozen=True)
class PlannedTask:
    """``does`` is the first sentence of the task's own description."""

    flow: str
    name: str
    does: str
    revertible: bool


@dataclass(frozen=True)
class Plan:
    """Tasks in the order in which they could run, what they would make, and the domain's XML where there is one."""

    kind: str
    target: str
    host: str
    tasks: tuple[PlannedTask, ...]
    resources: tuple[tuple[str, str], ...]
    domain_xml: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "kind": self.kind,
            "target": self.target,
            "host": self.host,
            "tasks": [vars(task) for task in self.tasks],
            "resources": [{"kind": kind, "identity": identity} for kind, identity in self.resources],
            "domain_xml": self.domain_xml,
        }


def make_plan(
    request: Request, templates: Templates, services: Mapping[str, Any], config: Config, operations: OperationRepository
) -> Plan:
    """Plan a request, changing nothing. Raises what would refuse it: NotFound, QuotaExceeded, Busy ..."""
    kind = templates.registry.newest(request.kind)
    holder = operations.holder(request.target())
    if holder is not None:
        raise Busy(target=request.target(), operation=holder.id, operation_kind=holder.kind)
    operation = new_operation(kind.name, kind.version, request.target(), request.to_plain(), config.project_name)
    inputs = kind.inputs(operation)
    found = Preview() if kind.preview is None else kind.preview(inputs, services)
    return Plan(
        kind=kind.name,
        target=request.target(),
        host=config.host,
        tasks=tuple(_tasks(templates, kind, {**inputs, **found.results})),
        resources=found.resources,
        domain_xml=found.domain_xml,
    )


def _tasks(templates: Templates, kind: FlowKind, inputs: Mapping[str, Any]) -> Iterator[PlannedTask]:
    template = templates.get(kind, inputs)
    graph = template.compilation.execution_graph
    for node in networkx.lexicographical_topological_sort(graph, key=_position(template.atoms)):
        if not isinstance(node, Task):
            continue
        does = (inspect.getdoc(type(node)) or "").split("\n\n")[0].replace("\n", " ")
        yield PlannedTask(kind.name, node.name, does, type(node).revert is not Task.revert)
        if isinstance(node, OnHost):
            yield from _tasks(templates, templates.registry.newest(node.segment), inputs)


def _position(atoms: list[Any]) -> Any:
    order = {atom: number for number, atom in enumerate(atoms)}
    return lambda node: order.get(node, -1)
