"""Progress of a program that writes a file: how much of the file there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from virtflow.activity import Activity


class _GrowthWatch(Activity):
    """Asks its step the same questions, and tells it how far the file has grown each time it is asked."""

    def __init__(self, activity: Activity, target: Path, total: int | None) -> None:
        super().__init__(activity.name, activity.deadline)
        self._activity = activity
        self._target = target
        self._total = total

    def report(self, done: int, total: int | None) -> None:
        self._activity.report(done, total)

    def cancelled(self) -> bool:
        return self._activity.cancelled()

    def check(self) -> None:
        self._activity.check()
        with contextlib.suppress(OSError):
            # Allocated blocks, in units of 512 bytes (stat(2)): the length is there from the start.
            grown = self._target.stat().st_blocks * 512
            self.report(min(grown, self._total) if self._total is not None else grown, self._total)


@contextlib.contextmanager
def watch_growth(activity: Activity, target: Path, total: int | None) -> Iterator[Activity]:
    """An activity to run the program with; reports in bytes of ``total``, and all of it when the program is done."""
    yield _GrowthWatch(activity, target, total)
    if total is not None:
        activity.report(total, total)
