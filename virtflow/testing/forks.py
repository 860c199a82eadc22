"""Run a function in a forked child, which may be killed in the middle: what it returned, or the signal it died of.

Forking a process that has imported everything costs milliseconds, where a new interpreter costs most of a second. The
process that forks must not have opened libvirt or started threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_REAP_SECONDS = 0.02


@dataclass(frozen=True)
class Ended:
    """How a child ended. ``signal`` 0: by itself, with ``value``, or with ``error`` (a traceback)."""

    signal: int
    value: Any = None
    error: str | None = None

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL


def in_child(function: Callable[[], Any], *, seconds: float, kill_after: float | None = None) -> Ended:
    """Call ``function`` in a child and return its plain JSON result; after ``seconds`` the child is aborted.

    ``kill_after``: it is killed after so many seconds, wherever it is then.
    """
    _adopt_orphans()
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(function, writing)
    os.close(writing)
    try:
        now = time.monotonic()
        return _await(pid, reading, now + seconds, None if kill_after is None else now + kill_after)
    finally:
        os.close(reading)


def _work(function: Callable[[], Any], writing: int) -> None:
    """Never returns: what the parent's interpreter has registered for its end is not the child's."""
    try:
        answer: dict[str, Any] = {"value": function()}
    except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
        answer = {"error": traceback.format_exc()}
    with os.fdopen(writing, "w") as pipe:
        json.dump(answer, pipe)
    os._exit(0)


def _await(pid: int, reading: int, deadline: float, kill_at: float | None) -> Ended:
    answer = b""
    while True:
        now = time.monotonic()
        pause = _REAP_SECONDS
        if now > deadline:
            os.kill(pid, signal.SIGABRT)
            deadline = float("inf")
        if kill_at is not None and now >= kill_at:
            os.kill(pid, signal.SIGKILL)
            kill_at = None
        elif kill_at is not None:
            pause = min(pause, kill_at - now)
        ready, _, _ = select.select([reading], [], [], pause)
        part = os.read(reading, 1 << 16) if ready else b""
        answer += part
        if not part and (status := _reap(pid, wait=bool(ready))) is not None:
            break
    if os.WIFSIGNALED(status):
        return Ended(os.WTERMSIG(status))
    return Ended(0, **json.loads(answer)) if answer else Ended(0, error=f"exit status {os.WEXITSTATUS(status)}")


def _adopt_orphans() -> None:
    """QEMU becomes an orphan when it goes to the background. libvirt waits until a stopped one is gone, and whoever
    inherits it may take a second to bury it; here it is inherited by this process (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap(child: int, *, wait: bool) -> int | None:
    """Bury every dead process of ours; the status of ``child`` when it is among them. ``wait``: it is about to be."""
    while True:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found == child:
            return status
        if not found:
            if not wait:
                return None
            time.sleep(_REAP_SECONDS / 20)
