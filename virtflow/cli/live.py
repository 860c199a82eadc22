"""The live task tree, drawn by rich."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from virtflow.cli.progress import WORDS, Progress, StepEvent, duration, printable

_MARKS = {
    "RUNNING": ("▶", "cyan"),
    "SUCCESS": ("✔", "green"),
    "FAILURE": ("✘", "bold red"),
    "REVERTING": ("◀", "yellow"),
    "REVERTED": ("↩", "dim"),
    "REVERT_FAILURE": ("✘", "bold red"),
    "RETRYING": ("↻", "yellow"),
}
_MOVING = ("RUNNING", "REVERTING")
_BAR = 20
"""Width of a progress bar, in characters."""


@dataclass
class _Line:
    event: StepEvent
    since: float
    spent: float | None = None
    error: str | None = None
    """Kept while the task is reverted: why it failed is what the reader looks for in the end."""


class LiveProgress(Progress):
    """A branch for every flow, a leaf for every task, in the order in which they start."""

    def __init__(self, out: TextIO, title: str) -> None:
        super().__init__()
        self._title = title
        self._flows: dict[str, dict[str, _Line]] = {}
        self._console = Console(file=out, highlight=False)
        self._live = Live(console=self._console, get_renderable=self._tree, refresh_per_second=8, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, event: StepEvent) -> None:
        if event.state not in WORDS:
            return
        tasks = self._flows.setdefault(event.flow, {})
        line = tasks.get(event.task)
        now = time.monotonic()
        if line is None or (event.state in _MOVING and line.event.state != event.state):
            tasks[event.task] = line = _Line(event, now, error=line.error if line else None)
        else:
            line.event = event
            line.spent = None if event.state in _MOVING else now - line.since
        line.error = event.error or line.error

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def _tree(self) -> Tree:
        tree = Tree(Text(printable(self._title), style="bold"), guide_style="dim")
        with self._lock:
            for flow, tasks in self._flows.items():
                branch = tree.add(Text(printable(flow), style="bold"))
                for line in tasks.values():
                    branch.add(_leaf(line))
        return tree


def _leaf(line: _Line) -> Text:
    event = line.event
    mark, style = _MARKS[event.state]
    spent = line.spent if line.spent is not None else time.monotonic() - line.since
    text = Text.assemble((mark, style), " ", f"{printable(event.task):<22}", (f"{duration(spent):>10}", "dim"))
    if event.state in _MOVING and event.progress is not None:
        filled = round(min(max(event.progress, 0.0), 1.0) * _BAR)
        text.append(f"  {'━' * filled}{'╌' * (_BAR - filled)} {event.progress:4.0%}", style)
    elif event.state != "SUCCESS":
        text.append(f"  {WORDS[event.state]}", style)
    if line.error:
        text.append(f": {printable(line.error, 120)}", "bold red")
    return text
