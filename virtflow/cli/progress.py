"""Progress of an operation on stderr: a live tree on a terminal, one line per transition anywhere else."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TextIO


class StepEvent(Protocol):
    """A task's new state. The engine's TaskEvent is one; so is ``Step``, made from what the database says."""

    @property
    def flow(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def progress(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...


@dataclass(frozen=True)
class Step:
    """``progress`` from 0 to 1."""

    flow: str
    task: str
    state: str
    attempt: int = 1
    progress: float | None = None
    error: str | None = None


WORDS = {
    "RUNNING": "running",
    "SUCCESS": "done",
    "FAILURE": "failed",
    "REVERTING": "reverting",
    "REVERTED": "reverted",
    "REVERT_FAILURE": "NOT REVERTED",
    "RETRYING": "again",
}
"""TaskFlow's states of an atom as they are shown; PENDING and IGNORE are not."""


class Progress:
    """Takes events from any thread. Used as a context manager, so that the terminal is left as it was found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, event: StepEvent) -> None:
        with self._lock:
            self.show(event)

    def show(self, event: StepEvent) -> None:
        """Called with the lock held."""

    def say(self, text: str) -> None:
        """A line beside the progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class PlainProgress(Progress):
    """``12:00:31 FetchBase: done (1.2 s)``: a line when a task changes its state, nothing in between."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._last: dict[tuple[str, str], tuple[str, int]] = {}
        self._since: dict[tuple[str, str], float] = {}

    def show(self, event: StepEvent) -> None:
        key, new = (event.flow, event.task), (event.state, event.attempt)
        if event.state not in WORDS or self._last.get(key) == new:
            return
        self._last[key] = new
        text = f"{event.task}: {WORDS[event.state]}"
        if event.state in ("RUNNING", "REVERTING"):
            self._since[key] = time.monotonic()
            text += f" (attempt {event.attempt})" if event.attempt > 1 else ""
        elif key in self._since:
            text += f" ({duration(time.monotonic() - self._since.pop(key))})"
        if event.error:
            text += f": {printable(event.error)}"
        self.say(text)

    def say(self, text: str) -> None:
        self._out.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._out.flush()


def progress_for(out: TextIO, title: str) -> Progress:
    """What suits the stream. NO_COLOR takes the colours away, not the tree (https://no-color.org)."""
    if out.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from virtflow.cli.live import LiveProgress

        return LiveProgress(out, title)
    return PlainProgress(out)


def duration(seconds: float) -> str:
    """For people: three digits or so."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def printable(text: Any, longest: int = 500) -> str:
    """One line without control characters: errors quote programs, and programs quote what they were given."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= longest else line[: longest - 3] + "..."
