"""Text for a terminal or a file, as a tree of lines made of styled pieces; who prints it chooses colours or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from virtflow.persistence.models.base import isoformat

RECORDED = "recorded"
LIVE = "live"
DERIVED = "derived"
"""Every fact that is shown is one of these: read from the recording, asked just now, or worked out."""

Span = tuple[str, str]
"""A text and its style (rich's words; empty for none)."""

MARKS = {
    "SUCCESS": ("✔", "green"),
    "RUNNING": ("▶", "cyan"),
    "FAILURE": ("✘", "bold red"),
    "INTERRUPTED": ("⚡", "yellow"),
    "REVERTING": ("◀", "yellow"),
    "REVERTED": ("↩", "yellow"),
    "RETRYING": ("↻", "yellow"),
    "DEBT": ("✘", "bold red"),
    "REVERT_FAILURE": ("✘", "bold red"),
    "PENDING": ("·", "dim"),
    "IGNORE": ("·", "dim"),
}


@dataclass
class Branch:
    """A line and what stands below it."""

    spans: list[Span]
    children: list[Branch] = field(default_factory=list)

    def add(self, *spans: Span | str) -> Branch:
        """A line below; strings have no style."""
        branch = line(*spans)
        self.children.append(branch)
        return branch

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.spans)

    def plain(self, indent: str = "") -> Iterator[str]:
        """The lines without colours, indented by two blanks a level."""
        yield (indent + self.text).rstrip()
        for child in self.children:
            yield from child.plain(indent + "  ")


def line(*spans: Span | str) -> Branch:
    """A line of its own, without control characters, whatever it quotes."""
    styled = ((span, "") if isinstance(span, str) else span for span in spans)
    return Branch([(_printable(text), style) for text, style in styled])


def mark(state: str) -> Span:
    """One character for a state."""
    return MARKS.get(state, ("?", ""))


def clock(at: int | None) -> str:
    """Time of day, UTC, with milliseconds."""
    text = isoformat(at)
    return "" if text is None else text[11:-1]


def span(microseconds: int | None) -> str:
    """A duration for people, three digits or so."""
    if microseconds is None:
        return ""
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.0f} ms"
    seconds = microseconds / 1_000_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def one_line(value: Any, longest: int = 160) -> str:
    """Any value on one line without control characters: recordings quote programs, and those what they were given."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def harmless(text: str) -> str:
    """Several lines, without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
