"""Where the report's nodes stand, and how its time axis is folded."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from virtflow.replay.report.axis import axis
from virtflow.replay.report.layout import COLUMNS, NODE_HEIGHT, NODE_WIDTH, Block, essential, picture, rows

GRAPHS = st.integers(1, 14).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40).map(
            lambda edges: [(a, b) for a, b in edges if a < b]
        ),
    )
)


def reachable(count: int, edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    found = set(edges)
    for middle, first, last in itertools.product(range(count), repeat=3):
        if (first, middle) in found and (middle, last) in found:
            found.add((first, last))
    return found


@given(GRAPHS)
def test_every_node_stands_below_what_comes_before_it(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    row_of = {node: row for row, line in enumerate(rows(range(count), edges)) for node in line}
    assert sorted(row_of) == list(range(count))
    assert all(row_of[before] < row_of[after] for before, after in edges)


@given(GRAPHS)
def test_lines_that_others_imply_are_left_out_and_no_other(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    kept = essential(range(count), edges)
    assert reachable(count, kept) == reachable(count, edges)
    for edge in kept:
        assert edge not in reachable(count, [other for other in kept if other != edge])


@given(GRAPHS)
def test_no_two_nodes_overlap_and_all_stand_in_the_frame(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    drawn = picture([Block(range(count), edges, {})], [0])
    frame = drawn.frames[0]
    assert len(drawn.places) == count
    for x, y in drawn.places.values():
        assert frame.x <= x <= x + NODE_WIDTH <= frame.x + frame.width
        assert frame.y <= y <= y + NODE_HEIGHT <= frame.y + frame.height
    for (x1, y1), (x2, y2) in itertools.combinations(drawn.places.values(), 2):
        assert abs(x1 - x2) >= NODE_WIDTH or abs(y1 - y2) >= NODE_HEIGHT


@given(GRAPHS)
def test_lines_are_right_angled_and_go_from_node_to_node(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    drawn = picture([Block(range(count), edges, {})], [0])
    for before, after, points in drawn.routes:
        corners = list(zip(points[::2], points[1::2], strict=True))
        assert all(one[0] == two[0] or one[1] == two[1] for one, two in itertools.pairwise(corners))
        assert corners[0][1] == drawn.places[before][1] + NODE_HEIGHT
        assert corners[-1][1] == drawn.places[after][1]


def test_a_wide_layer_is_broken_into_rows() -> None:
    wide = rows(range(20), [(0, other) for other in range(1, 20)])
    assert max(map(len, wide)) == COLUMNS


def test_a_circle_that_no_flow_has_is_drawn_all_the_same() -> None:
    drawn = picture([Block(range(3), [(0, 1), (1, 2), (2, 0)], {})], [0])
    assert len(drawn.places) == 3


def test_five_hundred_nodes_are_laid_out_at_once() -> None:
    edges = [(a, a + step) for a in range(500) for step in (1, 3, 7, 20) if a + step < 500]
    began = time.process_time()
    picture([Block(range(500), edges, {})], [0])
    assert time.process_time() - began < 2


# -- time -------------------------------------------------------------------------------------------------------------

BUSY = st.lists(
    st.tuples(st.integers(0, 10**10), st.integers(0, 10**9)).map(lambda t: (t[0], t[0] + t[1])), max_size=12
)


@given(BUSY)
def test_later_is_never_further_left(busy: list[tuple[int, int]]) -> None:
    end = max((until for _, until in busy), default=0)
    found = axis(busy, end)
    assert found.knots[0] == (0, 0.0)
    assert found.knots[-1] == (end, 1.0)
    assert all(t1 <= t2 and x1 <= x2 for (t1, x1), (t2, x2) in itertools.pairwise(found.knots))
    assert all(0 <= tick <= end for tick in found.ticks)
    assert len(found.ticks) <= 7 * (len(found.gaps) + 2)


def test_short_pauses_are_not_folded() -> None:
    assert axis([(0, 1_000_000), (1_500_000, 3_000_000)], 3_000_000).gaps == []


def test_a_night_is_folded() -> None:
    night = 8 * 3_600_000_000
    found = axis([(0, 2_000_000), (night, night + 2_000_000)], night + 2_000_000)
    assert found.gaps == [(2_000_000, night)]
    assert 0.4 < found.knots[1][1] < 0.5
