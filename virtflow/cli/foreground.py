"""Run an operation in this process and stay with it: progress, and what Ctrl-C means.

The engine runs in a thread of its own, so that the main thread, where Python handles signals, is never in the middle
of a database transaction when Ctrl-C is pressed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from virtflow.cli.progress import Progress, progress_for

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.engine.runner import Runner
    from virtflow.persistence.operations import Operation

_ACCEPT = "Accept"
"""The task before which a request can still be refused."""
_TICK = 0.1
"""Seconds between two looks for a signal."""


def run_in_foreground(
    context: Context, title: str, start: Callable[[Runner], Operation], *, new: bool = False
) -> Operation:
    """``start`` runs the operation to its end; its errors are raised here.

    Of a ``new`` operation nothing is shown until it was accepted: a request that is refused gets its one line of error.

    The first Ctrl-C on a terminal asks, the second cancels; without a terminal the first one cancels. One more leaves
    the operation as it is, to be resumed.
    """
    progress = progress_for(context.stderr, title)
    seen: list[str] = []
    show = _Accepted(progress) if new else progress

    def follow(event: Any) -> None:
        if not seen:
            seen.append(event.operation)
        show(event)

    with _counting_interrupts() as interrupts, context.runner(follow) as runner, progress:
        call = _Call(lambda: start(runner))
        answer = _Answer(runner, progress, ask=sys.stdin.isatty() and context.stderr.isatty())
        while call.is_alive():
            call.join(_TICK)
            answer.to(len(interrupts), seen)
    return call.result()


class _Accepted:
    """Holds events back until the request was accepted. Called from any thread."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._held: list[Any] | None = []

    def __call__(self, event: Any) -> None:
        with self._lock:
            if self._held is None:
                self._progress(event)
                return
            self._held.append(event)
            if event.task == _ACCEPT:
                for each in self._held:
                    self._progress(each)
                self._held = None


class _Call(threading.Thread):
    def __init__(self, function: Callable[[], Operation]) -> None:
        super().__init__(name="operation", daemon=True)
        self._function = function
        self._result: Operation | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error

    def result(self) -> Operation:
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class _Answer:
    """What is done about the n-th Ctrl-C."""

    def __init__(self, runner: Runner, progress: Progress, ask: bool) -> None:
        self._runner = runner
        self._progress = progress
        steps: list[Callable[[str], None]] = [self._question] if ask else []
        self._steps = [*steps, self._cancel, self._leave]
        self._done = 0

    def to(self, interrupts: int, operation: list[str]) -> None:
        """Catch up with the number of interrupts, as soon as the operation's id is known."""
        if not operation and interrupts >= len(self._steps):
            self._leave("--last")  # no task has started yet: nothing to cancel, but somebody who wants to go
        while operation and self._done < min(interrupts, len(self._steps)):
            self._steps[self._done](operation[0])
            self._done += 1

    def _question(self, _operation: str) -> None:
        self._progress.say("Cancel, and take back what was done? Press Ctrl-C again to do so; it goes on meanwhile.")

    def _cancel(self, operation: str) -> None:
        self._progress.say("Cancelling; press Ctrl-C once more to leave it as it is, to be resumed later.")
        # Not in this thread: whatever the engine does about it, the next Ctrl-C must be heard.
        threading.Thread(target=self._runner.cancel, args=(operation,), daemon=True).start()

    def _leave(self, operation: str) -> None:
        self._progress.say(f"Left as it is. Go on with: virtflow operation resume {operation}")
        self._progress.__exit__(None, None, None)
        # The engine's threads cannot be stopped in the middle of a step; the process can, and resume copes with it.
        os._exit(130)


@contextmanager
def _counting_interrupts() -> Iterator[list[int]]:
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
