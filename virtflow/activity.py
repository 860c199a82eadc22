"""What a long step tells, and asks, while it works: progress, cancellation, its deadline.

A driver takes an ``Activity`` and knows nothing else about who runs it. The default, ``IDLE``, reports to nobody and
never stops anything, so every driver can be used, and tested, on its own.
"""

from __future__ import annotations

import time

from virtflow.errors import OperationCancelled, TaskTimeout


class RunSuspended(BaseException):
    """Leaves a task's body so that the task counts as never finished: whoever goes on with the run does it again.

    Not an Exception: a failing task is a value to the engine, and this is no failure.
    """


class Activity:
    """The running step as its driver sees it.

    ``name`` appears in errors. ``deadline`` is a ``time.monotonic()`` value, or None for no limit.
    """

    def __init__(self, name: str = "idle", deadline: float | None = None) -> None:
        self.name = name
        self.deadline = deadline

    def report(self, done: int, total: int | None) -> None:
        """Tell how far the step is, in bytes; ``total`` is None when it is not known."""

    def cancelled(self) -> bool:
        """Whether somebody asked the operation to stop."""
        return False

    def cancel_requested(self) -> bool:
        """The same, where the step itself decides what follows from it: see ``Task.cancellable``."""
        return self.cancelled()

    def remaining(self) -> float | None:
        """Seconds until the deadline (never negative), or None for no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise OperationCancelled or TaskTimeout when the step has to stop; cheap, to be called in every loop."""
        if self.cancelled():
            raise OperationCancelled(step=self.name)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TaskTimeout(step=self.name)

    def sleep(self, seconds: float) -> None:
        """Wait, but wake for a cancel or the deadline (both raise, see ``check``)."""
        until = time.monotonic() + seconds
        while True:
            self.check()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))


IDLE = Activity()
