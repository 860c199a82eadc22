"""Tables and verdicts, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A number that was measured and what it has to be: at least ``bound``, or at most with ``most``."""

    text: str
    value: float
    bound: float
    most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.most else self.value >= self.bound

    def __str__(self) -> str:
        word = "at most" if self.most else "at least"
        return f"{'met   ' if self.met else 'MISSED'}  {self.text}: {self.value:.2f} ({word} {self.bound:g})"


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column left, the others right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    print(f"\n{title}")
    for row in (head, ["-" * width for width in widths], *rows):
        first, *others = row
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        print("  ".join(cells).rstrip())


def show_targets(targets: Sequence[Target]) -> None:
    print()
    for target in targets:
        print(target)
