"""Where a moment stands on the time axis. Long times in which nothing ran are folded, so that work can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_LONG = 0.15
"""A pause is folded when it is longer than this part of all the time in which something ran ..."""
_SHORTEST = 1_000_000
"""... and longer than this, in microseconds."""
_FOLDED = 0.06
"""The part of the axis that a folded pause takes; all of them at most a third."""
_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """``knots``: (microseconds, part of the axis from 0 to 1), straight between them."""

    knots: Sequence[tuple[int, float]]
    gaps: Sequence[tuple[int, int]]
    ticks: Sequence[int]


def axis(busy: Iterable[tuple[int, int]], end: int) -> Axis:
    """From the times (from, to) in which something ran to the axis from 0 to ``end``."""
    pauses = _pauses(sorted(busy), end)
    active = end - sum(to - since for since, to in pauses)
    gaps = [pause for pause in pauses if pause[1] - pause[0] > max(_SHORTEST, _LONG * active)]
    width = min(_FOLDED, 1 / 3 / len(gaps)) if gaps else 0.0
    spent = max(1, end - sum(to - since for since, to in gaps))
    share = (1 - width * len(gaps)) / spent
    knots, at, x = [(0, 0.0)], 0, 0.0
    for since, to in gaps:
        x += (since - at) * share
        knots += [(since, round(x, 6)), (to, round(x + width, 6))]
        at, x = to, x + width
    knots.append((max(end, at), 1.0))
    return Axis(knots, gaps, _ticks(knots, gaps, spent))


def _pauses(busy: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    pauses, at = [], 0
    for since, to in busy:
        if since > at:
            pauses.append((at, since))
        at = max(at, to)
    return [*pauses, (at, end)] if end > at else pauses


def _ticks(knots: Sequence[tuple[int, float]], gaps: Sequence[tuple[int, int]], spent: int) -> list[int]:
    """Round moments in each unfolded stretch, about seven in all."""
    step = next((s for s in _steps() if spent / s <= _TICKS), spent)
    ticks = []
    for (since, _), (to, _) in pairwise(knots):
        if (since, to) not in gaps:
            ticks += list(range(-(-since // step) * step, to + 1, step))
    return sorted(set(ticks))


def _steps() -> list[int]:
    small = [base * 10**power for power in range(8) for base in (1, 2, 5)]
    return [step for step in small if step < 15_000_000] + [
        round(seconds * 1_000_000)
        for seconds in (15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 604800)
    ]
