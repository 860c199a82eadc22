"""What depends on a flow's graph alone, worked out once for all its runs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from taskflow import retry
from taskflow.engines.action_engine import compiler, runtime, scopes
from taskflow.flow import Flow
from taskflow.persistence import models
from taskflow.utils import misc

from virtflow.engine.taskflow_engine.graph import plain_graph
from virtflow.persistence.models.base import encode


class Template:
    """A flow compiled once. ``validated`` holds the sets of input names with which its arguments were resolved."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.compilation = compiler.PatternCompiler(flow).compile()
        self.validated: set[frozenset[str]] = set()
        graph = self.compilation.execution_graph
        self.kinds = {node: data["kind"] for node, data in graph.nodes(data=True) if data["kind"] in compiler.ATOMS}
        self.atoms = list(self.kinds)
        self.has_retries = compiler.RETRY in self.kinds.values()
        self.details = [(atom.name, _detail_class(atom), misc.get_version_string(atom)) for atom in self.atoms]
        # This method of TaskFlow's looks at nothing but its arguments.
        walk = runtime.Runtime._walk_edge_deciders
        self.edge_deciders = {atom.name: tuple(walk(None, graph, atom)) for atom in self.atoms}
        self._by_name = {atom.name: atom for atom in self.atoms}
        self._scopes: dict[str, list[list[str]]] = {}

    @cached_property
    def graph(self) -> str:
        """The graph as it is recorded with every new flow: JSON, encoded once."""
        return encode(plain_graph(self.compilation.execution_graph, self.atoms, self.scopes_of))

    def scopes_of(self, name: str) -> list[list[str]] | None:
        """The names of the atoms whose results an atom may see, nearest scope first; None for an unknown name."""
        if name not in self._by_name:
            return None
        known = self._scopes.get(name)
        if known is None:
            walker = scopes.ScopeWalker(self.compilation, self._by_name[name], names_only=True)
            known = self._scopes[name] = list(walker)
        return known


def _detail_class(atom: Any) -> Any:
    return models.RetryDetail if isinstance(atom, retry.Retry) else models.TaskDetail
