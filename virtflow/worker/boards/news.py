"""What wakes those who wait for jobs: servers' watches tell it here, from whatever thread they live in."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

_LAST_WORDS = 5.0
"""Seconds that listening threads have for their end."""


class News:
    """Counts per topic what was heard of it. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heard: Counter[str] = Counter()
        self.closed = False

    def heard(self, topics: Iterable[str]) -> None:
        """Something may have come to these topics."""
        with self._changed:
            self._heard.update(topics)
            self._changed.notify_all()

    def so_far(self, topics: Sequence[str]) -> int:
        """How much was heard of them: to be taken before one looks, and given to ``wait`` after."""
        with self._changed:
            return sum(self._heard[topic] for topic in topics)

    def wait(self, topics: Sequence[str], known: int, timeout: float) -> None:
        """Sleep until there is more than what was known, at most ``timeout`` seconds, and not when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or sum(self._heard[topic] for topic in topics) != known, timeout)

    def close(self) -> None:
        """Whoever waits returns."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class Listeners:
    """Threads that listen to something, once for each of some names, until they are told to stop.

    ``listen(name)`` blocks while it listens and returns or raises when that ended, whatever the reason; it is called
    again then, after a pause that grows while it fails at once.
    """

    def __init__(self, listen: Callable[[str], None], expected: tuple[type[Exception], ...]) -> None:
        self._listen = listen
        self._expected = expected
        self._stopped = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def to(self, name: str) -> None:
        """Start listening to it, unless that was done already."""
        with self._lock:
            if name in self._threads or self._stopped.is_set():
                return
            thread = self._threads[name] = threading.Thread(
                target=self._run, args=(name,), name=f"board-{name}", daemon=True
            )
        thread.start()

    @property
    def stopped(self) -> bool:
        """Whether ``listen`` has to return."""
        return self._stopped.is_set()

    def stop(self, interrupt: Callable[[], None]) -> None:
        """End all threads; ``interrupt`` makes those that listen return."""
        with self._lock:
            self._stopped.set()
            threads = [thread for thread in self._threads.values() if thread is not threading.current_thread()]
        deadline = time.monotonic() + _LAST_WORDS
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            interrupt()  # again where one was just about to listen
            for thread in threads:
                thread.join(0.1)

    def _run(self, name: str) -> None:
        pause = 0.1
        while not self._stopped.is_set():
            try:
                self._listen(name)
                pause = 0.1
            except self._expected:
                self._stopped.wait(pause)
                pause = min(pause * 2, 2.0)
