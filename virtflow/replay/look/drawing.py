"""``replay graph``: the flows as they were, each task in the colour of its state: for Graphviz, Mermaid, or as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from virtflow.replay.history import parent_task, states_at
from virtflow.replay.look.lines import one_line
from virtflow.replay.recording import RecordedFlow, Recording
from virtflow.replay.report.layout import FRAME_HEAD, NODE_HEIGHT, NODE_WIDTH, Block, Picture, picture

_COLOURS = {
    "SUCCESS": ("#d8f0dd", "#2f855a"),
    "RUNNING": ("#d6eefc", "#2b6cb0"),
    "FAILURE": ("#fbdcdc", "#c53030"),
    "DEBT": ("#f6a5a5", "#9b2c2c"),
    "REVERT_FAILURE": ("#f6a5a5", "#9b2c2c"),
    "REVERTING": ("#fdf0cf", "#b7791f"),
    "REVERTED": ("#fdf0cf", "#b7791f"),
    "RETRYING": ("#fdf0cf", "#b7791f"),
}
_OTHER = ("#f5f7fa", "#9aa5b1")
_TEXT = "#1f2933"
_LETTERS = 22
_MARGIN = 12


@dataclass(frozen=True)
class Drawn:
    """A flow to be drawn; ``below`` is the task of the parent flow that ran it."""

    number: int
    flow: RecordedFlow
    below: str | None
    states: Mapping[str, str]

    @property
    def title(self) -> str:
        return f"{one_line(self.flow.kind, 60)} on {one_line(self.flow.host or '?', 60)}"


def drawn(recording: Recording, at: int | None = None) -> list[Drawn]:
    """All flows, with the states after the first ``at`` events, or after all."""
    states = states_at(recording.events[:at])
    found = []
    for number, flow in enumerate(recording.flows):
        its = {node.name: states.get((flow.uuid, node.name), "PENDING") for node in flow.graph.nodes}
        found.append(Drawn(number, flow, parent_task(recording, flow), its))
    return found


def dot(recording: Recording, at: int | None = None) -> str:
    """For Graphviz. A segment is a cluster, to which its task points."""
    look = 'shape=box, style="rounded,filled", fontname="sans-serif"'
    lines = ["digraph operation {", "  rankdir=TB;", "  compound=true;", f"  node [{look}];"]
    for each in drawn(recording, at):
        lines += [f"  subgraph cluster_{each.number} {{", f"    label={_quoted(each.title)};"]
        for node in each.flow.graph.nodes:
            fill, edge = _COLOURS.get(each.states[node.name], _OTHER)
            shape = ", shape=hexagon" if node.kind == "retry" else ""
            tip = f', tooltip="{each.states[node.name]}"'
            look = f'fillcolor="{fill}", color="{edge}"{shape}{tip}'
            lines.append(f"    {_quoted(f'{each.number}/{node.name}')} [label={_quoted(node.name)}, {look}];")
        lines.append("  }")
        for before, after in each.flow.graph.edges:
            lines.append(f"  {_quoted(f'{each.number}/{before}')} -> {_quoted(f'{each.number}/{after}')};")
        if each.below is not None and each.flow.graph.nodes:
            first = _quoted(f"{each.number}/{each.flow.graph.nodes[0].name}")
            lines.append(f"  {_quoted(f'0/{each.below}')} -> {first} [style=dashed, lhead=cluster_{each.number}];")
    return "\n".join([*lines, "}\n"])


def mermaid(recording: Recording, at: int | None = None) -> str:
    """A Mermaid flowchart. Tasks are numbered, so that no name can be taken for Mermaid's own words."""
    lines = ["flowchart TD"]
    classes: dict[str, list[str]] = {}
    for each in drawn(recording, at):
        names = {node.name: f"t{each.number}_{place}" for place, node in enumerate(each.flow.graph.nodes)}
        lines.append(f'  subgraph f{each.number}["{_entities(each.title)}"]')
        for name, identity in names.items():
            lines.append(f'    {identity}["{_entities(one_line(name, 60))}"]')
            classes.setdefault(each.states[name], []).append(identity)
        lines += [f"    {names[before]} --> {names[after]}" for before, after in each.flow.graph.edges]
        lines.append("  end")
        if each.below is not None and names:
            place = [node.name for node in recording.flows[0].graph.nodes].index(each.below)
            lines.append(f"  t0_{place} -.-> f{each.number}")
    for state, identities in sorted(classes.items()):
        fill, edge = _COLOURS.get(state, _OTHER)
        lines.append(f"  classDef {state} fill:{fill},stroke:{edge},color:{_TEXT}")
        lines.append(f"  class {','.join(identities)} {state}")
    return "\n".join(lines) + "\n"


