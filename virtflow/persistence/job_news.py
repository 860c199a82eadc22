"""Wakes the threads of this process that wait for jobs or verdicts: one place per database, whoever tells and waits."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from virtflow.persistence.database import Database
from virtflow.persistence.posting import answered_segment


class JobNews:
    """Counts what was told of each topic, so that news between looking and sleeping is not missed. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: Counter[str] = Counter()
        self._told_all = 0
        self._expecting: tuple[Callable[[str], None], ...] = ()

    def tell(self, topic: str | None) -> None:
        """There may be something to claim on this topic; None: on any. Of an answer, those hear who expect some."""
        segment = None if topic is None else answered_segment(topic)
        if segment is not None:
            for answered in self._expecting:
                answered(segment)
            return
        with self._changed:
            if topic is None:
                self._told_all += 1
            else:
                self._told[topic] += 1
            self._changed.notify_all()

    def expect(self, answered: Callable[[str], None]) -> None:
        """Call it with each segment that is told to have its verdict, from any thread."""
        with self._changed:
            self._expecting = (*self._expecting, answered)

    def expect_no_more(self, answered: Callable[[str], None]) -> None:
        with self._changed:
            self._expecting = tuple(each for each in self._expecting if each != answered)

    def mark(self, topics: Sequence[str]) -> int:
        """How much was told so far."""
        with self._changed:
            return self._count(topics)

    def wait(self, topics: Sequence[str], mark: int, seconds: float) -> bool:
        """Sleep until something is told of these topics after ``mark``; False after that many seconds."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._count(topics) == mark:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _count(self, topics: Sequence[str]) -> int:
        return self._told_all + sum(self._told[topic] for topic in topics)


_news: WeakKeyDictionary[Database, JobNews] = WeakKeyDictionary()
_lock = threading.Lock()


def news_of(database: Database) -> JobNews:
    """The one of this database object."""
    with _lock:
        return _news.setdefault(database, JobNews())
