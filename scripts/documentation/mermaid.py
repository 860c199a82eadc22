"""A flow's graph as a Mermaid flowchart, for pages that are read where Mermaid is drawn."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.documentation.flow_graphs import Graph, Node


def mermaid(graph: Graph) -> str:
    """The whole flowchart. Edges carry the values that cause them."""
    lines = ["flowchart TD", *_body(graph, "  ")]
    announcing = [node.name for node in _all(graph) if node.announces]
    lines += ["  classDef announces fill:#dbe9fb,stroke:#3b74bd,color:#10243e"]
    lines += [f"  class {','.join(announcing)} announces"] if announcing else []
    return "\n".join(lines) + "\n"


def _body(graph: Graph, indent: str) -> Iterator[str]:
    for node in graph.nodes:
        if node.segment is None:
            yield f"{indent}{node.name}"
        else:
            yield f'{indent}subgraph {node.name}["{node.name}: segment {node.segment.flow}"]'
            yield from _body(node.segment, indent + "  ")
            yield f"{indent}end"
    for (before, after), values in graph.edges.items():
        label = f"|{', '.join(values)}|" if values else ""
        yield f"{indent}{before} -->{label} {after}"


def _all(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        if node.segment is not None:
            yield from _all(node.segment)
