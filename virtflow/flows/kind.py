"""What a flow is to the engine: a name, a version, a graph, and what it starts from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskflow.flow import Flow

from virtflow.persistence.operations import Operation


def operation_inputs(operation: Operation) -> dict[str, Any]:
    """What every parent flow starts from."""
    return {"operation": operation.id, "request": operation.request, "project": operation.project}


@dataclass(frozen=True)
class Preview:
    """What an operation would make, or take away: ``resources`` are (kind, identity). ``results`` are what its segments
    would start from."""

    resources: tuple[tuple[str, str], ...] = ()
    domain_xml: str | None = None
    results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FlowKind:
    """How to build one flow.

    ``build(shape)`` must give the same graph whenever it is called with the same shape, and ``shape(inputs)`` depends
    on nothing but the stored inputs: a resumed operation meets the graph it was started with. ``outputs`` are the
    names that a segment gives back to its parent. A ``forward_only`` flow is never reverted: it is past the pivot.
    ``inputs`` is what a parent flow starts from. ``check_undo(operation, services, results)`` says why a finished
    operation cannot be undone now; ``results`` are those of its parent flow, by task. Later operations on its target do
    that, too, but for those of a kind in ``undone_with_it``: what they did goes together with what this one has made.
    ``preview(inputs, services)`` works out what it would make, or take away.
    ``shapes`` are the usual shape, and then others that together have every task: for pictures, lists and tests.
    """

    name: str
    version: int
    build: Callable[[Hashable], Flow]
    shape: Callable[[Mapping[str, Any]], Hashable] = lambda _inputs: None
    outputs: tuple[str, ...] = ()
    forward_only: bool = False
    inputs: Callable[[Operation], dict[str, Any]] = operation_inputs
    check_undo: Callable[[Operation, Mapping[str, Any], Mapping[str, Any]], str | None] | None = None
    undone_with_it: tuple[str, ...] = ()
    preview: Callable[[Mapping[str, Any], Mapping[str, Any]], Preview] | None = None
    shapes: tuple[Hashable, ...] = (None,)
