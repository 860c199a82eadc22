"""A flow's graph as plain data, recorded when the flow begins: later code may have another one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from taskflow import retry
from taskflow.utils import misc

Scopes = Callable[[str], Iterable[Iterable[str]] | None]


def plain_graph(graph: Any, atoms: Collection[Any], scopes_of: Scopes) -> dict[str, Any]:
    """Nodes in the order in which the flow lists them, and who comes directly before whom.

    ``sources`` of a node tells, for each of its arguments that a task can provide, which tasks: nearest scope first.
    """
    providers = {atom.name: frozenset(atom.save_as) for atom in atoms}
    nodes = [_node(atom, list(_visible(scopes_of(atom.name) or ())), providers) for atom in atoms]
    known = set(atoms)
    edges = [[atom.name, after.name] for atom in atoms for after in _followers(graph, atom, known)]
    return {"nodes": nodes, "edges": edges}


def _node(atom: Any, visible: list[str], providers: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    sources = {
        argument: found
        for argument, name in atom.rebind.items()
        if (found := [provider for provider in visible if name in providers[provider]])
    }
    return {
        "name": atom.name,
        "kind": "retry" if isinstance(atom, retry.Retry) else "task",
        "version": misc.get_version_string(atom),
        "requires": dict(atom.rebind),
        "revert_requires": dict(atom.revert_rebind),
        "provides": dict(atom.save_as),
        "sources": sources,
    }


def _visible(scopes: Iterable[Iterable[str]]) -> Iterator[str]:
    for level in scopes:
        yield from level


def _followers(graph: Any, atom: Any, known: set[Any]) -> list[Any]:
    """The atoms that come directly after one, beyond the nodes that stand for flows."""
    found: dict[Any, None] = {}
    waiting, seen = list(graph.successors(atom)), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in known:
            found[node] = None
        else:
            waiting += graph.successors(node)
    return sorted(found, key=lambda node: str(node.name))
