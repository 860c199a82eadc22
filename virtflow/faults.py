"""Fault points: make a chosen task, or a chosen durable write, fail, die, stop or repeat itself.

``VIRTFLOW_FAULT`` is read once, at the start; without it ``active`` is None and nothing is looked up.

    VIRTFLOW_FAULT="Task[.revert]:before|after:raise|kill|stop|repeat|sleep=SECONDS|hold=FILE[:COUNT]"
    VIRTFLOW_FAULT="write:N[:before|after]:kill"

``before`` and ``after`` are relative to the effect. ``kill`` is SIGKILL to the own process, ``stop`` is SIGSTOP,
``repeat`` runs the body a second time, ``hold`` waits while the file is there. COUNT is how often the fault happens
(default 1, ``*`` for always). Several faults are separated by ``;``. A write is one commit, of the engine's state or of
a row that a task keeps, counted from 1 in this process.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from virtflow.errors import InvalidRequest, VirtflowError

_TASK = re.compile(
    r"(?P<task>[A-Za-z_][\w-]*)(?P<revert>\.revert)?:(?P<when>before|after):"
    r"(?P<action>raise|kill|stop|repeat|sleep=(?P<seconds>\d+(\.\d+)?)|hold=(?P<file>/[^:;]+))(:(?P<count>\d+|\*))?"
)
_LOOK = 0.02
"""Seconds between two looks whether a file is still there."""
_WRITE = re.compile(r"write:(?P<number>\d+)(:(?P<when>before|after))?:kill")


class InjectedFault(VirtflowError):
    """What ``raise`` raises."""

    template = "injected fault {when} {point}"
    exit_code = 4


@dataclass
class _Fault:
    point: str
    when: str
    action: str
    seconds: float = 0.0
    file: str = ""
    left: float = 1
    happened: bool = False


@dataclass
class FaultPoints:
    """The faults of one specification."""

    faults: list[_Fault] = field(default_factory=list)
    writes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, point: str, when: str) -> bool:
        """Called at ``Task`` or ``Task.revert``; True asks the caller to run the body once more."""
        repeat = False
        for fault in self.faults:
            if fault.point == point and fault.when == when and self._take(fault):
                repeat |= self._act(fault)
        return repeat

    def before_write(self) -> int:
        """Called before each durable write; its number, for ``after_write``."""
        with self._lock:
            self.writes += 1
            number = self.writes
        self.hit(f"write {number}", "before")
        return number

    def after_write(self, number: int) -> None:
        """Called when the write is durable."""
        self.hit(f"write {number}", "after")

    def unreached(self) -> list[str]:
        """The points of faults that never happened: a test that waits for one of them tests nothing."""
        return [fault.point for fault in self.faults if not fault.happened]

    def _take(self, fault: _Fault) -> bool:
        with self._lock:
            if fault.left <= 0:
                return False
            fault.left -= 1
            fault.happened = True
            return True

    def _act(self, fault: _Fault) -> bool:
        if fault.action == "raise":
            raise InjectedFault(when=fault.when, point=fault.point)
        if fault.action == "kill":
            _end_here(signal.SIGKILL)
        elif fault.action == "stop":
            _end_here(signal.SIGSTOP)
        elif fault.action == "sleep":
            time.sleep(fault.seconds)
        elif fault.action == "hold":
            while os.path.exists(fault.file):
                time.sleep(_LOOK)
        return fault.action == "repeat"


def _end_here(number: int) -> None:
    """Signal this very thread: it does not get any further.

    A signal to the process may be taken by another thread, and this one would go on for a moment, into a transaction,
    say, whose lock a stopped process then keeps.
    """
    signal.pthread_kill(threading.get_ident(), number)


def parse(text: str) -> FaultPoints | None:
    """Read a specification; None for an empty one. Raises InvalidRequest with field VIRTFLOW_FAULT."""
    faults = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        if write := _WRITE.fullmatch(part):
            faults.append(_Fault(f"write {write['number']}", write["when"] or "before", "kill"))
        elif task := _TASK.fullmatch(part):
            count = float("inf") if task["count"] == "*" else float(task["count"] or 1)
            point = task["task"] + (task["revert"] or "")
            seconds = float(task["seconds"] or 0)
            action, file = task["action"].partition("=")[0], task["file"] or ""
            faults.append(_Fault(point, task["when"], action, seconds, file, left=count))
        else:
            raise InvalidRequest(field="VIRTFLOW_FAULT", reason=f"cannot read {part!r}")
    return FaultPoints(faults) if faults else None


active: FaultPoints | None = None


def read_environment() -> None:
    """Take the faults from ``VIRTFLOW_FAULT`` (the command line does this once, at its start)."""
    global active  # noqa: PLW0603 - the one switch of this module
    active = parse(os.environ.get("VIRTFLOW_FAULT", ""))


@contextmanager
def injected(text: str) -> Iterator[FaultPoints | None]:
    """Faults for a block of code, for tests in the same process."""
    with armed(parse(text)) as points:
        yield points


@contextmanager
def armed(points: FaultPoints | None) -> Iterator[FaultPoints | None]:
    """The same with fault points that were parsed already."""
    global active  # noqa: PLW0603
    before, active = active, points
    try:
        yield points
    finally:
        active = before
