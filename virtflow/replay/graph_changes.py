"""How a flow's graph has changed since it was recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from virtflow.engine.taskflow_engine import Template
from virtflow.engine.taskflow_engine.graph import plain_graph
from virtflow.replay.recording import GraphNode, RecordedGraph


@dataclass(frozen=True)
class Change:
    """``what``: renamed, removed, added, reordered, version changed, input missing or unknown flow."""

    what: str
    task: str | None
    detail: str


def changes(recorded: RecordedGraph, template: Template, given: Collection[str]) -> tuple[Change, ...]:
    """All changes, those of earlier tasks first. ``given`` are the names of inputs and services."""
    today = _today(template)
    gone = [node for node in recorded.nodes if node.name not in today.by_name]
    new = [node for node in today.nodes if node.name not in recorded.by_name]
    renamed = dict(_renamed(gone, new, recorded, today))
    taken = set(renamed.values())
    found = []
    for node in gone:
        if node.name in renamed:
            found.append(Change("renamed", node.name, f"{node.name} is {renamed[node.name]} today"))
        else:
            found.append(Change("removed", node.name, f"{node.name} is not in the flow any more"))
    added = [node for node in new if node.name not in taken]
    found += [Change("added", node.name, f"{node.name} was not in the flow") for node in added]
    found += _of_common(recorded, today)
    missing = [change for atom in template.atoms for change in _missing(atom, today, given)]
    order = {node.name: place for place, node in enumerate((*recorded.nodes, *new))}
    return tuple(sorted(found + missing, key=lambda change: order.get(change.task or "", 0)))


def _today(template: Template) -> RecordedGraph:
    plain = plain_graph(template.compilation.execution_graph, template.atoms, template.scopes_of)
    nodes = tuple(
        GraphNode(**{**node, "sources": {name: tuple(found) for name, found in node["sources"].items()}})
        for node in plain["nodes"]
    )
    return RecordedGraph(nodes, tuple((before, after) for before, after in plain["edges"]))


def _renamed(
    gone: list[GraphNode], new: list[GraphNode], recorded: RecordedGraph, today: RecordedGraph
) -> Iterator[tuple[str, str]]:
    """A task that is gone and one that is new are the same where they need and give the same, or have one place."""
    left = list(new)
    for node in gone:
        neighbours = recorded.before(node.name), recorded.after(node.name)
        for other in left:
            traded = (node.requires, node.provides) == (other.requires, other.provides)
            if node.kind != other.kind or not recorded.recorded:
                continue
            same_place = (today.before(other.name), today.after(other.name)) == neighbours
            if same_place or (traded and (node.provides or node.requires)):
                left.remove(other)
                yield node.name, other.name
                break


def _of_common(recorded: RecordedGraph, today: RecordedGraph) -> Iterator[Change]:
    common = [node.name for node in recorded.nodes if node.name in today.by_name]
    for name in common:
        then, now = recorded.by_name[name], today.by_name[name]
        if then.version is not None and then.version != now.version:
            yield Change("version changed", name, f"{name} was version {then.version}, and is {now.version} today")
        if then.kind != now.kind:
            yield Change("version changed", name, f"{name} was a {then.kind}, and is a {now.kind} today")
    if not recorded.recorded:
        return
    if set(recorded.edges) == set(today.edges):
        return
    before, after = _ancestors(recorded), _ancestors(today)
    known = set(common)
    for name in common:
        was, is_now = before[name] & known, after[name] & known
        if lost := sorted(was - is_now):
            yield Change("reordered", name, f"{name} came after {', '.join(lost)}, and does not today")
        elif gained := sorted(is_now - was):
            yield Change("reordered", name, f"{name} comes after {', '.join(gained)} today, and did not")


def _ancestors(graph: RecordedGraph) -> Mapping[str, set[str]]:
    """All that comes before each task, at any distance."""
    direct: dict[str, list[str]] = {node.name: [] for node in graph.nodes}
    for first, second in graph.edges:
        direct[second].append(first)
    found: dict[str, set[str]] = {}
    for start in direct:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            ahead = [each for each in direct[name] if each not in found]
            if ahead and name not in found:
                waiting += ahead
                continue
            waiting.pop()
            found.setdefault(name, {*direct[name]}.union(*(found[each] for each in direct[name])))
    return found


def _missing(atom: Any, today: RecordedGraph, given: Collection[str]) -> Iterator[Change]:
    """Names that a task asks for and that neither a task before it nor anything else provides."""
    sources = today.by_name[atom.name].sources
    for argument, name in atom.rebind.items():
        if name in atom.requires and argument not in sources and name not in given:
            yield Change("input missing", atom.name, f"{atom.name} needs {name}, which nothing provides")
    provided = {name for node in today.nodes for name in node.provides}
    asked = set(atom.revert_rebind.values()) - set(atom.revert_optional)
    for name in sorted(asked - provided - set(given) - set(atom.requires)):
        yield Change("input missing", atom.name, f"the revert of {atom.name} needs {name}, which nothing provides")
