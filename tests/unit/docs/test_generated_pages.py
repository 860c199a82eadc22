"""Pages that follow from the code are what the code makes of them, and pictures show what the flows are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree
from taskflow.patterns import graph_flow, linear_flow, unordered_flow

from scripts.documentation.flow_graphs import Graph, graph_of, operations
from scripts.documentation.layout import lay_out
from scripts.documentation.mermaid import mermaid
from scripts.documentation.pages import differing, replaced
from scripts.documentation.svg import svg
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry, default_registry
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.segments import OnHost

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("script", ["flow-diagrams", "reference-pages"])
def test_what_is_checked_in_is_what_the_script_makes(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_a_page_that_was_edited_or_is_missing_is_found() -> None:
    readme = (ROOT / "README.md").read_text()
    assert differing({"README.md": readme}) == []
    assert differing({"README.md": readme + "x", "docs/none.md": ""}) == ["README.md", "docs/none.md"]


def test_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no part marked 'nothing'"):
        replaced("README.md", "nothing", "")


class Make(Task):
    def intents(self, **_arguments: object) -> tuple[Intent, ...]:
        return (Intent("thing", "1"),)

    def execute(self) -> None: ...


class Look(Task):
    def execute(self) -> None: ...


class MakeOfBoth(Make):
    def execute(self, a: object, b: object) -> None: ...


class LookAtFirst(Task):
    def execute(self, a: object, made: object) -> None: ...


def _segment(_shape: object) -> graph_flow.Flow:
    first, second = Make("First", provides="a"), Look("Second", provides="b")
    return graph_flow.Flow("whole.host").add(first, second, MakeOfBoth("Both", provides="made"), LookAtFirst("Last"))


def _whole(_shape: object) -> linear_flow.Flow:
    host = OnHost("whole.host", name="AllOnHost", requires=(), provides=())
    return linear_flow.Flow("whole").add(
        Look("Host", provides="host"), unordered_flow.Flow("pair").add(Make("Left"), Look("Right")), host, Look("End")
    )


@pytest.fixture
def registry() -> Registry:
    return Registry((FlowKind("whole", 1, _whole), FlowKind("whole.host", 1, _segment)))


@pytest.fixture
def graph(registry: Registry) -> Graph:
    (kind,) = operations(registry)
    return graph_of(kind, registry)


def test_a_segment_is_no_operation_but_stands_inside_its_task(graph: Graph) -> None:
    assert [node.name for node in graph.nodes if node.segment] == ["AllOnHost"]
    inner = next(node.segment for node in graph.nodes if node.segment)
    assert inner.edges[("First", "Both")] == ("a",)
    assert inner.edges[("Second", "Both")] == ("b",)


def test_an_arrow_that_follows_from_others_is_left_out(graph: Graph) -> None:
    inner = next(node.segment for node in graph.nodes if node.segment)
    assert set(inner.edges) == {("First", "Both"), ("Second", "Both"), ("Both", "Last")}


def test_flows_within_a_flow_are_looked_through(graph: Graph) -> None:
    assert set(graph.edges) == {
        ("Host", "Left"), ("Host", "Right"), ("Left", "AllOnHost"), ("Right", "AllOnHost"), ("AllOnHost", "End")
    }  # fmt: skip


def test_mermaid_nests_the_segment_and_marks_what_announces(graph: Graph) -> None:
    text = mermaid(graph)
    start = text.index('subgraph AllOnHost["AllOnHost: segment whole.host"]')
    assert "First -->|a| Both" in text[start : text.index("end\n", start)]
    assert "class Left,First,Both announces" in text


def test_the_picture_has_a_box_for_every_task_and_an_arrow_for_every_edge(graph: Graph) -> None:
    picture = etree.fromstring(svg(graph).encode())
    inner = next(node.segment for node in graph.nodes if node.segment)
    names = {text.text for text in picture.iter(f"{SVG}text") if text.get("class") == "name"}
    assert names == {node.name for node in (*graph.nodes, *inner.nodes)} - {"AllOnHost"}
    assert "AllOnHost" in {text.text for text in picture.iter(f"{SVG}text")}
    arrows = [path for path in picture.iter(f"{SVG}path") if path.get("class") == "edge"]
    between_rows = 2  # to the segment and from it, whatever how many tasks are before and behind
    assert len(arrows) == len(inner.edges) + 2 + between_rows


@pytest.mark.parametrize("kind", operations(default_registry()), ids=lambda kind: kind.name)
def test_no_boxes_overlap_and_all_are_on_the_page(kind: FlowKind) -> None:
    picture = etree.fromstring(svg(graph_of(kind, default_registry())).encode())
    width, height = float(picture.get("width")), float(picture.get("height"))
    boxes = [
        tuple(float(rect.get(side)) for side in ("x", "y", "width", "height"))
        for rect in picture.iter(f"{SVG}rect")
        if rect.get("class") != "segment"
    ]
    for number, (x, y, wide, high) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height
        for other_x, other_y, other_wide, other_high in boxes[:number]:
            assert x + wide <= other_x or other_x + other_wide <= x or y + high <= other_y or other_y + other_high <= y


def test_the_spawn_is_drawn_without_crossings() -> None:
    """Three tasks start at once; in the order in which they are written down, their arrows would cross."""
    registry = default_registry()
    layout = lay_out(graph_of(registry.newest("spawn.host"), registry))
    firsts = sorted(("MakeInstanceDir", "FetchBase", "AllocatePorts"), key=lambda name: layout.boxes[name].y)
    assert firsts == ["FetchBase", "MakeInstanceDir", "AllocatePorts"]
