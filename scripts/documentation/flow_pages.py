"""The pages and pictures of flows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

from scripts.documentation.flow_graphs import Graph, graph_of, operations
from scripts.documentation.mermaid import mermaid
from scripts.documentation.pages import NOTICE, replaced
from scripts.documentation.svg import svg
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry, default_registry

_FOLDER = "docs/reference/flows"


def flow_pages(registry: Registry | None = None) -> dict[str, str]:
    """Every page and picture by path, and the README with its picture."""
    registry = registry or default_registry()
    pages = {}
    for kind in operations(registry):
        graph = graph_of(kind, registry)
        pages[f"{_FOLDER}/{kind.name}.svg"] = svg(graph)
        pages[f"{_FOLDER}/{kind.name}.md"] = _page(kind, graph, registry)
    pages["README.md"] = replaced("README.md", "spawn flow", f"![The flow spawn]({_FOLDER}/spawn.svg)")
    return pages


def _page(kind: FlowKind, graph: Graph, registry: Registry) -> str:
    parts = [
        NOTICE.format(script="flow-diagrams") + f"# The flow `{kind.name}`",
        *_steps(kind),
        f"![The flow {kind.name}]({kind.name}.svg)",
    ]
    for node in graph.nodes:
        if node.segment is not None:
            parts += [f"## `{node.name}`: the segment `{node.segment.flow}`"]
            parts += _steps(registry.newest(node.segment.flow))
    parts += [
        "## As a graph",
        "An arrow says that one task waits for another; its label, which values it waits for. What follows from other "
        "arrows is left out. What each task makes, and how it reverts, is in the [task reference](../tasks.md).",
        f"```mermaid\n{mermaid(graph)}```\n",
    ]
    return "\n\n".join(parts)


def _steps(kind: FlowKind) -> Iterator[str]:
    """The text and the numbered steps of the flow's module, the steps as they are set there."""
    module = importlib.import_module(kind.build.__module__)
    where = module.__name__.replace(".", "/") + ".py"
    version = f"version {kind.version}, {'forward only, ' if kind.forward_only else ''}`{where}`"
    yield f"({version})"
    for paragraph in (module.__doc__ or "").strip().split("\n\n"):
        yield f"```text\n{paragraph}\n```" if re.match(r"1\. ", paragraph) else paragraph