def svg(recording: Recording, at: int | None = None) -> str:
    """A picture of its own: segments framed below the task that ran them. Legible on light pages and on dark ones."""
    flows = drawn(recording, at)
    numbers: dict[tuple[int, str], int] = {}
    for each in flows:
        for node in each.flow.graph.nodes:
            numbers[each.number, node.name] = len(numbers)
    children: dict[int, list[int]] = {}
    for each in flows[1:]:
        if each.below is not None:
            children.setdefault(numbers[0, each.below], []).append(each.number)
    blocks = [_block(each, numbers, children) for each in flows]
    roots = [each.number for each in flows if each.number == 0 or each.below is None]
    placed = picture(blocks, roots)
    return "\n".join(_shapes(recording, flows, numbers, placed))


def _block(each: Drawn, numbers: Mapping[tuple[int, str], int], children: Mapping[int, list[int]]) -> Block:
    nodes = [numbers[each.number, node.name] for node in each.flow.graph.nodes]
    edges = [(numbers[each.number, one], numbers[each.number, two]) for one, two in each.flow.graph.edges]
    return Block(nodes, edges, children if each.number == 0 else {})


def _shapes(
    recording: Recording, flows: list[Drawn], numbers: Mapping[tuple[int, str], int], placed: Picture
) -> Iterator[str]:
    width, height = round(placed.width + 2 * _MARGIN), round(placed.height + 2 * _MARGIN)
    operation = recording.operation
    title = f"operation {operation.number}: {one_line(operation.kind)} {one_line(operation.target)}"
    size = f'width="{width}" height="{height}" viewBox="{-_MARGIN} {-_MARGIN} {width} {height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(title)}>'
    yield f"<title>{escape(title)}</title>"
    yield '<g font-family="-apple-system, Segoe UI, DejaVu Sans, sans-serif" font-size="12">'
    for each in flows:
        frame = placed.frames[each.number]
        box = f'x="{frame.x:g}" y="{frame.y:g}" width="{frame.width:g}" height="{frame.height:g}"'
        yield f'<rect {box} rx="8" fill="#8093a7" fill-opacity=".08" stroke="#8093a7" stroke-dasharray="5 4"/>'
        at = f'x="{frame.x + 12:g}" y="{frame.y + FRAME_HEAD - 10:g}"'
        yield f'<text {at} fill="#5b7fa8" font-weight="600">{escape(each.title)}</text>'
    for _source, _target, points in placed.routes:
        pairs = " ".join(f"{x:g},{y:g}" for x, y in zip(points[::2], points[1::2], strict=True))
        yield f'<polyline points="{pairs}" fill="none" stroke="#8093a7" stroke-width="1.4"/>'
    for each in flows:
        for node in each.flow.graph.nodes:
            yield _node(node.name, each.states[node.name], *placed.places[numbers[each.number, node.name]])
    yield "</g>\n</svg>\n"


def _node(name: str, state: str, x: float, y: float) -> str:
    fill, edge = _COLOURS.get(state, _OTHER)
    shown = name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
    box = f'x="{x:g}" y="{y:g}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"'
    text = f'x="{x + NODE_WIDTH / 2:g}" y="{y + NODE_HEIGHT / 2 + 4:g}" text-anchor="middle" fill="{_TEXT}"'
    tip = escape(one_line(f"{name}: {state}"))
    return f'<g><title>{tip}</title><rect {box} fill="{fill}" stroke="{edge}"/><text {text}>{escape(shown)}</text></g>'


def _quoted(text: str) -> str:
    plain = one_line(text, 200).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _entities(text: str) -> str:
    return "".join(c if c.isalnum() or c in " _-.:/()" else f"#{ord(c)};" for c in text)
