"""Waits for the verdicts of segments that other processes run.

Where the database tells of one, whoever waits hears it at once. As it may not, or not this process, there is one look
of the process every now and then for all that wait in it: on SQLite when anything was written, elsewhere more seldom
the longer it takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from virtflow.errors import DatabaseError
from virtflow.persistence.changes import SqliteChanges
from virtflow.persistence.job_news import JobNews
from virtflow.persistence.segments import SegmentRepository

LOG = logging.getLogger(__name__)
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
"""Seconds between two looks: often while verdicts come, or have just been asked for."""
_GLANCE = 0.005
"""Seconds between two glances at whether there was a commit, where that can be seen."""
_GROWTH = 1.2
"""From one pause to the next: a verdict is seen when a fifth of the time has passed again that it has taken."""


class Answers:
    """One thread, which runs while somebody waits. Thread-safe."""

    def __init__(self, segments: SegmentRepository, news: JobNews, changes: SqliteChanges | None = None) -> None:
        """``changes``: of the database, where who looks can see them."""
        self._segments = segments
        self._news = news
        self._changes = changes
        self._waiting: dict[str, threading.Event] = {}
        self._changed = threading.Condition()
        self._asked = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        news.expect(self._tell)

    @contextmanager
    def expecting(self, segment: str) -> Iterator[threading.Event]:
        """An event that is set when the segment has a verdict, or when this is closed."""
        answered = threading.Event()
        with self._changed:
            self._waiting[segment] = answered
            self._asked += 1
            if self._closed:
                answered.set()
            elif self._thread is None:
                self._thread = threading.Thread(target=self._look_often, name="virtflow-answers", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield answered
        finally:
            with self._changed:
                self._waiting.pop(segment, None)

    def close(self) -> None:
        self._news.expect_no_more(self._tell)
        with self._changed:
            self._closed = True
            for answered in self._waiting.values():
                answered.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self._changes is not None:
            self._changes.close()

    def _look_often(self) -> None:
        pause = _SHORTEST_PAUSE
        asked = seen = 0
        while (waiting := self._pause(pause, asked, seen)) is not None:
            seen = self._count()
            if self._asked != asked:
                asked, pause = self._asked, _SHORTEST_PAUSE
            try:
                ended = self._segments.ended(waiting)
            except DatabaseError as error:
                LOG.warning("cannot look for verdicts: %s", error)
                ended = set()
            pause = _SHORTEST_PAUSE if ended else min(_GROWTH * pause, _LONGEST_PAUSE)
            for segment in ended:
                self._tell(segment)

    def _pause(self, seconds: float, asked: int, seen: int) -> list[str] | None:
        """Sleep, at least until somebody waits; who waits then. None when this is closed."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._closed and self._asked == asked and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left if self._changes is None else min(left, _GLANCE))
                if self._count() != seen:
                    break
            while not self._closed:
                waiting = [segment for segment, answered in self._waiting.items() if not answered.is_set()]
                if waiting:
                    return waiting
                # Nobody tells when an event is cleared to be waited for once more.
                self._changed.wait(_LONGEST_PAUSE if self._waiting else None)
            return None

    def _count(self) -> int:
        """How much was written to the database; always the same where that cannot be seen."""
        return 0 if self._changes is None else self._changes.count()

    def _tell(self, segment: str) -> None:
        with self._changed:
            answered = self._waiting.get(segment)
            if answered is not None:
                answered.set()
