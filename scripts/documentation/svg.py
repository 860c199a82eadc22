"""A flow's graph as an SVG picture that is legible on light and on dark pages, and in viewers without style sheets."""

from __future__ import annotations

from itertools import pairwise
from xml.sax.saxutils import escape

from scripts.documentation.flow_graphs import Graph, Node
from scripts.documentation.layout import HEIGHT, Box, Layout, lay_out, text_width

_MARGIN = 16
_PADDING = 18
_TITLE = 26
_ROW_GAP = 34
_LONGEST_ROW = 900
_STYLE = """\
text { font: 12px -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933; }
.name { text-anchor: middle; }
.title { font-weight: 600; fill: #5b7fa8; }
.note { font-size: 11px; font-weight: 400; fill: #7b8794; }
.task { fill: #f5f7fa; stroke: #9aa5b1; }
.announces { fill: #dbe9fb; stroke: #3b74bd; }
.segment { fill: #8093a7; fill-opacity: .08; stroke: #8093a7; stroke-dasharray: 5 4; }
.edge { fill: none; stroke: #8093a7; stroke-width: 1.4; }
.head { fill: #8093a7; }
@media (prefers-color-scheme: dark) {
  .task { fill: #27313c; stroke: #7b8794; }
  .announces { fill: #1d3a5f; stroke: #5b9bea; }
  .name { fill: #e8edf2; }
  .note { fill: #9aa5b1; }
}"""


class Picture:
    """Collects shapes; the page grows as they are added."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self.width = 0.0
        self.bottom = float(_MARGIN)

    def box(self, kind: str, x: float, y: float, width: float, height: float) -> None:
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._shapes.append(f'<rect class="{kind}" {size} rx="6"/>')
        self.width = max(self.width, x + width)
        self.bottom = max(self.bottom, y + height)

    def text(self, kind: str, x: float, y: float, text: str, note: str = "") -> None:
        after = f'<tspan class="note" dx="10">{escape(note)}</tspan>' if note else ""
        self._shapes.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}{after}</text>')

    def path(self, line: str, tooltip: str = "") -> None:
        title = f"<title>{escape(tooltip)}</title>" if tooltip else ""
        self._shapes.append(f'<path class="edge" marker-end="url(#head)" d="{line}">{title}</path>')

    def render(self, title: str) -> str:
        width, height = round(self.width + _MARGIN), round(self.bottom + _MARGIN)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        )
        marker = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
        )
        style = f"<style>\n{_STYLE}\n</style>"
        return "\n".join([head, f"<title>{escape(title)}</title>", style, marker, *self._shapes, "</svg>\n"])


def svg(graph: Graph) -> str:
    """Rows of tasks from top to bottom; a segment is a row of its own, with its graph inside."""
    picture = Picture()
    last: Box | None = None
    for row in _rows(graph):
        top = picture.bottom + (_ROW_GAP if last is not None else 0)
        if len(row) == 1 and row[0].segment is not None:
            box = _segment(picture, row[0], row[0].segment, top)
            first, end = box, box
        else:
            first, end = _row(picture, graph, row, top)
        if last is not None:
            picture.path(_down(last, first))
        last = end
    _legend(picture)
    return picture.render(f"The flow {graph.flow}")


def _rows(graph: Graph) -> list[list[Node]]:
    """Layers of the parent flow, broken at segments and where a row would get too long."""
    rows: list[list[Node]] = []
    length = 0.0
    for layer in graph.layers():
        width = max(text_width(node.name) for node in layer) + 48
        alone = any(node.segment is not None for node in layer)
        if alone or not rows or rows[-1][0].segment is not None or length + width > _LONGEST_ROW:
            rows.append([])
            length = 0.0
        rows[-1] += layer
        length += width
    return rows


def _row(picture: Picture, graph: Graph, row: list[Node], top: float) -> tuple[Box, Box]:
    names = {node.name for node in row}
    edges = {edge: values for edge, values in graph.edges.items() if set(edge) <= names}
    part = Graph(graph.flow, tuple(row), edges)
    placed = lay_out(part)
    _draw(picture, part, placed, _MARGIN, top)
    return placed.boxes[row[0].name], placed.boxes[row[-1].name]


def _segment(picture: Picture, node: Node, inner: Graph, top: float) -> Box:
    placed = lay_out(inner)
    width, height = placed.width + 2 * _PADDING, placed.height + 2 * _PADDING + _TITLE
    picture.box("segment", _MARGIN, top, width, height)
    picture.text("title", _MARGIN + _PADDING, top + 22, node.name, f"segment {inner.flow}, on the host")
    _draw(picture, inner, placed, _MARGIN + _PADDING, top + _PADDING + _TITLE)
    return Box(node.name, False, width, height, _MARGIN, top)


def _draw(picture: Picture, graph: Graph, placed: Layout, x: float, y: float) -> None:
    for box in {id(box): box for path in placed.paths.values() for box in path}.values():
        if box.lane:
            box.x, box.y = box.x + x, box.y + y
    for node in graph.nodes:
        box = placed.boxes[node.name]
        box.x, box.y = box.x + x, box.y + y
        picture.box("task announces" if node.announces else "task", box.x, box.y, box.width, HEIGHT)
        picture.text("name", box.x + box.width / 2, box.middle + 4, node.name)
    for edge, path in placed.paths.items():
        picture.path(_across(path), ", ".join(graph.edges[edge]))


def _across(path: list[Box]) -> str:
    """From the right side of the first to the left side of the last, around what is between."""
    line = f"M{path[0].x + path[0].width:g} {path[0].middle:g}"
    for before, after in pairwise(path):
        start, end = before.x + before.width, after.x
        bend = (end - start) / 2
        line += f" C{start + bend:g} {before.middle:g} {end - bend:g} {after.middle:g} {end:g} {after.middle:g}"
    return line


def _down(upper: Box, lower: Box) -> str:
    """From the bottom of one row to the top of the next; straight where one is above the other."""
    y0, y1 = upper.y + upper.height, lower.y
    left, right = max(upper.x, lower.x), min(upper.x + upper.width, lower.x + lower.width)
    if left < right:
        middle = (left + right) / 2
        return f"M{middle:g} {y0:g} V{y1:g}"
    start, end = upper.x + upper.width / 2, lower.x + lower.width / 2
    half = (y0 + y1) / 2
    return f"M{start:g} {y0:g} V{half:g} H{end:g} V{y1:g}"


def _legend(picture: Picture) -> None:
    top = picture.bottom + 22
    picture.box("task announces", _MARGIN, top, 14, 14)
    picture.text("note", _MARGIN + 22, top + 11, "says in the ledger what it is about to make, before it makes it")
    picture.box("task", _MARGIN + 400, top, 14, 14)
    picture.text("note", _MARGIN + 422, top + 11, "announces nothing of its own")
