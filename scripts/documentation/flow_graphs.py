"""The graph of a flow as a person sees it: tasks and what waits for what, without TaskFlow's own nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import networkx
from taskflow.task import Task as TaskflowTask

from virtflow.engine.taskflow_engine import Template
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.tasks.base import Task
from virtflow.tasks.segments import OnHost


@dataclass(frozen=True)
class Node:
    """``announces``: it writes what it is about to make to the ledger first. ``segment`` is the flow it runs."""

    name: str
    announces: bool
    segment: Graph | None = None


@dataclass(frozen=True)
class Graph:
    """``edges`` are (from, to) by name, with the values that cause them; what follows from others is left out."""

    flow: str
    nodes: tuple[Node, ...]
    edges: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def layers(self) -> list[list[Node]]:
        """Nodes that could run at the same time, in the order in which the layers run."""
        nodes = {node.name: node for node in self.nodes}
        order = {name: number for number, name in enumerate(nodes)}
        graph: Any = networkx.DiGraph()
        graph.add_nodes_from(nodes)
        graph.add_edges_from(self.edges)
        return [
            [nodes[name] for name in sorted(layer, key=order.__getitem__)]
            for layer in networkx.topological_generations(graph)
        ]


def operations(registry: Registry) -> list[FlowKind]:
    """The flows that are no segment of another."""
    kinds = [registry.newest(name) for name in registry.names()]
    segments = {atom.segment for kind in kinds for atom in usual(kind).atoms if isinstance(atom, OnHost)}
    return [kind for kind in kinds if kind.name not in segments]


def usual(kind: FlowKind) -> Template:
    """The flow in its usual shape."""
    return Template(kind.build(kind.shapes[0]))


def graph_of(kind: FlowKind, registry: Registry) -> Graph:
    """The graph of a flow, with those of its segments inside."""
    template = usual(kind)
    full = _between_atoms(template.compilation.execution_graph, template.atoms)
    reduced = networkx.transitive_reduction(full)
    edges = {
        (before.name, after.name): tuple(sorted(full.edges[before, after].get("reasons", ())))
        for before, after in sorted(reduced.edges, key=lambda edge: (edge[0].name, edge[1].name))
    }
    return Graph(kind.name, tuple(_node(atom, registry) for atom in template.atoms), edges)


def _between_atoms(graph: Any, atoms: list[Any]) -> Any:
    """The graph without the nodes that stand for flows: who came before one comes before who came after it."""
    contracted = networkx.DiGraph()
    contracted.add_nodes_from(graph.nodes)
    contracted.add_edges_from(graph.edges(data=True))
    for node in [node for node in contracted.nodes if node not in set(atoms)]:
        contracted.add_edges_from((b, a) for b in list(contracted.pred[node]) for a in list(contracted.succ[node]))
        contracted.remove_node(node)
    return contracted


def _node(atom: Any, registry: Registry) -> Node:
    segment = graph_of(registry.newest(atom.segment), registry) if isinstance(atom, OnHost) else None
    announces = isinstance(atom, TaskflowTask) and isinstance(atom, Task) and type(atom).intents is not Task.intents
    return Node(atom.name, announces, segment)
