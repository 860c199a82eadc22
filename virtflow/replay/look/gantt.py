"""``replay timeline``: when each task ran and was taken back, as bars. Time in which nothing ran is cut short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from virtflow.replay.history import UNDO, Attempt
from virtflow.replay.look.lines import DERIVED, Branch, Span, clock, line, one_line, span
from virtflow.replay.look.tasks import FlowLines, TaskLine, flow_lines, folded
from virtflow.replay.recording import Recording

_BARS = {"do": "━", UNDO: "┄"}
_ENDS = {"FAILURE": ("✘", "bold red"), "DEBT": ("✘", "bold red"), "INTERRUPTED": ("⚡", "yellow")}
_STYLES = {"FAILURE": "red", "DEBT": "red", "INTERRUPTED": "yellow", "RUNNING": "cyan"}
_CUT = 3
"""Columns of a pause that was cut short."""


def gantt(recording: Recording, width: int, *, everything: bool = False) -> Branch:
    """The chart, ``width`` columns wide."""
    tops = flow_lines(recording)
    tasks = [task for top in tops for task in _walk(top)]
    done = [attempt for _, task in tasks for attempt in task.attempts]
    if not done:
        return line("nothing has run yet")
    names = min(max(26, max(len(task.name) for _, task in tasks) + 4), 36)
    scale = _Scale(done, max(event.at for event in recording.events), max(20, width - names - 12))
    head = f"{clock(scale.start)} to {clock(scale.end)} UTC, {span(scale.end - scale.start)}"
    legend = f"   ━ do  ┄ undo  ✘ failed  ⚡ process died  ({DERIVED} from the journal)"
    root = line((head, "bold"), (legend, "dim"))
    for since, to in scale.pauses:
        root.add((f"cut: nothing ran from {clock(since)} to {clock(to)} ({span(to - since)})", "dim"))
    for top in tops:
        root.children += _rows(top, scale, names, 0, everything=everything)
    return root


class _Scale:
    """From times to columns. Open attempts last until the last event."""

    def __init__(self, done: Sequence[Attempt], latest: int, columns: int) -> None:
        ranges = sorted((each.started_at, max(each.started_at, each.finished_at or latest)) for each in done)
        self.start, self.end = ranges[0][0], max(end for _, end in ranges)
        busy: list[tuple[int, int]] = []
        for since, to in ranges:
            if busy and since <= busy[-1][1]:
                busy[-1] = (busy[-1][0], max(busy[-1][1], to))
            else:
                busy.append((since, to))
        worked = sum(to - since for since, to in busy)
        longest = max(1_000_000, worked // 2)
        self.pauses = [(one[1], two[0]) for one, two in pairwise(busy) if two[0] - one[1] > longest]
        shown = max(1, self.end - self.start - sum(to - since for since, to in self.pauses))
        self._per_column = shown / max(1, columns - _CUT * len(self.pauses))
        self.columns = columns
        self.latest = latest

    def column(self, at: int) -> int:
        place, before = 0.0, self.start
        for since, to in self.pauses:
            if at <= since:
                break
            place += (since - before) / self._per_column + _CUT
            before = to
        place += max(0, at - before) / self._per_column
        return max(0, min(self.columns - 1, int(place)))


def _walk(flow: FlowLines) -> Iterator[tuple[FlowLines, TaskLine]]:
    for task in flow.tasks:
        yield flow, task
    for segments in flow.segments.values():
        for segment in segments:
            yield from _walk(segment)


def _rows(flow: FlowLines, scale: _Scale, names: int, depth: int, *, everything: bool) -> Iterator[Branch]:
    own = flow.flow
    yield line(("  " * depth + f"{own.kind} on {own.host}", "bold"))
    for run in folded(flow.tasks, everything=everything, keep=flow.segments):
        attempts = [attempt for task in run for attempt in task.attempts]
        if attempts:
            name = run[0].name if len(run) == 1 else f"{len(run)} tasks from {run[0].name}"
            yield _row("  " * depth + one_line(name, 60), attempts, scale, names)
        for task in run:
            for segment in flow.segments.get(task.name, ()):
                yield from _rows(segment, scale, names, depth + 1, everything=everything)
    for segment in flow.segments.get("", ()):
        yield from _rows(segment, scale, names, depth + 1, everything=everything)


def _row(name: str, attempts: Sequence[Attempt], scale: _Scale, names: int) -> Branch:
    cells: list[Span] = [(" ", "")] * scale.columns
    marks: dict[int, Span] = {}
    for attempt in attempts:
        first = scale.column(attempt.started_at)
        last = max(first, scale.column(attempt.finished_at if attempt.finished_at is not None else scale.latest))
        style = _STYLES.get(attempt.state, "yellow" if attempt.direction == UNDO else "green")
        cells[first : last + 1] = [(_BARS[attempt.direction], style)] * (last + 1 - first)
        if attempt.state in _ENDS:
            marks[last] = _ENDS[attempt.state]
    for column, end in marks.items():  # above whatever else there is no room for
        cells[column] = end
    took = sum(attempt.duration or 0 for attempt in attempts)
    shown = name if len(name) < names else name[: names - 2] + "…"
    return line(f"{shown:<{names}}", *_joined(cells), (f" {span(took):>9}", "dim"))


def _joined(cells: Sequence[Span]) -> Iterator[Span]:
    """Neighbours of one style together."""
    text, style = "", ""
    for character, its in cells:
        if its != style and text:
            yield text, style
            text = ""
        text, style = text + character, its
    yield text, style
