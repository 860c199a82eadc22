"""Where the nodes of the graph stand: layers from top to bottom, segments framed below the task that ran them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 157, 26
COLUMN_GAP, ROW_GAP = 9, 16
FRAME_HEAD, FRAME_PAD, INDENT = 28, 12, 24
TRUNK = 14
"""Pixels from a node's left edge to where its lines come and go."""
COLUMNS = 3
"""A layer of more nodes is broken into several rows."""
LANE_GAP, LANES = 7, 6

Edge = tuple[int, int]


@dataclass(frozen=True)
class Block:
    """A flow to lay out: its nodes by number, edges between them, and the flows that a node of it ran."""

    nodes: Sequence[int]
    edges: Sequence[Edge]
    children: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Frame:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """Pixels from the top left. ``routes``: (from, to, [x1, y1, x2, y2, ...]) with right-angled corners."""

    places: Mapping[int, tuple[float, float]]
    frames: Mapping[int, Frame]
    routes: Sequence[tuple[int, int, list[float]]]
    width: float
    height: float


def picture(blocks: Sequence[Block], roots: Iterable[int]) -> Picture:
    """Lay out the blocks, the roots below each other, children within their parents."""
    canvas = _Canvas(blocks)
    bottom = 0.0
    for root in roots:
        bottom = canvas.place(root, 0.0, bottom) + ROW_GAP
    width = max((frame.x + frame.width for frame in canvas.frames.values()), default=0.0)
    return Picture(canvas.places, canvas.frames, canvas.routes, width + 1, max(0.0, bottom - ROW_GAP) + 1)


class _Canvas:
    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self.places: dict[int, tuple[float, float]] = {}
        self.frames: dict[int, Frame] = {}
        self.routes: list[tuple[int, int, list[float]]] = []

    def place(self, number: int, left: float, top: float) -> float:
        """Place a block with its frame; returns where it ends."""
        block = self._blocks[number]
        edges = essential(block.nodes, block.edges)
        lines = rows(block.nodes, edges)
        y, x, right = top + FRAME_HEAD, left + FRAME_PAD, left + FRAME_PAD + NODE_WIDTH
        extents: list[float] = []
        for line in lines:
            for column, node in enumerate(line):
                self.places[node] = (x + column * (NODE_WIDTH + COLUMN_GAP), y)
            extent = x + len(line) * (NODE_WIDTH + COLUMN_GAP) - COLUMN_GAP
            y += NODE_HEIGHT + ROW_GAP
            for child in (child for node in line for child in block.children.get(node, ())):
                y = self.place(child, x + INDENT, y) + ROW_GAP
                extent = max(extent, self.frames[child].x + self.frames[child].width)
            extents.append(extent)
            right = max(right, extent)
        right = max(right, self._route(edges, lines, extents))
        height = y - ROW_GAP + FRAME_PAD - top if lines else FRAME_HEAD
        self.frames[number] = Frame(left, top, right + FRAME_PAD - left, height)
        return top + height

    def _route(self, edges: Sequence[Edge], lines: Sequence[Sequence[int]], extents: Sequence[float]) -> float:
        """Lines to the next row go there; longer ones in a lane beside what they pass, one for all of a node."""
        row_of = {node: row for row, line in enumerate(lines) for node in line}
        lanes: list[tuple[int, int]] = []
        furthest = 0.0
        for before, after in sorted(edges, key=lambda edge: (row_of[edge[0]], row_of[edge[1]], edge)):
            (x1, y1), (x2, y2) = self.places[before], self.places[after]
            start, end = (x1 + TRUNK, y1 + NODE_HEIGHT), (x2 + TRUNK, y2)
            near, far = start[1] + ROW_GAP / 2, end[1] - ROW_GAP / 2
            if row_of[after] == row_of[before] + 1 or (start[0] == end[0] and self._free(before, after, row_of, lines)):
                points = [*start, start[0], near, end[0], near, *end] if start[0] != end[0] else [*start, *end]
            else:
                passed = extents[row_of[before] : row_of[after]] or [0.0]
                lane = max(passed) + LANE_GAP * (1 + _lane(lanes, before, row_of[before], row_of[after]))
                points = [*start, start[0], near, lane, near, lane, far, end[0], far, *end]
                furthest = max(furthest, lane)
            self.routes.append((before, after, points))
        return furthest

    def _free(self, before: int, after: int, row_of: Mapping[int, int], lines: Sequence[Sequence[int]]) -> bool:
        """Whether a straight line between two nodes of one column meets no node on its way."""
        x = self.places[before][0]
        return all(self.places[node][0] != x for row in range(row_of[before] + 1, row_of[after]) for node in lines[row])


def _lane(lanes: list[tuple[int, int]], source: int, first: int, last: int) -> int:
    """The first lane that is free from a row on, or that the same source uses already. Few: the last is shared.

    ``lanes``: of each, who uses it and to which row. Asked for in the order of the first rows.
    """
    for number, (other, end) in enumerate(lanes):
        if other == source or end <= first:
            lanes[number] = (source, max(end, last))
            return number
    if len(lanes) < LANES:
        lanes.append((source, last))
    return len(lanes) - 1


def rows(nodes: Sequence[int], edges: Sequence[Edge]) -> list[list[int]]:
    """The layers: each node as high as what comes before it allows, near what it comes after; wide layers broken."""
    order, befores = _sorted(nodes, edges)
    depth: dict[int, int] = {}
    for node in order:
        depth[node] = max((depth[before] + 1 for before in befores[node]), default=0)
    layers: list[list[int]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        layers[depth[node]].append(node)
    column: dict[int, float] = {}
    position = {node: place for place, node in enumerate(nodes)}
    for layer in layers:
        middle = {n: sum(column[b] for b in befores[n]) / len(befores[n]) if befores[n] else 0.0 for n in layer}
        layer.sort(key=lambda node, middle=middle: (middle[node], position[node]))  # type: ignore[misc]
        column.update({node: float(place) for place, node in enumerate(layer)})
    return [layer[start : start + COLUMNS] for layer in layers for start in range(0, len(layer), COLUMNS)]


def essential(nodes: Sequence[int], edges: Iterable[Edge]) -> list[Edge]:
    """The edges that others do not imply (the transitive reduction): fewer lines that say the same."""
    order, befores = _sorted(nodes, list(edges))
    above: dict[int, int] = {}
    bit = {node: 1 << place for place, node in enumerate(order)}
    kept = []
    for node in order:
        reached = 0
        for before in befores[node]:
            reached |= above[before]
        kept += [(before, node) for before in befores[node] if not reached & bit[before]]
        for before in befores[node]:
            reached |= bit[before]
        above[node] = reached
    return kept


def _sorted(nodes: Sequence[int], edges: Sequence[Edge]) -> tuple[list[int], dict[int, list[int]]]:
    """A topological order, and who comes before whom. Edges of a circle, which no flow has, are left out."""
    known = set(nodes)
    befores: dict[int, list[int]] = {node: [] for node in nodes}
    afters: dict[int, list[int]] = {node: [] for node in nodes}
    for before, after in dict.fromkeys(edges):
        if before in known and after in known and before != after:
            befores[after].append(before)
            afters[before].append(after)
    waiting = {node: len(befores[node]) for node in nodes}
    ready = [node for node in nodes if not waiting[node]]
    order: list[int] = []
    for node in ready:
        order.append(node)
        for after in afters[node]:
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    rest = [node for node in nodes if waiting[node]]
    place = {node: index for index, node in enumerate([*order, *rest])}
    return [*order, *rest], {n: [b for b in befores[n] if place[b] < place[n]] for n in nodes}
