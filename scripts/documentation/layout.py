"""Where the boxes of a layered graph go: layers from left to right, few crossings, long edges around the boxes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations

from scripts.documentation.flow_graphs import Graph

HEIGHT = 32
_GAP_X = 26
_GAP_Y = 14
_LANE = 20
"""Room for an edge that passes a layer."""
_PER_CHARACTER = 7.0
_SWEEPS = 5
_TRIED = 5


@dataclass
class Box:
    """A task, or (``lane``) the place where an edge passes a layer. x, y: the top left corner."""

    name: str
    lane: bool
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """``paths`` are the boxes through which each edge goes, by (from, to)."""

    boxes: dict[str, Box]
    paths: dict[tuple[str, str], list[Box]]
    width: float
    height: float


def text_width(text: str) -> float:
    return len(text) * _PER_CHARACTER


def lay_out(graph: Graph) -> Layout:
    """Place the tasks of a graph whose top left corner is 0, 0."""
    names = [[node.name for node in layer] for layer in graph.layers()]
    layers = [[Box(name, False, text_width(name) + 22, HEIGHT) for name in layer] for layer in names]
    level = {box.name: number for number, layer in enumerate(layers) for box in layer}
    boxes = {box.name: box for layer in layers for box in layer}
    paths = {}
    for before, after in graph.edges:
        path = [boxes[before]]
        for number in range(level[before] + 1, level[after]):
            lane = Box(f"{before}>{after}", True, 0, _LANE)
            layers[number].append(lane)
            path.append(lane)
        paths[before, after] = [*path, boxes[after]]
    _order(layers, paths)
    width, height = _place(layers)
    return Layout(boxes, paths, width, height)


def _order(layers: list[list[Box]], paths: dict[tuple[str, str], list[Box]]) -> None:
    """Sort each layer by where its neighbours are, to and fro, and keep the order with the fewest crossings.

    Where it ends depends on where it starts: every order of a small first layer is tried.
    """
    links = [link for path in paths.values() for link in pairwise(path)]
    best, fewest = [list(layer) for layer in layers], _crossings(layers, links)
    starts = permutations(layers[0]) if len(layers[0]) <= _TRIED else [tuple(layers[0])]
    for start in starts:
        tried = [list(start), *(list(layer) for layer in layers[1:])]
        for sweep in range(_SWEEPS):
            crossings = _crossings(tried, links)
            if crossings < fewest:
                best, fewest = [list(layer) for layer in tried], crossings
            _sweep(tried, links, forward=sweep % 2 == 0)
    for layer, order in zip(layers, best, strict=True):
        layer[:] = order


def _sweep(layers: list[list[Box]], links: list[tuple[Box, Box]], *, forward: bool) -> None:
    for layer in layers[1:] if forward else layers[-2::-1]:
        place = {id(box): number / len(each) for each in layers for number, box in enumerate(each)}
        wanted = {}
        for box in layer:
            beside = [place[id(a if forward else b)] for a, b in links if (b if forward else a) is box]
            wanted[id(box)] = sum(beside) / len(beside) if beside else place[id(box)]
        layer.sort(key=lambda box: wanted[id(box)])


def _crossings(layers: list[list[Box]], links: list[tuple[Box, Box]]) -> int:
    place = {id(box): (number, row) for number, layer in enumerate(layers) for row, box in enumerate(layer)}
    ends = [(place[id(a)], place[id(b)]) for a, b in links]
    return sum(
        one[0][0] == two[0][0] and (one[0][1] - two[0][1]) * (one[1][1] - two[1][1]) < 0
        for number, one in enumerate(ends)
        for two in ends[:number]
    )


def _place(layers: list[list[Box]]) -> tuple[float, float]:
    height = max(_tall(layer) for layer in layers)
    x = 0.0
    for layer in layers:
        width = max(box.width for box in layer)
        y = (height - _tall(layer)) / 2
        for box in layer:
            box.x, box.y = x + (width - box.width) / 2, y
            y += box.height + _GAP_Y
        x += width + _GAP_X
    return x - _GAP_X, height


def _tall(layer: list[Box]) -> float:
    return sum(box.height for box in layer) + _GAP_Y * (len(layer) - 1)
